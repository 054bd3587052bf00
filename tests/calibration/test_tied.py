"""A table that is looked up and multiplied by: what untying, smoothing, INT8 and four bits make of it, by engine."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeser.calibration.placement import PRESETS, activations, chosen, quantize
from edgeser.calibration.ranges import Range
from edgeser.calibration.rows import RowSample
from edgeser.calibration.sites import find_sites
from edgeser.calibration.smoothing import smooth
from edgeser.calibration.tied import BITS, CODES, GROUP, STEPS, codebook, pack_codes, tie_table, untie_table
from edgeser.runtime.engines import open_engine

Make = Callable[..., onnx.ModelProto]
Run = Callable[..., dict[str, NDArray[Any]]]
WIDTH, TOKENS = 64, 16_400  # just above 2 ** 20 values, below which a table is left as it is
IDS = np.array([0, 1, 77, TOKENS - 1])


@pytest.fixture(scope="module")
def table() -> NDArray[np.float32]:
    """Columns about a mean that is large in two channels, one of which varies more than the others, as Whisper's do."""
    rng = np.random.default_rng(0)
    mean, spread = 0.01 * rng.standard_normal((WIDTH, 1)), np.full((WIDTH, 1), 0.01)
    mean[[3, 40]], spread[3] = 0.4, 0.09
    return (mean + spread * rng.standard_normal((WIDTH, TOKENS))).astype(np.float32)


@pytest.fixture
def states() -> NDArray[np.float32]:
    rng = np.random.default_rng(1)
    return (rng.standard_normal((16, WIDTH)) * np.linspace(1, 12, WIDTH)).astype(np.float32)


def both_ends(make_graph: Make, table: NDArray[np.float32], **more: Any) -> onnx.ModelProto:
    return make_graph(
        [
            ("Gather", ["table", "ids"], ["found"], {"axis": 1}),
            ("Identity", ["state"], ["normed"], {}),
            ("MatMul", ["normed", "table"], ["logits"], {}),
        ],
        {"ids": ["N"], "state": ["M", table.shape[0]]},
        {"found": [table.shape[0], "N"], "logits": ["M", table.shape[1]]},
        {"table": table},
    )


def halves(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([stored & 15, stored >> 4])


def unpacked(packed: NDArray[np.uint8], stored: NDArray[np.uint8]) -> NDArray[np.int8]:
    groups = np.tile(np.repeat(halves(stored), GROUP, axis=0), (CODES, 1))
    return codebook()[0][groups, halves(packed)]


def in_int8(proto: onnx.ModelProto, states: NDArray[np.float32], packed: bool) -> onnx.ModelProto:
    """Smooth, quantize and tie as calibrating does."""
    untied = untie_table(proto)
    sample = RowSample(-1)
    for row in states:
        sample.add(row[None])
    smoothed, strengths = smooth(untied, chosen(find_sites(untied)), {"normed": sample})
    assert strengths  # the channels differ, so something is evened out
    sites = chosen(find_sites(smoothed))
    peak = float(np.abs(states).max())
    ranges = {name: Range(-peak, peak) for name in activations(smoothed, sites, PRESETS["tensorrt"])}
    return tie_table(quantize(smoothed, sites, ranges, PRESETS["tensorrt"]), packed, {"normed": sample})


def stored(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def test_an_untied_graph_computes_the_same_but_for_a_number_in_all_logits(
    make_graph: Make, table: NDArray[np.float32], states: NDArray[np.float32], run_graph: Run
) -> None:
    proto = both_ends(make_graph, table)
    before = proto.SerializeToString()
    untied = untie_table(proto)
    assert proto.SerializeToString() == before
    feeds = {"ids": IDS, "state": states}
    expected = run_graph(proto, feeds)
    for graph in (untied, tie_table(untied)):
        found = run_graph(graph, feeds)
        difference = found["logits"] - expected["logits"]
        np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1], difference.shape), atol=5e-4)
        np.testing.assert_allclose(found["found"], expected["found"], atol=1e-6)
    (site,) = find_sites(untied)
    assert (site.name, site.float_reason, site.parameters) == ("table", "", table.size)
    assert np.abs(stored(untied)["table.weight"].mean(axis=1)).max() < 1e-6
    assert sum(value.size >= table.size for value in stored(tie_table(untied)).values()) == 1


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("engine", ["plain", "onnxruntime", "openvino"])
def test_both_ends_read_the_same_codes(
    make_graph: Make, table: NDArray[np.float32], states: NDArray[np.float32], run_graph: Run, packed: bool, engine: str
) -> None:
    if engine == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed: edgeser[openvino]")
    proto = in_int8(both_ends(make_graph, table), states, packed)
    onnx.checker.check_model(proto, full_check=True)
    if engine == "openvino":
        proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
        with open_engine(proto.SerializeToString(), engine) as opened:
            found = opened.run({"ids": IDS.astype(np.int32), "state": states[:4]})
    else:
        found = run_graph(proto, {"ids": IDS, "state": states[:4]}, fused=engine == "onnxruntime")
    error = np.abs(found["found"] - table[:, IDS])
    # Half a step of four bits is a fourteenth of a group's largest code, 5 % more for the sizes that a step has.
    assert error.max() < (0.09 if packed else 0.005) * np.abs(table - table.mean(axis=1, keepdims=True)).max()
    # What is looked up is what is multiplied by: the logits of these tokens, but for the rounding of the state.
    expected = states[:4] @ (found["found"] - table.mean(axis=1, keepdims=True))
    own = found["logits"][:, IDS]
    assert np.abs(own - expected).max() < 0.02 * np.abs(expected).max()


