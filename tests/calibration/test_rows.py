from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeser.calibration.rows import RowSample
from edgeser.runtime.audio import Samples
from edgeser.runtime.frontends import LogMel

CHANNELS = 5


def activation(seed: int, *shape: int) -> NDArray[np.float32]:
    """Rows `(…, channels)` of which no two are alike, channels of different sizes."""
    sizes = np.array([1.0, 10.0, 0.1, 3.0, 100.0])
    return (np.random.default_rng(seed).normal(size=(*shape, CHANNELS)) * sizes).astype(np.float32)


def sample_of(activations: list[NDArray[np.float32]], axis: int = -1) -> RowSample:
    sample = RowSample(axis)
    for values in activations:
        sample.add(values)
    return sample


def places(rows: NDArray[np.float32], among: NDArray[np.float32]) -> list[int]:
    """Where each row stands among others; fails for one that does not, or stands there twice."""
    index = {row.tobytes(): place for place, row in enumerate(among)}
    assert len(index) == len(among)
    return [index[row.tobytes()] for row in rows]


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_the_same_rows_wherever_the_channels_stand(axis: int) -> None:
    """`(N, T, C)`, `(N, C, T)` and `(C, N, T)` of the same numbers."""
    values = [activation(seed, 2, 30) for seed in range(3)]
    expected = sample_of(values)
    moved = sample_of([np.moveaxis(value, -1, axis) for value in values], axis)
    np.testing.assert_array_equal(moved.rows, expected.rows)
    np.testing.assert_array_equal(moved.peaks, expected.peaks)
    places(moved.rows, np.concatenate(values).reshape(-1, CHANNELS))


@pytest.mark.parametrize("shape", [(40,), (1, 40), (2, 4, 5)])
def test_any_rank(shape: tuple[int, ...]) -> None:
    values = activation(0, *shape)
    sample = sample_of([values])
    assert len(set(places(sample.rows, values.reshape(-1, CHANNELS)))) == len(sample.rows) == 8
    assert sample.rows.dtype == np.float32


def test_rows_come_from_all_over() -> None:
    """Of 64 runs of 100 rows, 8 each, none twice; the places' mean is 49.5, its deviation 28.9 / sqrt(512) = 1.3."""
    runs = [activation(seed, 1, 100) for seed in range(64)]
    found = np.array(places(sample_of(runs).rows, np.concatenate(runs, axis=1)[0]))
    assert (np.bincount(found // 100) == 8).all()
    assert len(set(found)) == 512
    assert abs((found % 100).mean() - 49.5) < 5.0
    assert len(set(found % 100)) > 90


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_peaks_are_exact_and_so_is_the_count(lengths: list[int]) -> None:
    """Peaks are of every row, those not kept among them."""
    runs = [activation(seed, 1, length) for seed, length in enumerate(lengths)]
    sample = sample_of(runs)
    np.testing.assert_array_equal(sample.peaks, np.abs(np.concatenate(runs, axis=1)[0]).max(axis=0))
    assert sample.rows.shape == (sum(min(length, 8) for length in lengths), CHANNELS)


@pytest.mark.parametrize("length", [1, 3, 8, 50])
def test_at_most_1024_rows_but_peaks_of_all(length: int) -> None:
    """Also where a run gives fewer than 8, so that 1,024 is passed in the middle of one."""
    runs = [activation(seed, 1, length) for seed in range(400)]
    runs += [activation(1000, 1, 7), 1000 * activation(1001, 1, 20)]
    sample = sample_of(runs)
    expected = min(1024, 400 * min(length, 8) + 7 + 8)
    assert sample.rows.shape == (expected, CHANNELS)
    np.testing.assert_array_equal(sample.peaks, np.abs(runs[-1]).max(axis=(0, 1)))
    kept = sum(rows.nbytes for rows in sample._kept)
    assert kept <= (1024 + 8) * CHANNELS * 4, "memory grows"


def test_a_later_run_without_room_changes_no_row() -> None:
    runs = [activation(seed, 1, 20) for seed in range(140)]
    np.testing.assert_array_equal(sample_of(runs).rows, sample_of(runs[:128]).rows)


def test_real_features_twice(speech: Samples) -> None:
    """The same rows on every run of the program, and its own copies."""
    features = LogMel(40).extract(speech)[np.newaxis]
    before = features.copy()
    first, second = sample_of([features, -features]), sample_of([features, -features])
    np.testing.assert_array_equal(first.rows, second.rows)
    features[:] = 0
    np.testing.assert_array_equal(first.rows, second.rows)
    assert not np.array_equal(first.rows[:8], -first.rows[8:])
    np.testing.assert_array_equal(first.peaks, np.abs(before).max(axis=(0, 1)))


def test_nothing_changes_nothing() -> None:
    sample = sample_of([activation(0, 1, 0), activation(1, 1, 9), activation(2, 0, 4)])
    np.testing.assert_array_equal(sample.rows, sample_of([activation(1, 1, 9)]).rows)
    np.testing.assert_array_equal(sample.peaks, np.abs(activation(1, 1, 9)).max(axis=(0, 1)))


def test_before_the_first_row() -> None:
    assert not RowSample(-1).peaks.any()
