"""Tables of embeddings in five bits: the codes by their definition, the graphs that unpack them, what is left alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeser.calibration.tables import pack, pack_tables
from edgeser.export_tools.encoders.storage import store_weights
from edgeser.runtime.engines import open_engine

Make = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, NDArray[Any]]]
DIM = 96
ROWS = 10_944  # times 96 is just above 2 ** 20, below which a table is left as it is
IDS = np.array([[0, 1, ROWS - 1, -1, -ROWS], [7, 7, 5000, ROWS // 2, 123]])


def unpack(words: NDArray[np.int32], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """The format a second time, value by value: five bits each, 15 in the middle, a scale for 32 values."""
    rows, dim = words.shape[0], words.shape[1] * 6
    values = np.zeros((rows, dim), np.float32)
    for row in range(rows):
        for place in range(dim):
            sixth, word = divmod(place, dim // 6)
            code = (int(words[row, word]) >> (5 * sixth)) & 31
            values[row, place] = np.float32(code - 15) * np.float32(scales[row, place // 32])
    return values


@settings(max_examples=60, deadline=None)
@given(data=st.data(), rows=st.integers(1, 2), dim=st.sampled_from([96, 192]), scale=st.sampled_from([1.0, 1e-3, 1e3]))
def test_what_is_unpacked_is_half_a_step_off(data: st.DataObject, rows: int, dim: int, scale: float) -> None:
    """The step is a fifteenth of the largest of 32 values, or the smallest that half precision has."""
    elements = st.floats(-8, 8, width=32, allow_subnormal=False)
    values = (data.draw(arrays(np.float32, (rows, dim), elements=elements)) * scale).astype(np.float32)
    words, scales = pack(values)
    assert (words.dtype, words.shape) == (np.int32, (rows, dim // 6))
    assert (scales.dtype, scales.shape) == (np.float16, (rows, dim // 32))
    assert words.min() >= 0
    assert words.max() < 1 << 30
    peaks = np.abs(values).reshape(rows, dim // 32, 32).max(axis=2)
    steps = np.maximum(peaks / 15, 2.0**-14) * (1 + 2.0**-10)
    found = unpack(words, scales)
    assert (np.abs(found - values) <= 0.5 * np.repeat(steps, 32, axis=1)).all()
    assert (found[values == 0] == 0).all()
    again = pack(found)
    np.testing.assert_array_equal(unpack(*again), found)


def test_every_code_is_in_its_place() -> None:
    values = np.zeros((1, 192), np.float32)
    for place, code in ((0, 15), (31, -15), (32, 1), (33, 15), (191, -15), (160, -7)):
        values[0, place] = code
    words, scales = pack(values)
    assert (scales == 1).all()
    np.testing.assert_array_equal(unpack(words, scales), values)
    middle = sum(15 << (5 * sixth) for sixth in range(6))
    assert int(words[0, 0]) == middle + 15 + (1 << 5) - (
        7 << 25
    )  # places 0, 32 and 160: the first, second and last sixth
    assert int(words[0, 31]) == middle - 15 - (15 << 25)  # place 31 in the first, 191 in the last
    assert int(words[0, 2]) == middle


@pytest.fixture(scope="module")
def table() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return (0.05 * rng.standard_t(4, size=(ROWS, DIM))).astype(np.float32)


@pytest.fixture
def proto(make_graph: Make, table: NDArray[np.float32]) -> onnx.ModelProto:
    """What looks words and places up, and adds them."""
    positions = np.random.default_rng(1).normal(size=(5, DIM)).astype(np.float32)
    return make_graph(
        [
            ("Gather", ["words.weight", "ids"], ["found"], {}),
            ("Gather", ["positions.weight", "places"], ["placed"], {}),
            ("Add", ["found", "placed"], ["rows"], {}),
        ],
        {"ids": ["N", 5]},
        {"rows": ["N", 5, DIM]},
        {"words.weight": table, "positions.weight": positions, "places": np.arange(5)[None]},
    )


def stored(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


@pytest.mark.parametrize("engine", ["plain", "onnxruntime", "openvino"])
@pytest.mark.parametrize("form", ["float", "half", "int8"])
def test_a_graph_finds_what_the_definition_says(
    proto: onnx.ModelProto, table: NDArray[np.float32], run_graph: Run, form: str, engine: str
) -> None:
    """In all the forms that encoders keep tables in, bit for bit; small tables are left as they are."""
    if engine == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed: edgeser[openvino]")
    positions = stored(proto)["positions.weight"]
    stood_for = {"float": table, "half": table.astype(np.float16).astype(np.float32)}
    if form == "int8":
        steps = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
        stood_for["int8"] = np.rint(table / steps) * steps
    source = proto if form == "float" else store_weights(proto, form)
    before = source.SerializeToString()
    packed = pack_tables(source)
    assert source.SerializeToString() == before
    onnx.checker.check_model(packed, full_check=True)
    ids = IDS if engine != "openvino" else IDS % ROWS
    if engine == "openvino":
        with open_engine(with_int32(packed).SerializeToString(), engine) as opened:
            rows = opened.run({"ids": ids.astype(np.int32)})["rows"]
    else:
        rows = run_graph(packed, {"ids": ids}, fused=engine == "onnxruntime")["rows"]
    words, scales = pack(stood_for[form].astype(np.float32)[ids].reshape(-1, DIM))
    expected = unpack(words, scales).reshape(2, 5, DIM) + positions
    np.testing.assert_array_equal(rows, expected)
    assert np.abs(rows - positions - table[ids]).max() < 0.5 * np.abs(table).max() / 15 * 1.1


def with_int32(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take ids as EdgeSER's text encoders do."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    changed.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    return changed


@pytest.mark.parametrize("form", ["float", "int8"])
def test_a_packed_table_takes_less_than_a_fifth(proto: onnx.ModelProto, form: str) -> None:
    whole = len(proto.SerializeToString())
    packed = pack_tables(proto if form == "float" else store_weights(proto, form))
    assert len(packed.SerializeToString()) / whole == pytest.approx((4 / 6 + 2 / 32) / 4, rel=0.02)
    left = stored(packed)
    assert not any(name.startswith("words.weight") for name in left)
    assert "positions.weight" in left


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((ROWS - 22, DIM), "small"),
        ((ROWS, 98), "no multiple of 6"),
        ((ROWS, 128), "no multiple of 6"),
        ((9000, 150), ""),
    ],
)
def test_other_tables_are_left_alone(make_graph: Make, shape: tuple[int, int], why: str) -> None:
    proto = make_graph(
        [("Gather", ["table", "ids"], ["rows"], {})],
        {"ids": ["N", 5]},
        {"rows": ["N", 5, shape[1]]},
        {"table": np.ones(shape, np.float32)},
    )
    assert pack_tables(proto).SerializeToString() == proto.SerializeToString(), why


def test_lookups_of_columns_are_left_alone(make_graph: Make) -> None:
    proto = make_graph(
        [("Gather", ["table", "ids"], ["rows"], {"axis": 1})],
        {"ids": ["N", 5]},
        {"rows": [ROWS, "N", 5]},
        {"table": np.ones((ROWS, DIM), np.float32)},
    )
    assert pack_tables(proto).SerializeToString() == proto.SerializeToString()


def test_codes_with_one_scale_for_all_are_left_alone(make_graph: Make) -> None:
    """No form that EdgeSER writes, but one that a graph may have."""
    proto = make_graph(
        [
            ("Gather", ["table", "ids"], ["codes"], {}),
            ("Cast", ["codes"], ["numbers"], {"to": onnx.TensorProto.FLOAT}),
            ("Mul", ["numbers", "scale"], ["rows"], {}),
        ],
        {"ids": ["N", 5]},
        {"rows": ["N", 5, DIM]},
        {"table": np.ones((ROWS, DIM), np.int8), "scale": np.float32(0.1)},
    )
    assert pack_tables(proto).SerializeToString() == proto.SerializeToString()
