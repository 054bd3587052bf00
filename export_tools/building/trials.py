"""Every engine that this device can have for a bundle: built apart, compared with the golden vectors, and timed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeser.export_tools.building.build import BuildOptions, build
from edgeser.export_tools.building.isolated import Limits, run_apart
from edgeser.export_tools.building.library import LIBRARIES, Library
from edgeser.export_tools.building.messages import one_line
from edgeser.export_tools.building.report import GraphReport
from edgeser.export_tools.building.rows import at_its_longest
from edgeser.runtime.bundle import MODEL, Bundle
from edgeser.runtime.engines import Engine, OnnxRuntimeEngine, candidates, open_engine
from edgeser.runtime.errors import EdgeSerError, MissingDependencyError
from edgeser.runtime.golden import GoldenVectors, verify_engine
from edgeser.runtime.plans import read_plan
from edgeser.runtime.timing import Latency, side_by_side

_CALLS = 100
_TIMING = Limits(timeout_s=300.0)
_PROCESSOR = ("openvino", OnnxRuntimeEngine.name)


@dataclass(frozen=True)
class Trial:
    """One engine of one graph.

    Attributes:
        engine: Its name.
        graph: `model`, or the modality whose encoder it is.
        lowering: What it was built from.
        precision: What it computes in.
        build_s: Seconds to build it; 0 where nothing is built.
        size_mb: Its size, or the graph's.
        difference: From the golden vectors; `None` where it was not compared.
        latency: Of one utterance; `None` where it was not run.
        problem: Why it does not serve, or was not run; empty where all went well.
        failed: Whether the problem is a failure.
    """

    engine: str
    graph: str
    lowering: str
    precision: str
    build_s: float = 0.0
    size_mb: float = 0.0
    difference: float | None = None
    latency: Latency | None = None
    problem: str = ""
    failed: bool = False


@dataclass(frozen=True)
class TimeRequest:
    """A plan to time: its file, the portable graph it is for, its bundle's path, and its name there."""

    file: Path
    graph: bytes
    bundle: Path
    name: str


def try_engines(bundle: Bundle, progress: Callable[[str], None], limits: Limits) -> Iterator[Trial]:
    """Try every engine with a bundle; a failure is a line of the result.

    Args:
        bundle: The bundle.
        progress: Told what is done next.
        limits: Of each process that compiles a graph.
    """
    for name in (engine for engine in candidates("auto") if engine in _PROCESSOR):
        progress(f"{name} …")
        yield from _on_processor(bundle, name)
    for library in LIBRARIES.values():
        try:
            library.require()
        except MissingDependencyError as error:
            yield Trial(library.target, MODEL, "-", "-", problem=str(error))
            continue
        for lowering in _lowerings(bundle, library):
            for precision in _precisions(bundle):
                yield from _built(bundle, library, lowering, precision, progress, limits)


def _lowerings(bundle: Bundle, library: Library) -> tuple[str, ...]:
    return ("plugin", "portable") if library.plugins and "plugin" in bundle.manifest.graphs else ("portable",)


def _precisions(bundle: Bundle) -> tuple[str, ...]:
    own = bundle.manifest.precision
    return (own,) if own == "fp16" else (own, "fp16")


def _on_processor(bundle: Bundle, name: str) -> Iterator[Trial]:
    precision = bundle.manifest.precision
    for graph, content in _graphs(bundle).items():
        head = (name, graph, "portable", precision)
        try:
            with open_engine(at_its_longest(bundle, graph, content), name) as engine:
                difference = verify_engine(engine, bundle) if graph == MODEL else None
                latency = _timed(engine, bundle, graph)
        except EdgeSerError as error:
            yield Trial(*head, problem=one_line(str(error)), failed=True)
            continue
        yield Trial(*head, size_mb=len(content) / 1e6, difference=difference, latency=latency)


def _built(
    bundle: Bundle,
    library: Library,
    lowering: str,
    precision: str,
    progress: Callable[[str], None],
    limits: Limits,
) -> Iterator[Trial]:
    """Build for this device into a folder that goes again, and time what was built."""
    with tempfile.TemporaryDirectory(prefix="edgeser-selftest-") as folder:
        options = BuildOptions(
            target=library.target, precision=precision, lowering=lowering, out=Path(folder), limits=limits
        )
        try:
            report = build(bundle, options, lambda line: progress(f"{library.target}: {line}"))
        except EdgeSerError as error:
            yield Trial(library.target, MODEL, lowering, precision, problem=one_line(str(error)), failed=True)
            return
        for graph in report.graphs:
            yield _trial(bundle, library, lowering, precision, graph)


def _trial(bundle: Bundle, library: Library, lowering: str, precision: str, built: GraphReport) -> Trial:
    head = (library.target, built.name, lowering, precision, built.seconds)
    if built.plan is None:
        return Trial(*head, problem="; ".join(attempt.reason for attempt in built.attempts), failed=True)
    size_mb, difference = built.plan.engine_bytes / 1e6, built.plan.difference
    if built.file is None or difference is None:  # not whole, or nothing here runs it
        problem = built.unchecked or "another graph of the bundle did not build"
        return Trial(*head, size_mb, problem=problem)
    request = TimeRequest(built.file, _graphs(bundle)[built.name], bundle.path.absolute(), built.name)
    try:
        latency = run_apart(time_plan, request, _TIMING)
    except EdgeSerError as error:
        return Trial(*head, size_mb, difference, problem=one_line(str(error)), failed=True)
    return Trial(*head, size_mb, difference, latency)


def time_plan(request: TimeRequest) -> Latency:
    """Time a plan for one utterance."""
    from edgeser.runtime.engines import TensorRtEngine, TensorRtRtxEngine

    plan, content = read_plan(request.file)
    kind = {engine.library: engine for engine in (TensorRtEngine, TensorRtRtxEngine)}[plan.library]
    with kind.of_plan(plan, content, request.graph) as engine:
        return _timed(engine, Bundle.open(request.bundle), request.name)


def _timed(engine: Engine, bundle: Bundle, graph: str) -> Latency:
    """Time a real utterance through the model; ones through an encoder, whose sizes are fixed."""
    if graph == MODEL:
        feeds = {name: value[:1] for name, value in GoldenVectors.from_bundle(bundle).inputs.items()}
    else:
        feeds = {
            spec.name: np.ones([1 if size is None else size for size in spec.shape], spec.dtype)
            for spec in engine.inputs
        }
    return side_by_side({"engine": lambda: engine.run(feeds)}, _CALLS)["engine"]


def _graphs(bundle: Bundle) -> dict[str, bytes]:
    encoders = {name: bundle.read(path) for name, path in bundle.graphs().items() if name != MODEL}
    return {MODEL: bundle.graph(), **encoders}
