"""The TensorRT engine: what it says where something is missing, its work on an emulated GPU, and on a real one."""

from __future__ import annotations

import hashlib
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from edgeser.runtime.bundle import Bundle
from edgeser.runtime.doctor import examine
from edgeser.runtime.engines import OnnxRuntimeEngine, TensorRtEngine, TensorRtRtxEngine, candidates, cuda, open_engine
from edgeser.runtime.errors import BundleError, EngineError, InputError, MissingDependencyError
from edgeser.runtime.golden import verify_engine
from edgeser.runtime.plans import Plan, plan_path, write_plan
from edgeser.runtime.recognizer import Runtime, default_bundle

MAX_BATCH = 3


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(default_bundle())


@pytest.fixture(scope="module")
def graph(bundle: Bundle) -> bytes:
    return bundle.graph()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """pycuda and TensorRT for an emulated GPU; nothing is left on it in the end."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    module = importlib.import_module("emulated_gpu")
    machine = module.Machine()
    package = ModuleType("pycuda")
    package.driver = module.pycuda_driver(machine)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
    monkeypatch.setitem(sys.modules, "tensorrt", module.tensorrt(machine, MAX_BATCH))
    yield machine
    assert (machine.memory, machine.pinned, machine.contexts, machine.retained) == ({}, 0, [], 0)


def kept(graph: bytes, library: str = "tensorrt", content: bytes | None = None, **changes: str) -> Plan:
    """Keep a plan for a graph; to the emulated GPU the graph itself is one."""
    with OnnxRuntimeEngine(graph) as model:
        fields = {
            "graph_sha256": hashlib.sha256(graph).hexdigest(),
            "library": library,
            "library_version": "10.3.0",
            "gpu": "Emulated",
            "capability": "8.7",
            "precision": "int8",
            "lowering": "portable",
        }
        plan = Plan(**{**fields, **changes}, inputs=model.inputs, outputs=model.outputs, max_batch=MAX_BATCH)  # type: ignore[arg-type]
    return write_plan(plan_path(graph, library), plan, graph if content is None else content)


def test_golden_vectors_in_parts_of_the_largest_batch(emulated: ModuleType, bundle: Bundle, graph: bytes) -> None:
    kept(graph)
    with open_engine(graph, "tensorrt") as engine, OnnxRuntimeEngine(graph) as reference:
        assert engine.inputs == reference.inputs
        assert verify_engine(engine, bundle) < 1e-6
        rng = np.random.default_rng(0)
        for batch in (1, 2, 3, 4, 7):
            feeds = {
                spec.name: rng.standard_normal((batch, *spec.shape[1:])).astype(np.float32)  # type: ignore[arg-type]
                if spec.dtype == "float32"
                else rng.integers(0, 20, batch).astype(np.int32)
                for spec in engine.inputs
            }
            answers, expected = engine.run(feeds), reference.run(feeds)
            for name, value in expected.items():
                np.testing.assert_allclose(answers[name], value, atol=1e-5)


def test_threads_take_turns_and_answers_are_their_own(emulated: ModuleType, graph: bytes) -> None:
    kept(graph)
    with open_engine(graph, "tensorrt") as engine, OnnxRuntimeEngine(graph) as reference:
        rng = np.random.default_rng(1)
        cases = []
        for _ in range(6):
            feeds = {
                spec.name: rng.standard_normal((1, *spec.shape[1:])).astype(np.float32)  # type: ignore[arg-type]
                if spec.dtype == "float32"
                else np.array([10], np.int32)
                for spec in engine.inputs
            }
            cases.append((feeds, reference.run(feeds)["logits"]))
        answers: dict[int, np.ndarray] = {}  # type: ignore[type-arg]
        threads = [
            threading.Thread(target=lambda i=i: answers.__setitem__(i, engine.run(cases[i][0])["logits"]))
            for i in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, (_, logits) in enumerate(cases):
            np.testing.assert_allclose(answers[i], logits, atol=1e-5)


def test_a_host_applications_context_is_left_as_it_was(emulated: ModuleType, graph: bytes) -> None:
    kept(graph)
    emulated.contexts.append("the application's")
    with open_engine(graph, "tensorrt") as engine:
        assert emulated.contexts == ["the application's"]
        with pytest.raises(InputError):
            engine.run({})
    assert emulated.contexts == ["the application's"]
    emulated.contexts.clear()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"library_version": "10.9.0"}, "tensorrt 10.9.0, this is 10.3.0"),
        ({"gpu": "Orin"}, "was built on Orin, this is Emulated"),
        ({"gpu": "", "capability": "8.6,8.9"}, "capability 8.6,8.9, this GPU has 8.7"),
    ],
)
def test_foreign_plans_are_refused(emulated: ModuleType, graph: bytes, changes: dict[str, str], message: str) -> None:
    kept(graph, **changes)
    with pytest.raises(EngineError, match=message) as caught:
        open_engine(graph, "tensorrt")
    assert "run `edgeser build` again" in str(caught.value)


def test_a_plan_that_tensorrt_refuses(emulated: ModuleType, graph: bytes) -> None:
    kept(graph, content=b"no plan")
    with pytest.raises(EngineError, match="refuses the plan: magic tag does not match"):
        open_engine(graph, "tensorrt")


def test_auto_takes_plans_that_are_proved(
    emulated: ModuleType, bundle: Bundle, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeser.runtime.engines.gpu_present", lambda: True)
    assert candidates("auto")[0] == "tensorrt"

    def keep(graph: bytes) -> OnnxRuntimeEngine:
        kept(graph)
        return OnnxRuntimeEngine(graph)

    keep(bundle.graph()).close()
    for name in bundle.manifest.inputs:
        bundle.frontend(name, keep).close()
    with Runtime.load(asr="none") as runtime, Runtime.load(asr="none", engine="onnxruntime") as reference:
        assert runtime.engine.name == "tensorrt"
        result, expected = runtime.recognize(str(clip)), reference.recognize(str(clip))
    assert result.engine == "tensorrt"
    assert dict(result.probabilities) == pytest.approx(dict(expected.probabilities), abs=1e-4)


def test_auto_says_once_why_it_takes_another(
    emulated: ModuleType, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgeser.runtime.engines.gpu_present", lambda: True)
    monkeypatch.setattr("edgeser.runtime.engines._PREFERRED", ("tensorrt",))
    kept(bundle.graph())  # and no plans for the encoders
    with Runtime.load(asr="none") as runtime:
        assert runtime.engine.name == "onnxruntime"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("tensorrt is not used, onnxruntime is: ")
    assert line.endswith("no such plan: run `edgeser build` first")


def test_doctor_says_why_there_is_no_engine_and_does_not_fail(
    emulated: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeser.runtime.engines.gpu_present", lambda: True)
    monkeypatch.setattr("edgeser.runtime.engines._PREFERRED", ("tensorrt",))
    checks = {check.name: check for check in examine()}
    found = checks["engine tensorrt"]
    assert found.good is None
    assert found.detail.endswith("no such plan: run `edgeser build` first")
    assert "`auto` chooses it" in checks["engine onnxruntime"].detail


def test_auto_refuses_a_plan_that_computes_something_else(
    emulated: ModuleType, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgeser.runtime.engines.gpu_present", lambda: True)
    monkeypatch.setattr("edgeser.runtime.engines._PREFERRED", ("tensorrt",))
    wrong = onnx.load_model_from_string(bundle.graph())
    last = next(node for node in wrong.graph.node if "logits" in node.output)
    last.output[0] = "right"
    wrong.graph.node.append(onnx.helper.make_node("Neg", ["right"], ["logits"]))
    kept(bundle.graph(), content=wrong.SerializeToString())
    for name in bundle.manifest.inputs:
        bundle.frontend(name, lambda graph: kept(graph) and OnnxRuntimeEngine(graph)).close()
    with Runtime.load(asr="none") as runtime:
        assert runtime.engine.name == "onnxruntime"
    assert "tensorrt is not used, onnxruntime is: " in caplog.text


def test_without_a_gpu_it_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_NODES", ("no-such-device",))
    assert not {"tensorrt", "tensorrt-rtx"} & set(candidates("auto"))


def test_a_missing_library_or_plan_is_one_line(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match=r"edgeser\[jetson\]"):
        TensorRtEngine(graph)
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BundleError, match="run `edgeser build` first"):
        TensorRtRtxEngine(graph)


def test_without_pycuda_it_says_so(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    kept(graph, "tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingDependencyError, match="pycuda"):
        open_engine(graph, "tensorrt-rtx")
