from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeser.calibration.histogram import BINS, Histogram
from edgeser.runtime.errors import InputError

RNG = np.random.default_rng(0)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
FLOAT64 = st.floats(allow_nan=False, allow_infinity=False)


def histogram_of(pieces: Iterable[NDArray[np.floating]]) -> Histogram:
    histogram = Histogram()
    for piece in pieces:
        histogram.add(piece)
    return histogram


def state(histogram: Histogram) -> tuple[object, ...]:
    return (histogram.width, histogram.low, histogram.high, histogram.total, histogram.counts.tolist())


@settings(max_examples=200, deadline=None)
@given(st.lists(FLOAT64 | FLOAT32, max_size=30), st.lists(st.integers(0, 30), max_size=5), st.randoms())
@example([5e-324, 1e-3], [1], None)  # the smallest float64 first: its own width would be 0
@example([0.0, 1.0, 1024.0, 0.0], [1, 2, 3], None)
def test_order_and_pieces_do_not_matter(values: list[float], cuts: list[int], random: Random | None) -> None:
    whole = histogram_of([np.array(values)])
    in_pieces = histogram_of(np.split(np.array(values), sorted(cuts)))
    assert state(in_pieces) == state(whole)
    if random is not None:
        random.shuffle(values)
    assert state(histogram_of(np.array([value]) for value in values)) == state(whole)


def test_a_corpus_in_any_order() -> None:
    """Clips whose peaks grow and shrink by turns, 200,000 values in all, of two types and several ranks."""
    clips = [(RNG.normal(size=(2, 50, 100)) * 4.0**power).astype(np.float32) for power in RNG.permutation(20) - 10]
    expected = state(histogram_of([np.concatenate([clip.ravel() for clip in clips])]))
    for order in (np.arange(20), np.arange(20)[::-1], RNG.permutation(20)):
        assert state(histogram_of(clips[place] for place in order)) == expected
    assert state(histogram_of(clip.astype(np.float64).T for clip in clips)) == expected


def check_plainly(histogram: Histogram, values: NDArray[np.float64]) -> None:
    """Compare with NumPy's own histogram of the same width, and the width with its definition."""
    peak = float(np.abs(values).max())
    assert peak < histogram.width * BINS <= 2 * peak
    assert np.frexp(histogram.width)[0] == 0.5, "not a power of two"
    expected, edges = np.histogram(np.abs(values), bins=BINS, range=(0.0, BINS * histogram.width))
    np.testing.assert_array_equal(histogram.counts, expected)
    np.testing.assert_array_equal(histogram.centres, (edges[:-1] + edges[1:]) / 2)
    assert (histogram.low, histogram.high) == (min(0.0, values.min()), max(0.0, values.max()))
    assert histogram.total == values.size
    assert histogram.peak == peak


@settings(max_examples=200, deadline=None)
@given(st.lists(FLOAT32, min_size=1, max_size=50).filter(any))
@example([1.0])  # a power of two is the first value of its bin
@example([1024.0, 0.5, 0.49, 1023.5])
@example([float(np.finfo(np.float32).max), -1.0])
@example([float(np.finfo(np.float32).smallest_subnormal), 0.0])
def test_counts_are_numpys(values: list[float]) -> None:
    check_plainly(histogram_of([np.array(values, np.float32)]), np.array(values))


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 7.0, 1e30])
def test_counts_of_many_are_numpys(scale: float) -> None:
    values = (RNG.laplace(size=100_000) * scale).astype(np.float32)
    check_plainly(histogram_of([values]), values.astype(np.float64))


def test_types() -> None:
    """The same numbers in float16, float32, float64 and int8; int8's -128 has a magnitude of 128."""
    values = np.array([-128, -3, 0, 5, 127])
    states = [state(histogram_of([values.astype(kind)])) for kind in (np.float16, np.float32, np.float64, np.int8)]
    assert states == states[:1] * 4
    assert states[0][1:4] == (-128.0, 127.0, 5)


@pytest.mark.parametrize("peak", [np.finfo(np.float64).max, 1e-310, 5e-324])
def test_the_ends_of_float64(peak: float) -> None:
    histogram = histogram_of([np.array([peak, -peak, 0.0])])
    assert histogram.counts.sum() == histogram.total == 3
    assert (histogram.low, histogram.high) == (-peak, peak)
    assert 0.0 < histogram.width < np.inf
    assert np.isfinite(histogram.centres).all()


def test_zeros_alone_have_no_width_and_stay_counted() -> None:
    histogram = histogram_of([np.zeros(3), np.full(2, -0.0, np.float32)])
    assert (histogram.width, histogram.total, histogram.counts[0]) == (0.0, 5, 5)
    assert str(histogram.peak) == "0.0"  # not -0.0
    assert not histogram.centres.any()
    histogram.add(np.array([-1.0]))
    assert (histogram.counts[0], histogram.counts.sum(), histogram.low, histogram.high) == (5, 6, -1.0, 0.0)


@pytest.mark.parametrize("empty", [np.zeros(0), np.zeros((3, 0, 2), np.float32)])
def test_nothing_changes_nothing(empty: NDArray[np.floating]) -> None:
    assert state(histogram_of([empty])) == state(Histogram())
    assert state(histogram_of([np.ones(2), empty])) == state(histogram_of([np.ones(2)]))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_that_are_not_finite(wrong: float, kind: type[np.floating]) -> None:
    """They are refused whole: what was counted before stays as it was."""
    histogram = histogram_of([np.array([1.0, -2.0])])
    before = state(histogram)
    with pytest.raises(InputError, match="got values that are not finite, expected finite ones: look for the clip"):
        histogram.add(np.array([[0.5, 100.0], [wrong, 0.0]], kind))
    assert state(histogram) == before


def test_memory_does_not_grow() -> None:
    histogram = Histogram()
    names = set(vars(histogram))
    for power in range(60):
        histogram.add(np.full(1000, 2.0**power, np.float32))
    assert set(vars(histogram)) == names
    arrays = [value for value in vars(histogram).values() if isinstance(value, np.ndarray)]
    assert [(array.shape, array.base) for array in arrays] == [((BINS,), None)]
    assert histogram.counts.sum() == histogram.total == 60_000


@settings(max_examples=200, deadline=None)
@given(st.lists(FLOAT32, min_size=1, max_size=50).filter(any), st.floats(0.0, 1.0))
def test_above_is_right_within_half_a_bin(values: list[float], share: float) -> None:
    histogram = histogram_of([np.array(values, np.float32)])
    magnitude = share * histogram.peak
    magnitudes = np.abs(np.array(values))
    at_least = (magnitudes >= magnitude + histogram.width / 2).sum()
    at_most = (magnitudes > magnitude - histogram.width / 2).sum()
    assert at_least <= histogram.above(magnitude) <= at_most


def test_above_by_hand() -> None:
    """Bins are 1 wide: 2000 lies between 1024 and 2048."""
    histogram = histogram_of([np.array([0.0, 10.2, -10.8, 11.0, -2000.0])])
    assert histogram.width == 1.0
    found = [histogram.above(magnitude) for magnitude in (0.0, 10.4, 10.5, 11.4, 1999.0, 2000.5)]
    assert found == [5, 4, 2, 2, 1, 0]


@pytest.mark.parametrize("values", [[1.0] * 5, [6.0, 0.1], [0.0], [-1.0001]])
def test_nothing_is_above_the_peak(values: Sequence[float]) -> None:
    """Even where the middle of the peak's bin is: min-max saturates nothing."""
    histogram = histogram_of([np.array(values)])
    assert histogram.above(histogram.peak) == 0
