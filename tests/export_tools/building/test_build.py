"""From a bundle to plans: what is tried in which order, what is kept, and what is told."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edgeser.export_tools.building import build as building
from edgeser.export_tools.building.build import BuildOptions, build, chosen_precision
from edgeser.export_tools.building.checking import Checked, CheckRequest
from edgeser.export_tools.building.compiling import Compiled, CompileRequest
from edgeser.export_tools.building.library import Library
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import TensorSpec
from edgeser.runtime.errors import BundleError, EdgeSerError, EngineError, InputError, ParityError
from edgeser.runtime.plans import Plan, plan_folder, plan_path, read_plan, write_plan
from edgeser.runtime.recognizer import default_bundle

TENSORRT = BuildOptions("tensorrt")
RECOGNISER = ("recogniser/cross", "recogniser/encoder", "recogniser/step")
SPECS = (TensorSpec("x", "float32", (None, 4)),)


class Machine:
    """Stands for the other processes: compiles what it is told to, and runs what it compiled.

    Attributes:
        refused: Why a lowering of a graph does not compile, by graph bytes.
        wrong: Why its plan is not right, by lowering.
        requests: What it was asked to compile.
    """

    def __init__(self) -> None:
        self.refused: dict[bytes, EdgeSerError] = {}
        self.wrong: dict[str, EdgeSerError] = {}
        self.difference: float | None = 0.0125
        self.requests: list[CompileRequest] = []

    def run_apart(self, function: Any, request: CompileRequest | CheckRequest, limits: object) -> Compiled | Checked:
        return self.compile(request) if isinstance(request, CompileRequest) else self.check(request)

    def compile(self, request: CompileRequest) -> Compiled:
        self.requests.append(request)
        if request.graph in self.refused:
            raise self.refused[request.graph]
        return Compiled(b"engine", "10.3.0", "Orin", "8.7", "CUDA 12.6", SPECS, SPECS, ("it is slow",))

    def check(self, request: CheckRequest) -> Checked:
        plan, engine = read_plan(request.file)
        assert engine == b"engine"
        assert plan.graph_sha256 == hashlib.sha256(request.graph).hexdigest()
        if plan.lowering in self.wrong:
            raise self.wrong[plan.lowering]
        return Checked(self.difference, "" if self.difference is not None else "no GPU here")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine()
    monkeypatch.setattr(building, "run_apart", made.run_apart)
    monkeypatch.setattr(Library, "require", lambda self: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return made


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The default bundle: a model in two lowerings, and two encoders."""
    return Bundle.open(default_bundle())


def kept() -> set[str]:
    return {file.name for file in plan_folder().iterdir()}


def test_plugins_come_first(machine: Machine, bundle: Bundle) -> None:
    said: list[str] = []
    report = build(bundle, TENSORRT, said.append)
    assert report.failure == ""
    assert [graph.name for graph in report.graphs] == ["model", "audio", "text", *RECOGNISER]
    plan, _ = read_plan(plan_path(bundle.graph(), "tensorrt"))
    assert plan == report.graphs[0].plan
    assert (plan.lowering, plan.plugins, plan.precision, plan.max_batch) == ("plugin", True, "int8", 8)
    assert (plan.gpu, plan.capability, plan.difference) == ("Orin", "8.7", 0.0125)
    assert plan.unusable("10.3.0", "Orin", "8.7", bundle.graph()) == ""
    encoder, _ = read_plan(plan_path(bundle.read("frontends/audio/encoder.onnx"), "tensorrt"))
    assert (encoder.lowering, encoder.plugins, encoder.max_batch) == ("portable", False, 1)
    assert kept() == {graph.file.name for graph in report.graphs if graph.file is not None}
    assert said[:2] == [
        "model: building the plugin graph in int8 …",
        "model: checking it against the golden vectors …",
    ]


