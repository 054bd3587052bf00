from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edgeser.runtime.asr.whisper.alignment import (
    cheapest_path,
    looked_at,
    median_filter,
    token_rows,
    word_times,
)

COSTS = arrays(np.float64, st.tuples(st.integers(1, 7), st.integers(1, 9)), elements=st.floats(-5, 5, width=16))


def slow_cost(costs: NDArray[np.float64]) -> float:
    """The cheapest path's cost, cell by cell."""
    total = np.full((costs.shape[0] + 1, costs.shape[1] + 1), np.inf)
    total[0, 0] = 0.0
    for i, row in enumerate(costs, 1):
        for j, cost in enumerate(row, 1):
            total[i, j] = cost + min(total[i - 1, j - 1], total[i - 1, j], total[i, j - 1])
    return float(total[-1, -1])


@settings(max_examples=300, deadline=None)
@given(costs=COSTS)
def test_the_path_is_monotonic_whole_and_cheapest(costs: NDArray[np.float64]) -> None:
    tokens, rows = cheapest_path(costs)
    assert (tokens[0], rows[0]) == (0, 0)
    assert (tokens[-1], rows[-1]) == (costs.shape[0] - 1, costs.shape[1] - 1)
    steps = set(zip(np.diff(tokens), np.diff(rows), strict=True))
    assert steps <= {(0, 1), (1, 0), (1, 1)}
    assert costs[tokens, rows].sum() == pytest.approx(slow_cost(costs), abs=1e-9)


@pytest.mark.parametrize("shape", [(8, 5, 40), (2, 1, 7), (1, 1, 4)])
def test_the_median_filter_is_scipys(shape: tuple[int, ...]) -> None:
    from scipy.ndimage import median_filter as reference

    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    width = min(7, 2 * (shape[-1] - 1) + 1)  # nothing is reflected past the other end
    expected = reference(values, size=(1, 1, width), mode="mirror")
    np.testing.assert_array_equal(median_filter(values, 7), expected)


def diagonal(tokens: int, rows: int, sink: int) -> NDArray[np.float32]:
    """Each token looks at its own stretch, and all look much more at one row."""
    attention = np.full((2, tokens, rows), 1e-3, np.float32)
    for token in range(tokens):
        attention[:, token, token * rows // tokens : (token + 1) * rows // tokens] += 0.02
    attention[:, :, sink] += 0.5 + 0.01 * np.random.default_rng(0).random((2, tokens)).astype(np.float32)
    return attention


@pytest.mark.parametrize("sink", [0, 33, 99])
def test_tokens_are_found_in_spite_of_a_row_that_all_look_at(sink: int) -> None:
    attention = diagonal(5, 100, sink)
    assert (attention.argmax(axis=-1) == sink).all()
    np.testing.assert_allclose(token_rows(attention), [0, 20, 40, 60, 80], atol=4)
    assert [row // 20 for row in looked_at(attention)] == [0, 1, 2, 3, 4]


def test_one_token_and_one_row() -> None:
    assert token_rows(np.ones((3, 1, 10), np.float32)).tolist() == [0]
    assert token_rows(np.ones((3, 2, 1), np.float32)).tolist() == [0, 0]


def test_pauses_are_no_part_of_words() -> None:
    starts = np.array([0, 60, 75, 90, 105, 200])
    words = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    # Of 60, 15, 15, 15 and 95 rows the median is 15: none is longer than 30.
    assert word_times(starts, words) == [(30, 60), (60, 75), (75, 90), (90, 105), (105, 135)]
    assert word_times(starts[:2], [(0, 1)]) == [(0, 60)]
    assert word_times(np.array([0, 300]), [(0, 1)]) == [(230, 300)]
    assert word_times(np.array([7, 7, 7]), [(0, 1), (1, 2)]) == [(7, 7), (7, 7)]
