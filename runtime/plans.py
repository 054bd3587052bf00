"""Plans: what TensorRT made of a graph on a device, kept in the user's cache until something it was made for changes.

A plan file is a stored zip of `plan.json`, sealed, and `engine.plan`, TensorRT's own bytes. There is one for each graph
and library, so that replacing it is one rename. `edgeser build` writes them; nothing ever puts them into a bundle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeser.runtime.caches import cache_folder
from edgeser.runtime.engines.base import TensorSpec
from edgeser.runtime.errors import BundleError
from edgeser.runtime.files import check_folder, replacing, writing
from edgeser.runtime.manifest import PRECISIONS, sealed_json
from edgeser.runtime.stored_zip import open_zip, read_entry, write_zip

SUFFIX = ".plan"
LIBRARIES = ("tensorrt", "tensorrt_rtx")
LOWERINGS = ("portable", "plugin")
_SCHEMA = 1
_DESCRIPTION = "plan.json"
_ENGINE = "engine.plan"


@dataclass(frozen=True)
class Plan:
    """What a plan is, and what it was made for.

    Attributes:
        graph_sha256: Of the portable graph's bytes, as the Runtime hands them to an engine; also where the plan was
            made from the plugin lowering.
        library: `tensorrt` or `tensorrt_rtx`.
        library_version: Its version: no other reads the plan.
        gpu: Name of the GPU that it was made on and for; empty where it fits others too.
        capability: Compute capabilities that it was made for, for example `8.7` or `8.6,8.9`; empty where it fits every
            one that the library does.
        precision: `fp32`, `fp16` or `int8`; of an INT8 bundle, `fp16` is INT8 with FP16 instead of FP32 between.
        lowering: The graph it was made from, `portable` or `plugin`.
        inputs: What it takes.
        outputs: What it gives.
        max_batch: Largest batch.
        difference: From the bundle's golden vectors: the largest |logit difference|, or for an encoder the
            root-mean-square difference of its rows in standard deviations; `None` where it could not be run.
        plugins: Whether the Python plugins of `edgeser.export_tools.plugins` must be registered to read it.
        edgeser_version: What built it.
        platform: Driver and JetPack, for people.
        engine_sha256: Of TensorRT's bytes; `write_plan` fills it in.
        engine_bytes: Their number; likewise.
    """

    graph_sha256: str
    library: str
    library_version: str
    gpu: str
    capability: str
    precision: str
    lowering: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int
    difference: float | None = None
    plugins: bool = False
    edgeser_version: str = ""
    platform: str = ""
    engine_sha256: str = ""
    engine_bytes: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("library", LIBRARIES), ("precision", PRECISIONS), ("lowering", LOWERINGS)):
            value = getattr(self, name)
            if value not in choices:
                raise BundleError(f"plan: got {name} {value!r}, expected one of {', '.join(choices)}")

    def unusable(self, library_version: str, gpu: str, capability: str, graph: bytes) -> str:
        """Return why this plan does not serve here, with what to do; empty where it does.

        Args:
            library_version: Of the library that is to read it.
            gpu: Name of the GPU that is to run it.
            capability: Its compute capability, for example `8.7`.
            graph: The portable graph that is to be run.
        """
        why = ""
        if self.graph_sha256 != hashlib.sha256(graph).hexdigest():
            why = "was built from another graph"
        elif self.library_version != library_version:
            why = f"was built by {self.library} {self.library_version}, this is {library_version}"
        elif self.gpu and self.gpu != gpu:
            why = f"was built on {self.gpu}, this is {gpu}"
        elif self.capability and capability not in self.capability.split(","):
            why = f"was built for compute capability {self.capability}, this GPU has {capability}"
        return f"{self.library}: the plan {why}: run `edgeser build` again" if why else ""


def plan_folder() -> Path:
    """Return where plans are kept: `$XDG_CACHE_HOME/edgeser/plans`, by default under `~/.cache`; see `cache_folder`."""
    return cache_folder("plans")


def plan_name(graph: bytes, library: str) -> str:
    """Return the file name of the plan for a portable graph and a library."""
    return f"{hashlib.sha256(graph).hexdigest()}.{library}{SUFFIX}"


def plan_path(graph: bytes, library: str) -> Path:
    """Return where the plan for a portable graph and a library is kept, whether there is one or not."""
    return plan_folder() / plan_name(graph, library)


def write_plan(path: Path, plan: Plan, engine: bytes) -> Plan:
    """Write a plan, whole or not at all, and its folder where there is none.

    Args:
        path: Where to; a plan that is there is replaced.
        plan: What it is; the engine's size and hash are filled in here.
        engine: TensorRT's bytes.

    Returns:
        The plan as it was written.

    Raises:
        InputError: The place cannot be written to.
        EdgeSerError: There is no room.
    """
    whole = dataclasses.replace(plan, engine_sha256=hashlib.sha256(engine).hexdigest(), engine_bytes=len(engine))
    check_folder(path.parent)
    with writing(path):
        # TensorRT trusts its plans: nobody else is to put one there.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as part:
        write_zip(part, [(_DESCRIPTION, _to_json(whole)), (_ENGINE, engine)])
    return whole


def read_plan(path: Path) -> tuple[Plan, bytes]:
    """Read and verify a plan.

    Returns:
        What it is, and TensorRT's bytes.

    Raises:
        BundleError: There is none, or it is damaged.
    """
    if not path.is_file():
        raise BundleError(f"{path}: no such plan: run `edgeser build` first")
    try:
        entries = open_zip(path)
        if set(entries) != {_DESCRIPTION, _ENGINE}:
            raise BundleError(f"it holds {', '.join(entries) or 'nothing'}")
        with path.open("rb") as file:
            plan = _from_json(read_entry(file, entries[_DESCRIPTION]))
            engine = read_entry(file, entries[_ENGINE])
        if len(engine) != plan.engine_bytes or hashlib.sha256(engine).hexdigest() != plan.engine_sha256:
            raise BundleError("its engine is not what its description says")
    except (BundleError, OSError) as error:
        raise BundleError(f"{path}: the plan is damaged, or of another EdgeSER: run `edgeser build` again") from error
    return plan, engine


def _to_json(plan: Plan) -> bytes:
    return sealed_json({"schema": _SCHEMA, **dataclasses.asdict(plan)})


def _from_json(raw: bytes) -> Plan:
    """Read what `_to_json` wrote; any other spelling is damage."""
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError):
        content = json.loads(raw)
        if content.pop("schema") == _SCHEMA and content.pop("seal"):
            for name in ("inputs", "outputs"):
                content[name] = tuple(_spec(entry) for entry in content[name])
            plan = Plan(**content)
            if _to_json(plan) == raw:
                return plan
    raise BundleError("its description is not readable")


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(entry["name"], entry["dtype"], tuple(entry["shape"]))