def test_what_is_asked_of_the_compiler(machine: Machine, bundle: Bundle) -> None:
    build(bundle, BuildOptions("tensorrt-rtx", best_batch=4, workspace_mb=64, capabilities=("8.6",)))
    model, audio, *_ = machine.requests
    assert (model.graph, model.lowering, model.precision) == (bundle.graph(), "portable", "int8")
    assert (model.max_batch, model.best_batch, model.workspace_mb, model.capabilities) == (8, 4, 64, ("8.6",))
    assert model.timing_cache == plan_folder() / "tensorrt_rtx.timing"
    assert (audio.max_batch, audio.best_batch) == (1, 1)


@pytest.mark.parametrize(
    "error", [EngineError("its process ended by SIGSEGV"), InputError("no plugin"), EngineError("two\nlines")]
)
def test_a_plugin_graph_that_does_not_build_falls_back(machine: Machine, bundle: Bundle, error: EdgeSerError) -> None:
    machine.refused[bundle.graph("plugin")] = error
    model = build(bundle, TENSORRT).graphs[0]
    assert model.plan is not None
    assert (model.plan.lowering, model.plan.plugins) == ("portable", False)
    assert [(a.lowering, a.reason) for a in model.attempts] == [
        ("plugin", " ".join(str(error).split())),
        ("portable", ""),
    ]
    assert read_plan(plan_path(bundle.graph(), "tensorrt"))[0].lowering == "portable"


def test_a_plugin_plan_that_disagrees_falls_back(machine: Machine, bundle: Bundle) -> None:
    machine.wrong["plugin"] = ParityError("golden vectors differ by 3.00e+00")
    report = build(bundle, TENSORRT)
    model = report.graphs[0]
    assert model.plan is not None
    assert model.plan.lowering == "portable"
    assert model.failures == ["model: the plugin graph: golden vectors differ by 3.00e+00"]
    assert report.failure == ""
    assert "model: the plugin graph: golden vectors differ by 3.00e+00" in report.text()
    assert "model: the portable graph: 1 warnings, see --json" in report.text()


def test_nothing_is_written_where_a_graph_fails(machine: Machine, bundle: Bundle) -> None:
    encoder = bundle.read("frontends/text/encoder.onnx")
    machine.refused[encoder] = EngineError("node n (Gather): unsupported node")
    older = plan_path(bundle.graph(), "tensorrt")
    plan = Plan("0" * 64, "tensorrt", "10.0", "", "", "int8", "portable", SPECS, SPECS, 1)
    write_plan(older, plan, b"older")
    report = build(bundle, TENSORRT)
    assert report.failure == "text: the portable graph: node n (Gather): unsupported node"
    assert [graph.name for graph in report.graphs if graph.plan is None] == ["text"]
    assert {graph.file for graph in report.graphs} == {None}
    assert kept() == {older.name}
    assert read_plan(older)[1] == b"older"
    assert "failed" in report.text()


def test_every_reason_is_told_where_no_lowering_serves(machine: Machine, bundle: Bundle) -> None:
    machine.refused[bundle.graph("plugin")] = EngineError("its process took more than 9 s and was ended")
    machine.wrong["portable"] = ParityError("golden vectors differ by nan")
    failure = build(bundle, TENSORRT).failure
    assert failure.startswith(
        "model: the plugin graph: its process took more than 9 s and was ended; "
        "model: the portable graph: golden vectors differ by nan"
    )


@pytest.mark.parametrize("lowering", ["plugin", "portable"])
def test_a_lowering_that_was_asked_for_is_the_only_one(machine: Machine, bundle: Bundle, lowering: str) -> None:
    machine.refused[bundle.graph(lowering)] = EngineError("no")
    report = build(bundle, dataclasses.replace(TENSORRT, lowering=lowering))
    assert report.failure == f"model: the {lowering} graph: no"
    assert [request.lowering for request in machine.requests] == [lowering, *["portable"] * 5]


