"""Key-sparse attention's CUDA kernels, their own source, emulated on the CPU, against the papers' equations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from edgeser.export_tools.key_sparse import DOMAIN, NAME, VERSION, key_sparse_function
from edgeser.runtime.engines import open_engine

Attend = Callable[..., Any]
TYPES = pytest.mark.parametrize("dtype", ["float32", "float16"])


@TYPES
@pytest.mark.parametrize(
    ("sizes", "lengths", "keep"),
    [
        pytest.param((1, 1, 1, 1, 32), (), 1, id="one row"),
        pytest.param((2, 2, 20, 20, 16), (20, 7), 10, id="words"),
        pytest.param((1, 2, 20, 230, 32), (201,), 115, id="words to audio"),
        pytest.param((1, 2, 230, 20, 32), (13,), 10, id="audio to words"),
        pytest.param((2, 1, 230, 230, 64), (230, 65), 115, id="230 frames"),
        pytest.param((1, 1, 460, 460, 64), (401,), 230, id="460 frames"),
        pytest.param((1, 1, 33, 70, 37), (70,), 35, id="odd width"),
        pytest.param((1, 1, 40, 129, 128), (129,), 64, id="widest head"),
        pytest.param((1, 1, 40, 40, 100), (38,), 20, id="100 wide"),
    ],
)
def test_sizes(
    sizes: tuple[int, int, int, int, int],
    lengths: Sequence[int],
    keep: int,
    dtype: str,
    attend: Attend,
    checks: ModuleType,
    reference: ModuleType,
) -> None:
    inputs = checks.draw(checks.problem(sizes, keep, dtype), lengths)
    checks.check(inputs, attend(inputs), reference)


def test_1024_frames(attend: Attend, checks: ModuleType, reference: ModuleType) -> None:
    inputs = checks.draw(checks.problem((1, 1, 1024, 1024, 32), 512, "float16"))
    checks.check(inputs, attend(inputs), reference)


@TYPES
@pytest.mark.parametrize("keep", [1, 39, 40, 41, 1000])
def test_keep(keep: int, dtype: str, attend: Attend, checks: ModuleType, reference: ModuleType) -> None:
    """From one key to more than there are, with 25 valid keys in one sample, so that 39 is more than these."""
    inputs = checks.draw(checks.problem((2, 2, 30, 40, 32), keep, dtype), (40, 25))
    outputs = attend(inputs)
    checks.check(inputs, outputs, reference)
    assert [len(row) for row in outputs.kept] == [min(keep, 40)] * 2 + [min(keep, 25)] * 2


@TYPES
def test_no_valid_key_gives_zeros(dtype: str, attend: Attend, checks: ModuleType, reference: ModuleType) -> None:
    """Never NaN, although all keys are; a length out of range is cut to it."""
    inputs = checks.draw(checks.problem((4, 2, 20, 20, 32), 10, dtype), (0, 20, -3, 500))
    outputs = attend(inputs)
    checks.check(inputs, outputs, reference)
    for sample in (0, 2):
        assert not outputs.context[sample].any()
        assert not outputs.importance[sample].any()
        assert not any(row.size for row in outputs.kept[2 * sample : 2 * sample + 2])


@TYPES
@pytest.mark.parametrize("order", ["pairs", "apart"])
def test_equal_keys_stay_or_go_together(order: str, dtype: str, attend: Attend, checks: ModuleType) -> None:
    """Their sums are equal to the last bit, wherever the keys lie in tiles; so `keep` may be exceeded, by one."""
    inputs = checks.draw(checks.problem((1, 3, 90, 180, 64), 51, dtype))
    partner = np.arange(180) ^ 1 if order == "pairs" else (np.arange(180) + 90) % 180
    for place, other in enumerate(partner):
        if other > place:
            inputs.k[:, :, other] = inputs.k[:, :, place]
    outputs = attend(inputs)
    np.testing.assert_array_equal(outputs.importance, outputs.importance[:, :, partner])
    for row in outputs.kept:
        assert len(row) == 52
        assert set(row) == set(partner[row])


def test_all_keys_equal_all_stay(attend: Attend, checks: ModuleType, reference: ModuleType) -> None:
    inputs = checks.draw(checks.problem((1, 1, 50, 70, 32), 1), (69,))
    inputs.k[:, :, :69] = inputs.k[:, :, :1]
    outputs = attend(inputs)
    assert [len(row) for row in outputs.kept] == [69]
    checks.check(inputs, outputs, reference)


@TYPES
def test_no_thread_waits_for_luck(dtype: str, attend: Attend, checks: ModuleType) -> None:
    """Whichever thread runs first, and whether blocks have 32 rows or 64, the last bit is the same."""
    inputs = checks.draw(checks.problem((2, 2, 100, 150, 64), 70, dtype), (150, 90))
    first = attend(inputs)
    for processors, order in ((1, "reversed"), (1, "warp by warp"), (1000, "in turn"), (1000, "warp by warp")):
        other = attend(inputs, processors=processors, order=order)
        np.testing.assert_array_equal(first.context, other.context)
        np.testing.assert_array_equal(first.importance, other.importance)


def test_no_warp_waits_for_luck_in_a_long_list(attend: Attend, checks: ModuleType, reference: ModuleType) -> None:
    """More keys than a block has threads."""
    inputs = checks.draw(checks.problem((1, 1, 8, 1100, 8), 600, "float16"))
    outputs = attend(inputs, order="warp by warp")
    checks.check(inputs, outputs, reference)
    assert len(outputs.kept[0]) == 600


@TYPES
def test_scores_far_below_zero(dtype: str, attend: Attend, checks: ModuleType, reference: ModuleType) -> None:
    """A row's largest score is -500: what fills up a tile scores 0, which is 2 to the power of 700 more."""
    inputs = checks.draw(checks.problem((1, 1, 40, 37, 32), 20, dtype, scale=1.0), spread=0.05)
    inputs.q[...] += np.asarray(4.0, dtype)
    inputs.k[...] -= np.asarray(4.0, dtype)
    outputs = attend(inputs)
    weights = reference.attention_weights(inputs.q, inputs.k, inputs.key_length, 1.0)
    # The last bit of a score of -500 is 3e-5, and of its power too.
    checks.assert_near(outputs.importance, reference.importance(weights), 2e-3 if dtype == "float16" else 2e-4)
    assert np.isfinite(outputs.context).all()
    assert len(outputs.kept[0]) == 20


