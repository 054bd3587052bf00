from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeser.runtime.engines import (
    Arrays,
    Engine,
    OnnxRuntimeEngine,
    OpenVinoEngine,
    TensorSpec,
    candidates,
    open_engine,
)
from edgeser.runtime.errors import EngineError, InputError, MissingDependencyError

WEIGHTS = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
NO_OPENVINO = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
KINDS: dict[str, type[Engine]] = {"onnxruntime": OnnxRuntimeEngine, "openvino": OpenVinoEngine}


@pytest.fixture(scope="module", params=["onnxruntime", pytest.param("openvino", marks=NO_OPENVINO)])
def name(request: pytest.FixtureRequest) -> str:
    """Each engine that is installed: all must keep the same contract."""
    return str(request.param)


def graph(*, kind: int = TensorProto.FLOAT, batch: str | int = "N", time: str | int = 4) -> bytes:
    """A model of our contract, small: `logits = flat(audio) @ WEIGHTS + audio_length`."""
    nodes = [
        helper.make_node("Reshape", ["audio", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["product"]),
        helper.make_node("Cast", ["audio_length"], ["length"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["length", "axis"], ["column"]),
        helper.make_node("Add", ["product", "column"], ["logits"]),
    ]
    if kind != TensorProto.FLOAT:
        nodes = [helper.make_node("Identity", ["audio"], ["logits"])]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [
                helper.make_tensor_value_info("audio", kind, [batch, time, 3]),
                helper.make_tensor_value_info("audio_length", TensorProto.INT32, [batch]),
            ],
            [helper.make_tensor_value_info("logits", kind, [batch, 2] if kind == TensorProto.FLOAT else [batch, 4, 3])],
            [
                numpy_helper.from_array(WEIGHTS, "weights"),
                numpy_helper.from_array(np.array([0, -1]), "shape"),
                numpy_helper.from_array(np.array([1]), "axis"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def largest() -> bytes:
    """A model that takes any number of rows: `logits = audio.max(axis=1)`."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("ReduceMax", ["audio", "axes"], ["logits"], keepdims=0)],
            "largest",
            [helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["N", "T", 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
            [numpy_helper.from_array(np.array([1]), "axes")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def feeds(batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(seed)
    return {
        "audio": generator.normal(size=(batch, 4, 3)).astype(np.float32),
        "audio_length": generator.integers(0, 5, batch).astype(np.int32),
    }


def expected(given: Arrays) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = given["audio"].reshape(-1, 12) @ WEIGHTS + given["audio_length"][:, None]
    return logits


def forms() -> bytes:
    """Relu, a split and copies: several names for one array, outputs in any order, an input that nothing uses."""
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Relu", ["x"], ["relu"]),
        helper.make_node("Identity", ["relu"], ["copy"]),
        helper.make_node("Split", ["x"], ["left", "right"], axis=1, num_outputs=2),
    ]
    widths = {"right": 2, "same": 4, "copy": 4, "relu": 4, "left": 2}
    unused = helper.make_tensor_value_info("x_length", TensorProto.INT32, ["N"])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", width]) for n, width in widths.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    return _model([unused, x], nodes, outputs)


def touchy() -> bytes:
    """Cut rows to `audio_length` and add four: it fails where the length is 2 or 3."""
    nodes = [
        helper.make_node("Slice", ["audio_length", "zero", "one"], ["first"]),
        helper.make_node("Cast", ["first"], ["end"], to=TensorProto.INT64),
        helper.make_node("Slice", ["audio", "zero", "end", "one"], ["cut"]),
        helper.make_node("Add", ["cut", "nothing"], ["logits"]),
    ]
    inputs = [
        helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["N", 4, 3]),
        helper.make_tensor_value_info("audio_length", TensorProto.INT32, ["N"]),
    ]
    weights = {"zero": np.array([0]), "one": np.array([1]), "nothing": np.zeros((4, 3), np.float32)}
    return _model(inputs, nodes, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4, 3])], weights)


def _model(inputs: list[Any], nodes: list[Any], outputs: list[Any], weights: Arrays | None = None) -> bytes:
    tensors = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    content: bytes = helper.make_model(
        helper.make_graph(nodes, "made", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    ).SerializeToString()
    return content


@pytest.fixture(scope="module")
def tiny(name: str) -> Engine:
    return open_engine(graph(), name)


class TestEveryEngine:
    @pytest.mark.parametrize("batch", [1, 2, 7])
    def test_runs(self, tiny: Engine, batch: int) -> None:
        outputs = tiny.run(feeds(batch))
        assert list(outputs) == ["logits"]
        np.testing.assert_allclose(outputs["logits"], expected(feeds(batch)), atol=1e-5)

    def test_specs(self, tiny: Engine) -> None:
        assert tiny.inputs == (
            TensorSpec("audio", "float32", (None, 4, 3)),
            TensorSpec("audio_length", "int32", (None,)),
        )
        assert tiny.outputs == (TensorSpec("logits", "float32", (None, 2)),)

    def test_arrays_in_any_memory_order(self, tiny: Engine) -> None:
        given = feeds(2)
        strided = np.asfortranarray(given["audio"])
        assert not strided.flags.c_contiguous
        np.testing.assert_array_equal(tiny.run({**given, "audio": strided})["logits"], tiny.run(given)["logits"])

    def test_inputs_in_any_order_and_left_alone(self, tiny: Engine) -> None:
        given = feeds(2)
        swapped = dict(reversed(given.items()))
        np.testing.assert_array_equal(tiny.run(swapped)["logits"], tiny.run(given)["logits"])
        np.testing.assert_array_equal(given["audio"], feeds(2)["audio"])

    def test_half_precision(self, name: str) -> None:
        engine = open_engine(graph(kind=TensorProto.FLOAT16), name)
        given = {**feeds(1), "audio": np.ones((1, 4, 3), np.float16)}
        assert engine.run(given)["logits"].dtype == np.float16

    def test_names_of_what_it_takes_and_gives(self, name: str) -> None:
        engine = open_engine(forms(), name)
        assert [spec.name for spec in engine.inputs] == ["x_length", "x"]
        assert [spec.name for spec in engine.outputs] == ["right", "same", "copy", "relu", "left"]
        x = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
        outputs = engine.run({"x": x, "x_length": np.zeros(3, np.int32)})
        relu = np.maximum(x, 0)
        expected = {"right": x[:, 2:], "same": x, "copy": relu, "relu": relu, "left": x[:, :2]}
        assert list(outputs) == list(expected)
        for output, value in expected.items():
            np.testing.assert_array_equal(outputs[output], value)

    def test_a_batch_answers_as_its_utterances_do(self, tiny: Engine) -> None:
        given = feeds(8)
        together = tiny.run(given)["logits"]
        for i in (0, 7, 3):
            alone = tiny.run({name: value[i : i + 1] for name, value in given.items()})["logits"]
            np.testing.assert_allclose(alone, together[i : i + 1], atol=1e-6)
        np.testing.assert_array_equal(tiny.run(given)["logits"], together)

    def test_a_fixed_batch(self, name: str) -> None:
        engine = open_engine(graph(batch=3), name)
        assert engine.inputs[0] == TensorSpec("audio", "float32", (3, 4, 3))
        np.testing.assert_allclose(engine.run(feeds(3))["logits"], expected(feeds(3)), atol=1e-5)
        with pytest.raises(InputError, match=r"audio: got float32 \(1, 4, 3\), expected float32 \(3, 4, 3\)"):
            engine.run(feeds(1))

    def test_an_answer_stays_what_it_was(self, tiny: Engine) -> None:
        """An engine that gives views of its own buffers changes it with the next call."""
        for batch in (1, 2):
            first = tiny.run(feeds(batch))["logits"]
            before = first.copy()
            tiny.run(feeds(batch, seed=1))
            np.testing.assert_array_equal(first, before)

    def test_inputs_that_cannot_be_written_or_lie_askew(self, tiny: Engine) -> None:
        given = feeds(1)
        audio = np.frombuffer(b"x" + given["audio"].tobytes(), np.float32, offset=1).reshape(1, 4, 3)
        assert not audio.flags.writeable
        assert not audio.flags.aligned
        np.testing.assert_array_equal(tiny.run({**given, "audio": audio})["logits"], tiny.run(given)["logits"])

    def test_threads_give_the_same_answer(self, tiny: Engine, name: str) -> None:
        two = open_engine(graph(), name, threads=2)
        np.testing.assert_allclose(two.run(feeds(5))["logits"], tiny.run(feeds(5))["logits"], atol=1e-5)

    @pytest.mark.parametrize("content", [b"", b"This is no model.", b"x" * 5000, graph()[:-40]])
    def test_refuses_what_is_no_graph(self, name: str, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(EngineError, match=f"{name}: refuses the graph: .") as caught:
            open_engine(content, name)
        assert "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    def test_refuses_types_outside_the_contract(self, name: str) -> None:
        message = {
            "onnxruntime": r"tensor\(double\), expected one of tensor\(float\), ",
            "openvino": "f64, expected one of f32",
        }
        with pytest.raises(EngineError, match=f"{name}: audio is {message[name]}"):
            open_engine(graph(kind=TensorProto.DOUBLE), name)

    @pytest.mark.parametrize("batch", [1, 2])
    def test_a_failure_while_running_is_one_line(self, name: str, batch: int) -> None:
        engine = open_engine(touchy(), name)
        given = {**feeds(batch), "audio_length": np.full(batch, 3, np.int32)}
        with pytest.raises(EngineError, match=f"{name}: failed while running: .") as caught:
            engine.run(given)
        assert "\n" not in str(caught.value)
        outputs = engine.run({**given, "audio_length": np.full(batch, 4, np.int32)})
        np.testing.assert_array_equal(outputs["logits"], given["audio"])

    def test_other_sizes_may_be_any_too(self, name: str) -> None:
        with open_engine(largest(), name) as engine:
            for rows in (*range(1, 12), 2):  # more than OpenVINO keeps
                audio = np.random.default_rng(rows).normal(size=(2, rows, 3)).astype(np.float32)
                np.testing.assert_array_equal(engine.run({"audio": audio})["logits"], audio.max(axis=1))

    def test_sizes_that_do_not_go_together_are_refused(self, name: str) -> None:
        """OpenVINO 2026.4 multiplies matrices that do not fit each other where their sizes are open."""
        with open_engine(graph(time="T"), name) as engine:
            given = {**feeds(1), "audio": np.ones((1, 5, 3), np.float32)}
            with pytest.raises(EngineError, match=f"{name}: failed while running: ."):
                engine.run(given)
            np.testing.assert_allclose(
                engine.run(feeds(1))["logits"], open_engine(graph(), name).run(feeds(1))["logits"]
            )

    @pytest.mark.parametrize("threads", [0, -1])
    def test_threads_below_one(self, name: str, threads: int) -> None:
        with pytest.raises(InputError, match=f"threads: got {threads}, expected at least 1"):
            open_engine(graph(), name, threads=threads)

    def test_nothing_is_written_home_sent_or_printed(self, name: str, tmp_path: Path) -> None:
        """Both libraries report to their makers when they are imported, and both are asked not to."""
        (tmp_path / "graph.onnx").write_bytes(graph())
        code = (
            "import sys\n"
            "heard = []\n"
            "sys.addaudithook(lambda event, _: heard.append(event) if event.startswith('socket.') else None)\n"
            "from pathlib import Path\n"
            "from edgeser.runtime.engines import open_engine\n"
            f"open_engine(Path('graph.onnx').read_bytes(), {name!r}).close()\n"
            "assert not heard, heard\n"
            "assert 'openvino_telemetry' not in sys.modules\n"
        )
        home = tmp_path / "home"
        home.mkdir()
        # Nothing else of this environment: both keep quiet by themselves where it says `CI`.
        environment = {"HOME": str(home), **{n: os.environ[n] for n in ("PATH", "PYTHONPATH") if n in os.environ}}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert list(home.rglob("*")) == []


class TestChoosing:
    @pytest.mark.parametrize("name", ["tensorrt-9", "", "ONNXRUNTIME"])
    def test_unknown_engine(self, name: str) -> None:
        for call in (candidates, lambda engine: open_engine(graph(), engine)):
            with pytest.raises(InputError, match=f"engine: got '{name}', expected auto or onnxruntime, openvino"):
                call(name)

    def test_a_name_is_the_only_candidate(self) -> None:
        assert candidates("openvino") == ("openvino",)
        assert candidates("onnxruntime") == ("onnxruntime",)

    @NO_OPENVINO
    def test_auto_prefers_openvino_and_imports_nothing_to_find_out(self) -> None:
        code = (
            "import sys; from edgeser.runtime.engines import candidates; "
            "print(*candidates('auto'), {'openvino', 'onnxruntime'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "openvino onnxruntime set()\n"

    def test_auto_without_openvino(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        assert candidates("auto") == ("onnxruntime",)
        monkeypatch.setitem(sys.modules, "openvino", types.ModuleType("openvino"))  # it has no spec
        assert candidates("auto") == ("onnxruntime",)

    def test_auto_without_golden_vectors_is_onnx_runtime(self) -> None:
        assert open_engine(graph()).name == "onnxruntime"
        assert open_engine(graph(), "auto").name == "onnxruntime"

    def test_openvino_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(
            MissingDependencyError, match=r"openvino is not installed.*pip install 'edgeser\[openvino\]'"
        ):
            open_engine(graph(), "openvino")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("raise OSError('libopenvino.so: cannot open')", "libopenvino.so: cannot open"),
            ("raise ImportError('built against another NumPy\\n')", "built against another NumPy"),
            ("import openvino.nothing", "No module named 'openvino.nothing'"),
            ("raise RuntimeError", "RuntimeError"),
        ],
    )
    def test_openvino_that_does_not_start(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, reason: str
    ) -> None:
        (tmp_path / "openvino").mkdir()
        (tmp_path / "openvino" / "__init__.py").write_text(content)
        monkeypatch.delitem(sys.modules, "openvino", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(EngineError, match=f"openvino: is installed but does not start: {reason}: install"):
            open_engine(graph(), "openvino")
        assert candidates("auto") == ("openvino", "onnxruntime")  # nobody knows before it is tried


class TestInputs:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, "got none, expected audio, audio_length"),
            ({"audio": feeds(1)["audio"]}, "got audio, expected audio, audio_length"),
            ({**feeds(1), "text": np.zeros(1)}, "got audio, audio_length, text, expected audio, audio_length"),
            ({"Audio": feeds(1)["audio"], "audio_length": feeds(1)["audio_length"]}, "got Audio, audio_length, exp"),
        ],
    )
    def test_names(self, tiny: Engine, given: Arrays, message: str) -> None:
        with pytest.raises(InputError, match=f"inputs: {message}"):
            tiny.run(given)

    @pytest.mark.parametrize("dtype", ["float64", "float16", "int32", ">f4"])
    def test_types(self, tiny: Engine, dtype: str) -> None:
        with pytest.raises(InputError, match=r"audio: got .* \(1, 4, 3\), expected float32 \(N, 4, 3\)"):
            tiny.run({**feeds(1), "audio": np.zeros((1, 4, 3), dtype)})

    def test_lengths_are_int32(self, tiny: Engine) -> None:
        with pytest.raises(InputError, match=r"audio_length: got int64 \(1,\), expected int32 \(N\)"):
            tiny.run({**feeds(1), "audio_length": np.zeros(1, np.int64)})

    @pytest.mark.parametrize("shape", [(1, 4), (1, 4, 3, 1), (1, 3, 4), (1, 5, 3), (), (0,)])
    def test_shapes(self, tiny: Engine, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match=r"audio: got float32 \(.*\), expected float32 \(N, 4, 3\)"):
            tiny.run({**feeds(1), "audio": np.zeros(shape, np.float32)})

    def test_batch_of_none(self, tiny: Engine) -> None:
        with pytest.raises(InputError, match=r"got batch sizes \[0\], expected one, above 0"):
            tiny.run(feeds(0))

    def test_batches_that_differ(self, tiny: Engine) -> None:
        with pytest.raises(InputError, match=r"got batch sizes \[1, 2\], expected one, above 0"):
            tiny.run({**feeds(2), "audio": feeds(1)["audio"]})

    def test_a_refused_call_leaves_the_engine_usable(self, tiny: Engine) -> None:
        with pytest.raises(InputError):
            tiny.run({})
        assert tiny.run(feeds(1))["logits"].shape == (1, 2)


class TestClosing:
    def test_closed(self, name: str) -> None:
        with open_engine(graph(), name) as engine:
            engine.run(feeds(1))
        with pytest.raises(EngineError, match=f"{name}: the engine is closed"):
            engine.run(feeds(1))
        engine.close()

    def test_closes_when_the_block_fails(self, name: str) -> None:
        with pytest.raises(KeyError), open_engine(graph(), name) as engine:
            raise KeyError
        with pytest.raises(EngineError, match="closed"):
            engine.run(feeds(1))

    def test_nothing_is_held_once_closed(self, name: str) -> None:
        engine: Any = open_engine(graph(), name)
        engine.run(feeds(2))
        held = weakref.ref(engine._session if name == "onnxruntime" else engine._request)
        assert held() is not None
        engine.close()
        assert held() is None

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_ctrl_c_is_heard_when_engines_have_come_and_gone(self, name: str, elsewhere: bool) -> None:
        """Closed in the order they were opened, here or in another thread."""
        program = (
            "import signal, sys, threading\n"
            "from edgeser.runtime.engines import open_engine\n"
            "graph, name, elsewhere = sys.stdin.buffer.read(), sys.argv[1], sys.argv[2] == 'True'\n"
            "for engine in [open_engine(graph, name) for _ in range(3)]:\n"
            "    if elsewhere:\n"
            "        closing = threading.Thread(target=engine.close)\n"
            "        closing.start(); closing.join()\n"
            "    else:\n"
            "        engine.close()\n"
            "    del engine\n"
            "signal.signal(signal.SIGINT, lambda *_: sys.exit(7))\n"
            "signal.raise_signal(signal.SIGINT)\n"
        )
        command = [sys.executable, "-c", program, name, str(elsewhere)]
        assert subprocess.run(command, input=graph(), check=False).returncode == 7


def watched(kind: str) -> Any:
    """An engine that notes how many calls are inside at once, and how often it was closed."""

    class Watched(KINDS[kind]):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(graph())
            self.inside = self.most = self.closed = 0

        def _run(self, given: Arrays) -> dict[str, NDArray[Any]]:
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.0005)
            outputs = super()._run(given)
            self.inside -= 1
            return outputs

        def _close(self) -> None:
            assert self.inside == 0
            self.closed += 1
            super()._close()

    return Watched()


class TestThreads:
    def test_calls_from_many_threads_run_one_at_a_time_and_keep_their_answers(self, name: str) -> None:
        engine = watched(name)
        ready = threading.Barrier(8)

        def work(seed: int) -> None:
            ready.wait()
            for i in range(20):
                given = feeds(1 + (seed + i) % 3, seed * 100 + i)
                np.testing.assert_allclose(engine.run(given)["logits"], expected(given), atol=1e-5)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert engine.most == 1

    @NO_OPENVINO
    def test_engines_opened_at_once_share_one_core(self) -> None:
        """A second Core would leave its thread's signals without a stack when it goes."""
        program = (
            "import sys, time\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "from edgeser.runtime.engines import open_engine\n"
            "import openvino\n"
            "made, Core, graph = [], openvino.Core, sys.stdin.buffer.read()\n"
            "openvino.Core = lambda: (time.sleep(0.2), made.append(1), Core())[2]\n"
            "with ThreadPoolExecutor(4) as pool:\n"
            "    list(pool.map(lambda _: open_engine(graph, 'openvino'), range(4)))\n"
            "sys.exit(len(made))\n"
        )
        assert subprocess.run([sys.executable, "-c", program], input=graph(), check=False).returncode == 1

    def test_closing_while_others_call(self, name: str) -> None:
        engine = watched(name)
        ready = threading.Barrier(5)

        def work(seed: int) -> int:
            ready.wait()
            for i in range(10_000):
                try:
                    engine.run(feeds(1, seed))
                except EngineError as error:
                    assert "closed" in str(error)  # noqa: PT017
                    return i
            return -1

        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(work, seed) for seed in range(4)]
            ready.wait()
            time.sleep(0.02)
            engine.close()
            engine.close()
        assert engine.closed == 1
        assert all(future.result() >= 0 for future in done)

    def test_engines_side_by_side(self) -> None:
        """Each in a thread of its own, all at once."""
        engines = [open_engine(graph(), name) for name in candidates("auto") for _ in range(3)]
        ready = threading.Barrier(len(engines))

        def work(engine: Engine) -> None:
            ready.wait()
            for i in range(50):
                given = feeds(1 + i % 3, i)
                np.testing.assert_allclose(engine.run(given)["logits"], expected(given), atol=1e-5)
            engine.close()

        with ThreadPoolExecutor(len(engines)) as pool:
            list(pool.map(work, engines))


@pytest.mark.parametrize("unsigned", [True, False])
def test_sums_of_8_bit_products_do_not_overflow(name: str, unsigned: bool) -> None:
    """On x86 without VNNI ONNX Runtime 1.32 adds two in 16 bits unless it is told not to, and OpenVINO 2026.4 does."""
    size, top, kind = 64, 255 if unsigned else 127, np.uint8 if unsigned else np.int8
    stored = {
        "one": np.float32(1.0),
        "zero": kind(0),
        "codes": np.full((size, 4), 127, np.int8),
        "scales": np.ones(4, np.float32),
        "zeros": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["codes", "scales", "zeros"], ["weights"], axis=1),
        helper.make_node("MatMul", ["rounded", "weights"], ["y"]),
    ]
    inner = helper.make_graph(
        nodes,
        "integers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(value), label) for label, value in stored.items()],
    )
    model = helper.make_model(inner, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with open_engine(model.SerializeToString(), name) as engine:
        y = engine.run({"x": np.full((2, size), top, np.float32)})["y"]
    np.testing.assert_allclose(y, np.full((2, 4), size * top * 127), rtol=1e-6)
