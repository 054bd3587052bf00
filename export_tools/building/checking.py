"""A plan against the bundle's golden vectors, where there is a GPU to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeser.runtime.bundle import MODEL, Bundle
from edgeser.runtime.engines import Engine
from edgeser.runtime.errors import MissingDependencyError
from edgeser.runtime.golden import GoldenVectors, looser, verify_engine, verify_frontend
from edgeser.runtime.gpu import find_gpu
from edgeser.runtime.plans import read_plan


@dataclass(frozen=True)
class CheckRequest:
    """Which plan to run.

    Attributes:
        file: The plan's, not yet where it belongs.
        graph: The portable graph that the plan was built for.
        bundle: The bundle's path.
        name: Of the part, see `Bundle.graphs`.
    """

    file: Path
    graph: bytes
    bundle: Path
    name: str


@dataclass(frozen=True)
class Checked:
    """What came out.

    Attributes:
        difference: See `Plan`; `None` where the plan was not run.
        why: The reason then, else empty.
    """

    difference: float | None
    why: str


def check_plan(request: CheckRequest) -> Checked:
    """Run golden vectors through a plan.

    Raises:
        ParityError: The plan does not compute what the bundle says.
        EngineError: It does not open, or does not run.
    """
    gpu = find_gpu()
    if gpu is None:
        return Checked(None, "no GPU here")
    from edgeser.runtime.engines.tensorrt import TensorRtEngine, TensorRtRtxEngine

    plan, content = read_plan(request.file)
    why = plan.unusable(plan.library_version, gpu.name, gpu.capability, request.graph)
    if why:  # built ahead of time, for another GPU
        return Checked(None, why.partition(": run")[0])
    bundle = Bundle.open(request.bundle)
    kind = {engine.library: engine for engine in (TensorRtEngine, TensorRtRtxEngine)}[plan.library]

    def open_graph(graph: bytes) -> Engine:
        return kind.of_plan(plan, content, graph)

    try:
        if request.name == MODEL:
            with open_graph(request.graph) as engine:
                return Checked(verify_engine(engine, bundle), "")
        return _check_encoder(bundle, request.name, plan.precision, open_graph)
    except MissingDependencyError as error:  # pycuda: to build needs less than to run
        return Checked(None, str(error))


def _check_encoder(bundle: Bundle, name: str, precision: str, open_graph: Callable[[bytes], Engine]) -> Checked:
    vectors = GoldenVectors.from_bundle(bundle).encoders.get(name)
    if vectors is None:
        return Checked(None, f"{bundle.path.name} has no golden vectors for {name}")
    frontend = bundle.frontend(name, open_graph)
    try:
        return Checked(verify_frontend(frontend, vectors, looser(precision, bundle)), "")
    finally:
        frontend.close()
