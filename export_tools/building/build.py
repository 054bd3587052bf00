"""From a bundle to plans: compile every graph, prove it, fall back where that fails, and keep all of them or none."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeser import __version__
from edgeser.export_tools.building.checking import Checked, CheckRequest, check_plan
from edgeser.export_tools.building.compiling import Compiled, CompileRequest, compile_graph
from edgeser.export_tools.building.isolated import Limits, run_apart
from edgeser.export_tools.building.library import LIBRARIES, Library
from edgeser.export_tools.building.messages import one_line
from edgeser.export_tools.building.report import Attempt, BuildReport, GraphReport
from edgeser.export_tools.building.rows import at_its_longest
from edgeser.runtime.bundle import MODEL, Bundle
from edgeser.runtime.errors import EdgeSerError, InputError, MissingDependencyError
from edgeser.runtime.manifest import PRECISIONS
from edgeser.runtime.plans import LOWERINGS, Plan, plan_folder, plan_name, write_plan

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

_STAGING = ".building-"
_PATIENT = Limits(timeout_s=3600.0)  # a large encoder on the smallest Jetson


@dataclass(frozen=True)
class BuildOptions:
    """What to build.

    Attributes:
        target: `tensorrt` or `tensorrt-rtx`.
        precision: `fp32`, `fp16` or `int8`; `None` for the bundle's own. What is INT8 in a bundle stays so in `fp16`.
        lowering: `portable`, `plugin`, or `auto`: with plugins where there are any and they prove right.
        max_batch: Largest batch of the model. Encoders take one utterance at a time.
        best_batch: The batch to be quickest at.
        workspace_mb: Memory that a layer may use while it runs; `None` for all of the GPU's.
        capabilities: Compute capabilities to build for ahead of time, for example `8.6`; none for all.
        out: Folder for the plans, to be brought to a device; `None` for this device's own cache.
        limits: Of the process that compiles a graph.
    """

    target: str
    precision: str | None = None
    lowering: str = "auto"
    max_batch: int = 8
    best_batch: int = 1
    workspace_mb: int | None = None
    capabilities: tuple[str, ...] = ()
    out: Path | None = None
    limits: Limits = _PATIENT

    def __post_init__(self) -> None:
        if self.target not in LIBRARIES:
            raise InputError(f"target: got {self.target!r}, expected one of {', '.join(LIBRARIES)}")
        if self.lowering not in ("auto", *LOWERINGS):
            raise InputError(f"lowering: got {self.lowering!r}, expected auto, {', '.join(LOWERINGS)}")
        if not 1 <= self.best_batch <= self.max_batch:
            raise InputError(f"batch: got {self.best_batch} of {self.max_batch}, expected 1 up to the largest")
        if self.lowering == "plugin" and not self.library.plugins:
            raise InputError(f"lowering: got plugin, but {self.target} has no plugin layers: use auto or portable")
        if self.capabilities and not self.library.ahead_of_time:
            raise InputError(f"capability: {self.target} builds for the GPU that it runs on: leave it out")

    @property
    def library(self) -> Library:
        """What compiles."""
        return LIBRARIES[self.target]


@dataclass(frozen=True)
class _Graph:
    """One graph of a bundle.

    Attributes:
        name: Of the part, see `Bundle.graphs`.
        portable: What the Runtime hands to an engine.
        lowerings: What to build from, best first.
        max_batch: Largest batch.
    """

    name: str
    portable: bytes
    lowerings: Mapping[str, bytes]
    max_batch: int


def build(bundle: Bundle, options: BuildOptions, progress: Progress = log.info) -> BuildReport:
    """Build the engines of a bundle's model and encoders. Plans are kept when every graph has one, and none otherwise.

    Args:
        bundle: The bundle.
        options: For what.
        progress: Told in a line what is done next.

    Returns:
        What was tried and what became of it; its `failure` is empty where all went well.

    Raises:
        InputError: The bundle has no such precision, or the folder of the plans cannot be written to.
        BundleError: It has no such lowering.
        MissingDependencyError: The library is not installed.
    """
    options.library.require()
    precision = chosen_precision(bundle.manifest.precision, options.precision)
    graphs = _graphs(bundle, options)
    folder = options.out or plan_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(folder)
        with tempfile.TemporaryDirectory(prefix=f"{_STAGING}{os.getpid()}-", dir=folder) as staging:
            builder = _Builder(bundle, options, precision, Path(staging), progress)
            reports = [builder.build(graph) for graph in graphs]
            if all(report.plan is not None for report in reports):
                kept = [builder.staged(graph) for graph in graphs]
                files = [file.replace(folder / file.name) for file in kept]
                reports = [dataclasses.replace(r, file=file) for r, file in zip(reports, files, strict=True)]
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to: {error.strerror or error}") from error
    name = f"{bundle.manifest.name} {bundle.manifest.version}"
    return BuildReport(name, options.target, precision, tuple(reports))


def _clear(folder: Path) -> None:
    """Remove what builds that were killed have left."""
    for left in folder.glob(f"{_STAGING}*"):
        process = left.name.removeprefix(_STAGING).partition("-")[0]
        if not (Path("/proc") / process).exists():
            shutil.rmtree(left, ignore_errors=True)


def chosen_precision(has: str, wanted: str | None) -> str:
    """Return the precision to build in.

    Args:
        has: The bundle's.
        wanted: The user's; `None` for the bundle's.

    Raises:
        InputError: There is no way from the one to the other.
    """
    if wanted is not None and wanted not in PRECISIONS:
        raise InputError(f"precision: got {wanted!r}, expected one of {', '.join(PRECISIONS)}")
    if wanted in (None, has):
        return has
    if wanted == "fp16":  # of an INT8 bundle, what is not in INT8
        return "fp16"
    if wanted == "int8":
        raise InputError(f"precision: got int8 for a bundle in {has}: build what `edgeser calibrate` makes of it")
    raise InputError(f"precision: got {wanted} for a bundle in {has}: build the bundle that it was made from")


def _graphs(bundle: Bundle, options: BuildOptions) -> list[_Graph]:
    """Return the bundle's graphs, each with the lowerings to try, best first."""
    lowerings = {"portable": bundle.graph()}
    if options.lowering == "plugin":
        lowerings = {"plugin": bundle.graph("plugin")}
    elif options.lowering == "auto" and options.library.plugins and "plugin" in bundle.manifest.graphs:
        lowerings = {"plugin": bundle.graph("plugin"), **lowerings}
    graphs = [_Graph(MODEL, bundle.graph(), lowerings, options.max_batch)]
    for name, path in bundle.graphs().items():
        if name != MODEL:
            graph = bundle.read(path)
            graphs.append(_Graph(name, graph, {"portable": at_its_longest(bundle, name, graph)}, 1))
    return graphs