def test_the_product_is_in_integers_though_its_weights_are_unpacked(
    make_graph: Make,
    table: NDArray[np.float32],
    states: NDArray[np.float32],
    fused_operators: Callable[[onnx.ModelProto], Counter[str]],
) -> None:
    fused = fused_operators(in_int8(both_ends(make_graph, table), states, True))
    assert fused["MatMulIntegerToFloat"] == 1
    assert fused["MatMul"] == 0


def test_four_bits_take_half_of_eight(
    make_graph: Make, table: NDArray[np.float32], states: NDArray[np.float32]
) -> None:
    sizes = [len(in_int8(both_ends(make_graph, table), states, packed).SerializeToString()) for packed in (True, False)]
    bits = BITS + BITS / (CODES * GROUP)
    scales = 5 * TOKENS  # a scale and a zero point of each
    assert sizes[0] == pytest.approx(table.size * bits / 8 + scales, rel=0.02)
    assert sizes[1] == pytest.approx(table.size + scales, rel=0.02)


def test_a_width_that_does_not_fill_its_groups_stays_in_eight_bits(make_graph: Make, run_graph: Run) -> None:
    rng = np.random.default_rng(0)
    table = (0.01 * rng.standard_normal((WIDTH + 4, TOKENS))).astype(np.float32)
    states = (rng.standard_normal((16, WIDTH + 4)) * np.linspace(1, 12, WIDTH + 4)).astype(np.float32)
    proto = in_int8(both_ends(make_graph, table), states, True)
    found = run_graph(proto, {"ids": IDS, "state": states})["found"]
    assert np.abs(found - table[:, IDS]).max() < 0.02 * np.abs(table).max()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), peak=st.integers(1, 127))
def test_bytes_are_codes_of_the_book_half_a_step_off(seed: int, peak: int) -> None:
    """Unpacked a second time, code by code: halves of a byte, a step for 32 codes."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-peak, peak + 1, (2 * CODES * GROUP, 3)).astype(np.int8)
    packed, stored = pack_codes(codes)
    assert (packed.dtype, packed.shape) == (np.uint8, (2 * GROUP, 3))
    assert (stored.dtype, stored.shape) == (np.uint8, (1, 3))
    groups = halves(stored)
    book, steps = codebook()
    half = codes.shape[0] // 2
    for row in range(codes.shape[0]):
        for token in range(3):
            byte, group = int(packed[row % half, token]), int(groups[row % half // GROUP, token])
            level = byte >> 4 if row >= half else byte & 15
            assert level < 15
            inside = abs(int(codes[row, token])) <= 7 * steps[group]
            off = abs(int(book[group, level]) - int(codes[row, token]))
            assert off <= steps[group] / 2 + 0.5 or not inside


def test_codes_of_one_step_come_back_as_they_were() -> None:
    book, _ = codebook()
    rng = np.random.default_rng(0)
    for place in range(STEPS):
        codes = book[place][rng.integers(0, 15, (2 * CODES * GROUP, 4))]
        codes[[0, GROUP]] = book[place, 14]
        packed, stored = pack_codes(codes)
        np.testing.assert_array_equal(unpacked(packed, stored), codes)


def test_rounding_together_is_nearer_than_rounding_alone() -> None:
    """On rows that nothing was rounded by, of states whose channels go together as those of real ones do."""
    rng = np.random.default_rng(0)
    codes = np.clip(np.rint(30 * rng.standard_normal((WIDTH, 500))), -127, 127).astype(np.int8)
    states = (rng.standard_normal((1400, 12)) @ rng.standard_normal((12, WIDTH))).astype(np.float32)
    states += 0.3 * rng.standard_normal(states.shape).astype(np.float32)
    errors = []
    for rows in (None, states[:1000]):
        found = unpacked(*pack_codes(codes, rows))
        errors.append(np.square(states[1000:] @ (found.astype(np.float32) - codes)).mean())
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("what", ["small", "rows", "alone", "two products"])
def test_other_tables_are_left_alone(make_graph: Make, what: str) -> None:
    width = WIDTH // 2 if what == "small" else WIDTH
    nodes: list[tuple[str, list[str], list[str], dict[str, int]]] = [
        ("Gather", ["table", "ids"], ["found"], {"axis": 0 if what == "rows" else 1})
    ]
    outputs: dict[str, list[str | int]] = {"found": ["N", TOKENS] if what == "rows" else [width, "N"]}
    for name in {"alone": [], "two products": ["logits", "others"]}.get(what, ["logits"]):
        nodes.append(("MatMul", ["state", "table"], [name], {}))
        outputs[name] = ["M", TOKENS]
    proto = make_graph(
        nodes, {"ids": ["N"], "state": ["M", width]}, outputs, {"table": np.ones((width, TOKENS), np.float32)}
    )
    assert untie_table(proto).SerializeToString() == proto.SerializeToString()
    assert tie_table(proto).SerializeToString() == proto.SerializeToString()
