from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeser.runtime.engines import Arrays, Engine, OnnxRuntimeEngine, TensorSpec, open_engine
from edgeser.runtime.errors import EngineError, InputError

WEIGHTS = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)


def graph(*, kind: int = TensorProto.FLOAT, rows: int = -1) -> bytes:
    """A model of our contract, small: `logits = flat(audio) @ WEIGHTS + audio_length`, for `rows` utterances or any."""
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
                helper.make_tensor_value_info("audio", kind, ["N", 4, 3]),
                helper.make_tensor_value_info("audio_length", TensorProto.INT32, ["N"]),
            ],
            [helper.make_tensor_value_info("logits", kind, ["N", 2] if kind == TensorProto.FLOAT else ["N", 4, 3])],
            [
                numpy_helper.from_array(WEIGHTS, "weights"),
                numpy_helper.from_array(np.array([rows, 12]), "shape"),
                numpy_helper.from_array(np.array([1]), "axis"),
            ],
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


@pytest.fixture(scope="module")
def tiny() -> Engine:
    return open_engine(graph())


class TestOnnxRuntime:
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

    def test_half_precision(self) -> None:
        engine = open_engine(graph(kind=TensorProto.FLOAT16))
        given = {**feeds(1), "audio": np.ones((1, 4, 3), np.float16)}
        assert engine.run(given)["logits"].dtype == np.float16

    def test_threads_give_the_same_answer(self, tiny: Engine) -> None:
        two = open_engine(graph(), "onnxruntime", threads=2)
        np.testing.assert_allclose(two.run(feeds(5))["logits"], tiny.run(feeds(5))["logits"], atol=1e-5)

    @pytest.mark.parametrize("content", [b"", b"This is no model.", graph()[:-40]])
    def test_refuses_what_is_no_graph(self, content: bytes) -> None:
        with pytest.raises(EngineError, match=r"onnxruntime: refuses the graph: .") as caught:
            open_engine(content)
        assert "\n" not in str(caught.value)

    def test_refuses_types_outside_the_contract(self) -> None:
        with pytest.raises(EngineError, match=r"audio is tensor\(double\), expected one of tensor\(float\), "):
            open_engine(graph(kind=TensorProto.DOUBLE))

    def test_a_failure_while_running_is_one_line(self) -> None:
        with pytest.raises(EngineError, match=r"onnxruntime: failed while running: .") as caught:
            open_engine(graph(rows=1)).run(feeds(2))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("threads", [0, -1])
    def test_threads_below_one(self, threads: int) -> None:
        with pytest.raises(InputError, match=f"threads: got {threads}, expected at least 1"):
            open_engine(graph(), threads=threads)

    @pytest.mark.parametrize("name", ["tensorrt-9", "", "ONNXRUNTIME"])
    def test_unknown_engine(self, name: str) -> None:
        with pytest.raises(InputError, match=f"engine: got '{name}', expected auto or onnxruntime"):
            open_engine(graph(), name)


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
    def test_closed(self) -> None:
        with open_engine(graph()) as engine:
            engine.run(feeds(1))
        with pytest.raises(EngineError, match="onnxruntime: the engine is closed"):
            engine.run(feeds(1))
        engine.close()

    def test_closes_when_the_block_fails(self) -> None:
        with pytest.raises(KeyError), open_engine(graph()) as engine:
            raise KeyError
        with pytest.raises(EngineError, match="closed"):
            engine.run(feeds(1))


class Watched(OnnxRuntimeEngine):
    """Notes how many calls are inside at once, and how often it was closed."""

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


class TestThreads:
    def test_calls_from_many_threads_run_one_at_a_time_and_keep_their_answers(self) -> None:
        engine = Watched()
        ready = threading.Barrier(8)

        def work(seed: int) -> None:
            ready.wait()
            for i in range(20):
                given = feeds(1 + (seed + i) % 3, seed * 100 + i)
                np.testing.assert_allclose(engine.run(given)["logits"], expected(given), atol=1e-5)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert engine.most == 1

    def test_closing_while_others_call(self) -> None:
        engine = Watched()
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