def test_what_the_user_can_change_is_raised(machine: Machine, bundle: Bundle) -> None:
    machine.refused[bundle.graph()] = InputError("capability: got '9.9'")
    with pytest.raises(InputError, match=r"^capability: got '9\.9'$"):
        build(bundle, BuildOptions("tensorrt-rtx", capabilities=("9.9",)))
    assert kept() == set()


def test_plans_that_could_not_be_run_say_so(machine: Machine, bundle: Bundle) -> None:
    machine.difference = None
    report = build(bundle, TENSORRT)
    assert read_plan(plan_path(bundle.graph(), "tensorrt"))[0].difference is None
    assert report.text().count("not checked: no GPU here") == 6


def test_the_report_as_json(machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
    report = build(bundle, dataclasses.replace(TENSORRT, out=tmp_path / "plans"))
    content = json.loads(json.dumps(report.as_dict()))
    assert (content["target"], content["precision"], content["failure"]) == ("tensorrt", "int8", "")
    model = content["graphs"][0]
    assert Path(model["file"]).parent == tmp_path / "plans"
    assert read_plan(Path(model["file"]))[0].engine_bytes == model["plan"]["engine_bytes"] == len(b"engine")
    assert model["attempts"][0]["warnings"] == ["it is slow"]


def test_what_a_killed_build_left_is_removed(machine: Machine, bundle: Bundle) -> None:
    for process in (1, 4_194_305):  # one that runs always, and one above the largest number there is
        (plan_folder() / f".building-{process}-x").mkdir(parents=True)
    build(bundle, TENSORRT)
    assert {name for name in kept() if name.startswith(".")} == {".building-1-x"}


def test_a_folder_that_cannot_be_written_to(machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/plans: cannot be written to: Not a directory"):
        build(bundle, dataclasses.replace(TENSORRT, out=tmp_path / "file" / "plans"))


def test_a_bundle_without_the_lowering(machine: Machine, bundle: Bundle) -> None:
    alone = dataclasses.replace(bundle.manifest, graphs={"portable": bundle.manifest.graphs["portable"]})
    plain = copy.copy(bundle)
    plain.manifest = alone
    with pytest.raises(BundleError, match="has no plugin graph, only portable"):
        build(plain, dataclasses.replace(TENSORRT, lowering="plugin"))
    assert [a.lowering for a in build(plain, TENSORRT).graphs[0].attempts] == ["portable"]


@pytest.mark.parametrize(
    ("has", "wanted", "expected"),
    [
        ("fp32", None, "fp32"),
        ("int8", None, "int8"),
        ("fp32", "fp16", "fp16"),
        ("int8", "int8", "int8"),
        ("int8", "fp16", "fp16"),
    ],
)
def test_precisions(has: str, wanted: str | None, expected: str) -> None:
    assert chosen_precision(has, wanted) == expected


@pytest.mark.parametrize(
    ("has", "wanted", "message"),
    [
        ("fp32", "int8", "got int8 for a bundle in fp32: build what `edgeser calibrate` makes of it"),
        ("int8", "fp32", "got fp32 for a bundle in int8: build the bundle that it was made from"),
        ("fp16", "fp32", "got fp32 for a bundle in fp16: build the bundle that it was made from"),
        ("fp32", "fp8", "got 'fp8', expected one of fp32, fp16, int8"),
    ],
)
def test_precisions_that_no_way_leads_to(has: str, wanted: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^precision: {message}$"):
        chosen_precision(has, wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "tvm"}, "target: got 'tvm', expected one of tensorrt, tensorrt-rtx"),
        ({"lowering": "x"}, "lowering: got 'x', expected auto, portable, plugin"),
        ({"max_batch": 2, "best_batch": 4}, "batch: got 4 of 2, expected 1 up to the largest"),
        ({"max_batch": 0}, "batch: got 1 of 0"),
        ({"target": "tensorrt-rtx", "lowering": "plugin"}, "tensorrt-rtx has no plugin layers"),
        ({"capabilities": ("8.7",)}, "capability: tensorrt builds for the GPU that it runs on"),
    ],
)
def test_options_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TENSORRT, **changes)
