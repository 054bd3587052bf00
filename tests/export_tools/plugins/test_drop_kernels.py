"""Drop attention's CUDA kernels, their own source, emulated on the CPU, against the paper's equations.

What they share with key-sparse attention's, `test_attention_kernels` tests at more sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Attend = Callable[..., Any]
TYPES = pytest.mark.parametrize("dtype", ["float32", "float16"])
FIRST, LAST = (0, 2), (0, 1, 3)  # the offsets of DropFormer's first and last two layers


@TYPES
@pytest.mark.parametrize(
    ("sizes", "lengths", "keep", "offsets"),
    [
        pytest.param((1, 1, 1, 32), (), 1, FIRST, id="one row"),
        pytest.param((2, 2, 20, 16), (20, 7), 2, LAST, id="20 rows"),
        pytest.param((2, 1, 230, 64), (230, 65), 23, FIRST, id="230 frames"),
        pytest.param((1, 1, 460, 64), (401,), 46, LAST, id="460 frames"),
        pytest.param((1, 1, 100, 64), (97,), 0, FIRST, id="static mask"),
        pytest.param((1, 1, 100, 64), (97,), 30, (), id="dynamic mask"),
        pytest.param((1, 1, 200, 64), (180,), 10, (1, 31, 62, 63), id="far offsets"),
        pytest.param((1, 1, 50, 37), (50,), 5, LAST, id="odd width"),
    ],
)
def test_sizes(
    sizes: tuple[int, int, int, int],
    lengths: Sequence[int],
    keep: int,
    offsets: tuple[int, ...],
    dtype: str,
    attend: Attend,
    checks: ModuleType,
    reference: ModuleType,
) -> None:
    inputs = checks.draw(checks.drop_problem(sizes, keep, offsets, dtype), lengths)
    checks.check(inputs, attend(inputs), reference)


@TYPES
@pytest.mark.parametrize("offsets", [FIRST, ()])
@pytest.mark.parametrize("keep", [1, 39, 40, 1000])
def test_keep(
    keep: int, offsets: tuple[int, ...], dtype: str, attend: Attend, checks: ModuleType, reference: ModuleType
) -> None:
    """From one row to more than there are, with 25 valid rows in one sample, so that 39 is more than these."""
    inputs = checks.draw(checks.drop_problem((2, 2, 40, 32), keep, offsets, dtype), (40, 25))
    outputs = attend(inputs)
    checks.check(inputs, outputs, reference)
    assert [len(row) for row in outputs.kept] == [min(keep, 40)] * 2 + [min(keep, 25)] * 2


@TYPES
def test_padding_gives_zeros(dtype: str, attend: Attend, checks: ModuleType, reference: ModuleType) -> None:
    """Never NaN, although all padded rows are; a length out of range is cut to it."""
    inputs = checks.draw(checks.drop_problem((5, 2, 70, 32), 7, LAST, dtype), (0, 70, -3, 500, 1))
    outputs = attend(inputs)
    checks.check(inputs, outputs, reference)
    for sample, length in enumerate((0, 70, 0, 70, 1)):
        assert not outputs.context[sample, :, length:].any()
        assert not outputs.importance[sample, :, length:].any()


def test_equal_rows_stay_or_go_together(attend: Attend, checks: ModuleType, reference: ModuleType) -> None:
    """Their sums are equal to the last bit, wherever they lie in tiles; so `keep` may be exceeded, by one."""
    inputs = checks.draw(checks.drop_problem((1, 2, 90, 64), 11, FIRST))
    inputs.k[:, :, 45:] = inputs.k[:, :, :45]
    outputs = attend(inputs)
    checks.check(inputs, outputs, reference)
    for row in outputs.kept:
        assert len(row) == 12
        assert set(row) == set((row + 45) % 90)


@TYPES
def test_no_thread_waits_for_luck(dtype: str, attend: Attend, checks: ModuleType) -> None:
    """Whichever thread runs first, and whether blocks have 32 rows or 64, the last bit is the same."""
    inputs = checks.draw(checks.drop_problem((1, 2, 130, 32), 20, LAST, dtype), (120,))
    first = attend(inputs)
    for processors, order in ((1, "reversed"), (1, "warp by warp"), (1000, "in turn"), (1000, "warp by warp")):
        other = attend(inputs, processors=processors, order=order)
        np.testing.assert_array_equal(first.importance, other.importance)
        # Blocks of other rows meet the same keys in other tiles: their products are rounded elsewhere.
        checks.assert_near(other.context, first.context.astype(np.float64), checks.TOLERANCE[dtype])
        if processors == 1:
            np.testing.assert_array_equal(first.context, other.context)


@TYPES
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_sizes(
    data: st.DataObject, dtype: str, attend: Attend, checks: ModuleType, reference: ModuleType
) -> None:
    n, h, t, d = (data.draw(st.integers(1, most), label) for label, most in zip("NHTD", (3, 3, 150, 64), strict=True))
    offsets = tuple(data.draw(st.sets(st.integers(0, 63), max_size=4), "offsets"))
    keep = data.draw(st.integers(0 if offsets else 1, t + 2), "keep")
    lengths = data.draw(st.lists(st.integers(0, t), min_size=n, max_size=n), "lengths")
    problem = checks.drop_problem((n, h, t, d), keep, offsets, dtype)
    inputs = checks.draw(problem, lengths, data.draw(st.integers(0, 99), "seed"))
    checks.check(inputs, attend(inputs, processors=data.draw(st.sampled_from([1, 100]), "processors")), reference)
