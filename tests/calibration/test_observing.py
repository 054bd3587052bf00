from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeser.calibration.histogram import BINS, Histogram
from edgeser.calibration.observing import ObservingEngine
from edgeser.runtime.audio import Samples
from edgeser.runtime.engines import OnnxRuntimeEngine
from edgeser.runtime.errors import EngineError, InputError
from edgeser.runtime.frontends import LogMel

Feeds = dict[str, NDArray[Any]]

# Eighths and sums of few of them are exact in float32, in whatever order they are added.
RNG = np.random.default_rng(0)
FIRST = (RNG.integers(-8, 9, size=(40, 6)) / 8).astype(np.float32)
BIAS = (RNG.integers(-8, 9, size=6) / 8).astype(np.float32)
SECOND = (RNG.integers(-8, 9, size=(6, 3)) / 8).astype(np.float32)
FRAMES = 16


def model() -> onnx.ModelProto:
    """Two layers on `audio` `(N, 16, 40)`, their mean `pooled` `(N, 6)`, and with a count `logits` `(N, 3)`."""
    nodes = [
        helper.make_node("MatMul", ["audio", "first"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["before"]),
        helper.make_node("Relu", ["before"], ["hidden"]),
        helper.make_node("Transpose", ["hidden"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["turned", "last"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "second"], ["scores"]),
        helper.make_node("Cast", ["audio_length"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["count", "last"], ["column"]),
        helper.make_node("Add", ["scores", "column"], ["logits"]),
    ]
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "two layers",
            [
                helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["N", FRAMES, 40]),
                helper.make_tensor_value_info("audio_length", TensorProto.INT32, ["N"]),
            ],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3]),
                helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["N", 6]),
            ],
            [
                numpy_helper.from_array(FIRST, "first"),
                numpy_helper.from_array(BIAS, "bias"),
                numpy_helper.from_array(SECOND, "second"),
                numpy_helper.from_array(np.array([-1]), "last"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(proto)
    return proto


def activations(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
    """The same in NumPy."""
    product = feeds["audio"] @ FIRST
    before = product + BIAS
    hidden = np.maximum(before, 0)
    pooled = hidden.mean(axis=1)
    logits = pooled @ SECOND + feeds["audio_length"][:, np.newaxis].astype(np.float32)
    turned = hidden.transpose(0, 2, 1)
    return {
        **feeds,
        "product": product,
        "before": before,
        "hidden": hidden,
        "turned": turned,
        "pooled": pooled,
        "logits": logits,
    }


def exact_feeds(seed: int, batch: int = 2, size: int = 32) -> Feeds:
    rng = np.random.default_rng(seed)
    audio = (rng.integers(-size, size + 1, size=(batch, FRAMES, 40)) / 8).astype(np.float32)
    return {"audio": audio, "audio_length": rng.integers(1, FRAMES, size=batch).astype(np.int32)}


def histogram_of(arrays: Sequence[NDArray[Any]]) -> Histogram:
    histogram = Histogram()
    for array in arrays:
        histogram.add(array)
    return histogram


def assert_same(found: Histogram, expected: Histogram) -> None:
    np.testing.assert_array_equal(found.counts, expected.counts)
    for name in ("width", "low", "high", "total"):
        assert getattr(found, name) == getattr(expected, name), name


WATCHED = ("audio", "before", "hidden", "turned", "pooled", "logits")


def test_histograms_are_those_of_numpys_activations() -> None:
    """Of graph inputs, of tensors inside that fusing would remove, and of graph outputs; over runs of two sizes."""
    runs = [exact_feeds(0), exact_feeds(1, batch=1, size=128), exact_feeds(2, batch=3)]
    with ObservingEngine(model(), WATCHED) as engine:
        for feeds in runs:
            engine.run(feeds)
    assert set(engine.histograms) == set(WATCHED)
    for name in WATCHED:
        assert_same(engine.histograms[name], histogram_of([activations(feeds)[name] for feeds in runs]))


def test_whole_numbers_as_input() -> None:
    feeds = exact_feeds(0)
    with ObservingEngine(model(), ["audio_length"]) as engine:
        engine.run(feeds)
    assert_same(engine.histograms["audio_length"], histogram_of([feeds["audio_length"]]))


@pytest.mark.parametrize("watched", [(), WATCHED, ("hidden",), ("audio", "logits")])
def test_outputs_are_the_plain_engines(watched: tuple[str, ...], speech: Samples) -> None:
    """On real features: names, their order and types; numbers within float32's rounding, since fusing may differ."""
    rows = LogMel(40).extract(speech)
    audio = rows[: len(rows) // FRAMES * FRAMES].reshape(-1, FRAMES, 40)
    feeds = {"audio": audio, "audio_length": np.full(len(audio), FRAMES, np.int32)}
    with OnnxRuntimeEngine(model().SerializeToString()) as plain, ObservingEngine(model(), watched) as engine:
        expected, found = plain.run(feeds), engine.run(feeds)
        assert (engine.inputs, engine.outputs) == (plain.inputs, plain.outputs)
    assert list(found) == list(expected) == ["logits", "pooled"]
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


def test_the_graph_that_was_given_stays_as_it_was() -> None:
    proto = model()
    ObservingEngine(proto, WATCHED).close()
    assert proto == model()


def test_twice_the_same_run_counts_twice() -> None:
    feeds = exact_feeds(0)
    with ObservingEngine(model(), WATCHED) as engine:
        first = engine.run(feeds)
        once = {name: histogram.counts.copy() for name, histogram in engine.histograms.items()}
        second = engine.run(feeds)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    for name, histogram in engine.histograms.items():
        np.testing.assert_array_equal(histogram.counts, 2 * once[name])
        assert histogram.total == 2 * activations(feeds)[name].size


def test_nothing_is_counted_before_the_first_run() -> None:
    with ObservingEngine(model(), WATCHED) as engine:
        assert {histogram.total for histogram in engine.histograms.values()} == {0}


def test_activations_are_not_kept() -> None:
    """After ten runs there is a histogram of each tensor and no array beside it."""
    with ObservingEngine(model(), WATCHED) as engine:
        for seed in range(10):
            engine.run(exact_feeds(seed))
        assert not [value for value in vars(engine).values() if isinstance(value, np.ndarray)]
        assert {histogram.counts.shape for histogram in engine.histograms.values()} == {(BINS,)}
        assert engine.rows == {}


@pytest.mark.parametrize(("name", "axis"), [("audio", 2), ("hidden", -1), ("turned", 1), ("pooled", 1)])
def test_rows_hold_all_channels_of_a_place(name: str, axis: int) -> None:
    """Rows are among NumPy's, peaks are theirs; only tensors with a channels' axis give rows."""
    runs = [exact_feeds(seed) for seed in range(3)]
    with ObservingEngine(model(), WATCHED, {name: axis}) as engine:
        for feeds in runs:
            engine.run(feeds)
    assert set(engine.rows) == {name}
    expected = np.concatenate([rows_of(activations(feeds), name, axis) for feeds in runs])
    found = engine.rows[name]
    assert len(found.rows) == min(len(expected), 3 * 8)
    assert {row.tobytes() for row in found.rows} <= {row.tobytes() for row in expected}
    np.testing.assert_array_equal(found.peaks, np.abs(expected).max(axis=0))


def rows_of(arrays: Mapping[str, NDArray[Any]], name: str, axis: int) -> NDArray[np.float32]:
    moved = np.moveaxis(arrays[name], axis, -1)
    return np.ascontiguousarray(moved.reshape(-1, moved.shape[-1]))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_feed_that_is_not_finite(wrong: float) -> None:
    feeds = exact_feeds(0)
    feeds["audio"][1, 2, 3] = wrong
    with ObservingEngine(model(), WATCHED) as engine:
        with pytest.raises(InputError, match=r"^audio: got values that are not finite, expected finite ones: look for"):
            engine.run(feeds)
        assert engine.histograms["audio"].total == 0
        good = exact_feeds(1)
        np.testing.assert_array_equal(engine.run(good)["logits"], activations(good)["logits"])
        assert [spec.name for spec in engine.outputs] == ["logits", "pooled"]


def test_a_tensor_inside_that_overflows() -> None:
    """The feed is finite; the message names the tensor that is watched."""
    feeds = exact_feeds(0)
    feeds["audio"][:] = 3e38
    with (
        ObservingEngine(model(), ["product"]) as engine,
        pytest.raises(InputError, match=r"^product: got values that are not finite"),
    ):
        engine.run(feeds)


def test_inputs_are_checked_as_by_any_engine() -> None:
    with ObservingEngine(model(), WATCHED) as engine:
        with pytest.raises(InputError, match="audio: got float64"):
            engine.run({**exact_feeds(0), "audio": np.zeros((2, FRAMES, 40))})
        with pytest.raises(InputError, match="inputs: got audio, expected audio, audio_length"):
            engine.run({"audio": exact_feeds(0)["audio"]})
        assert engine.histograms["audio"].total == 0


def test_a_tensor_that_is_not_there() -> None:
    with pytest.raises(EngineError, match="onnxruntime: refuses the graph"):
        ObservingEngine(model(), ["elsewhere"])


def test_closed() -> None:
    engine = ObservingEngine(model(), WATCHED)
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.run(exact_feeds(0))