@TYPES
@pytest.mark.parametrize("spread", [0.01, 6.0])
def test_flat_and_sharp_attention(
    spread: float, dtype: str, attend: Attend, checks: ModuleType, reference: ModuleType
) -> None:
    """Weights that are all alike, and rows that see a single key: exponents from 0 to -300."""
    inputs = checks.draw(
        checks.problem((1, 2, 60, 80, 64), 40, dtype, scale=1.0 if spread > 1 else 0.125), spread=spread
    )
    outputs = attend(inputs)
    if spread > 1:
        # At scores of 1000 the last bit of FP32 is 6e-5: only what no rounding of scores explains is an error.
        weights = reference.attention_weights(inputs.q, inputs.k, inputs.key_length, 1.0)
        assert np.abs(outputs.importance - reference.importance(weights)).max() < 3e-3
        assert np.isfinite(outputs.context).all()
    else:
        checks.check(inputs, outputs, reference)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_sizes(
    data: st.DataObject, dtype: str, attend: Attend, checks: ModuleType, reference: ModuleType
) -> None:
    n, h, tq, tk, d = (
        data.draw(st.integers(1, most), label) for label, most in zip("NHQKD", (3, 3, 80, 150, 64), strict=True)
    )
    keep = data.draw(st.integers(1, tk + 2), "keep")
    lengths = data.draw(st.lists(st.integers(0, tk), min_size=n, max_size=n), "lengths")
    inputs = checks.draw(checks.problem((n, h, tq, tk, d), keep, dtype), lengths, data.draw(st.integers(0, 99), "seed"))
    checks.check(inputs, attend(inputs, processors=data.draw(st.sampled_from([1, 100]), "processors")), reference)


@pytest.mark.parametrize(
    ("sizes", "lengths", "keep"),
    [((3, 2, 20, 20, 16), (20, 9, 0), 10), ((2, 2, 50, 70, 32), (70, 12), 35), ((1, 1, 5, 6, 8), (6,), 6)],
)
def test_the_reference_computes_the_function(
    sizes: tuple[int, int, int, int, int],
    lengths: Sequence[int],
    keep: int,
    checks: ModuleType,
    reference: ModuleType,
    attend: Attend,
) -> None:
    """The ONNX function's body, the one definition, in ONNX Runtime; and the kernels against it without a detour."""
    inputs = checks.draw(checks.problem(sizes, keep), lengths)
    for array in (inputs.k, inputs.v):
        np.nan_to_num(array, copy=False)  # a portable graph multiplies padded keys by 0
    kinds = [onnx.TensorProto.FLOAT] * 3 + [onnx.TensorProto.INT32]
    node = helper.make_node(
        NAME, ["q", "k", "v", "l"], ["c", "i"], domain=DOMAIN, keep=keep, scale=inputs.problem.scale
    )
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(*x) for x in zip("qkvl", kinds, [a.shape for a in inputs.arrays], strict=True)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "ci"],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[key_sparse_function()])
    with open_engine(proto.SerializeToString()) as engine:
        found = engine.run(dict(zip("qkvl", inputs.arrays, strict=True)))
    weights = reference.attention_weights(inputs.q, inputs.k, inputs.key_length, inputs.problem.scale)
    sums = reference.importance(weights)
    context = reference.context(weights, reference.kept_keys(sums, keep), inputs.v)
    checks.assert_near(found["i"], sums, 1e-6)
    checks.assert_near(found["c"], context, 1e-6)
    outputs = attend(inputs)
    checks.assert_near(outputs.importance, found["i"], 1e-5)
    checks.assert_near(outputs.context, found["c"], 1e-5)