class _Builder:
    """Builds one graph after the other into a folder beside the plans."""

    def __init__(
        self, bundle: Bundle, options: BuildOptions, precision: str, staging: Path, progress: Progress
    ) -> None:
        self._bundle = bundle
        self._options = options
        self._precision = precision
        self._staging = staging
        self._progress = progress

    def build(self, graph: _Graph) -> GraphReport:
        """Try the lowerings of a graph until one gives an engine that proves right."""
        attempts: list[Attempt] = []
        for lowering in graph.lowerings:
            attempt, plan, unchecked = self._try(graph, lowering)
            attempts.append(attempt)
            if plan is not None:
                return GraphReport(graph.name, tuple(attempts), plan, unchecked=unchecked)
        return GraphReport(graph.name, tuple(attempts), None)

    def _try(self, graph: _Graph, lowering: str) -> tuple[Attempt, Plan | None, str]:
        """Return how it went, the plan if it did, and why that was not checked."""
        self._progress(f"{graph.name}: building the {lowering} graph in {self._precision} …")
        started = time.perf_counter()
        warnings: tuple[str, ...] = ()
        plan, unchecked, reason = None, "", ""
        try:
            compiled = self._compile(graph, lowering)
            warnings = compiled.warnings
            unproved = self._plan(graph, lowering, compiled)
            write_plan(self.staged(graph), unproved, compiled.engine)
            self._progress(f"{graph.name}: checking it against the golden vectors …")
            checked = self._check(graph)
            proved = dataclasses.replace(unproved, difference=checked.difference)
            plan, unchecked = write_plan(self.staged(graph), proved, compiled.engine), checked.why
        except EdgeSerError as error:
            # What no other lowering helps with is the user's to change.
            if lowering == "portable" and isinstance(error, (InputError, MissingDependencyError)):
                raise
            reason = one_line(str(error))
        return Attempt(lowering, time.perf_counter() - started, reason, warnings), plan, unchecked

    def staged(self, graph: _Graph) -> Path:
        """Return where a graph's plan waits for the others."""
        return self._staging / plan_name(graph.portable, self._options.library.name)

    def _compile(self, graph: _Graph, lowering: str) -> Compiled:
        options = self._options
        request = CompileRequest(
            target=options.target,
            graph=graph.lowerings[lowering],
            lowering=lowering,
            precision=self._precision,
            max_batch=graph.max_batch,
            best_batch=min(options.best_batch, graph.max_batch),
            workspace_mb=options.workspace_mb,
            capabilities=options.capabilities,
            timing_cache=self._staging.parent / f"{options.library.name}.timing",
        )
        return run_apart(compile_graph, request, options.limits)

    def _check(self, graph: _Graph) -> Checked:
        request = CheckRequest(
            file=self.staged(graph),
            graph=graph.portable,
            bundle=self._bundle.path.absolute(),
            name=graph.name,
        )
        # Running it needs CUDA, whose memory is not what the user limits.
        return run_apart(check_plan, request, Limits(self._options.limits.timeout_s))

    def _plan(self, graph: _Graph, lowering: str, compiled: Compiled) -> Plan:
        return Plan(
            graph_sha256=hashlib.sha256(graph.portable).hexdigest(),
            library=self._options.library.name,
            library_version=compiled.library_version,
            gpu=compiled.gpu,
            capability=compiled.capability,
            precision=self._precision,
            lowering=lowering,
            inputs=compiled.inputs,
            outputs=compiled.outputs,
            max_batch=graph.max_batch,
            plugins=lowering == "plugin",
            edgeser_version=__version__,
            platform=compiled.platform,
        )
