from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.frontends import Statistics
from edgeser.training.augment import EncoderAugmentation, LogMelAugmentation, add_noise, keep_rows, stretch_bins


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 400), seed=st.integers(0, 1000))
def test_any_length_stays_finite_and_no_longer(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    energies = rng.normal(-8.0, 3.0, (rows, 80)).astype(np.float32)
    augmentation = LogMelAugmentation()
    moved = augmentation.energies(energies, rng)
    masked = augmentation.mask(moved, rng)
    assert moved.dtype == masked.dtype == np.float32
    assert 1 <= moved.shape[0] <= rows
    assert masked.shape == moved.shape
    assert np.isfinite(masked).all()


def test_stretching_by_one_changes_nothing_and_moves_a_peak() -> None:
    rows = np.zeros((1, 80), np.float32)
    rows[0, 40] = 1.0
    np.testing.assert_array_equal(stretch_bins(rows, 1.0), rows)
    assert stretch_bins(rows, 0.8).argmax() == 50


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_comes_at_the_stated_ratio(snr_db: float) -> None:
    rng = np.random.default_rng(0)
    signal = np.zeros((2000, 80), np.float32)  # power 1 in every bin
    ratios = []
    for _ in range(20):
        noise_power = np.exp(add_noise(signal, snr_db, rng)) - 1.0
        ratios.append(-10 * np.log10(np.median(noise_power)))
    assert np.mean(ratios) == pytest.approx(snr_db, abs=1.0)


def test_dropping_words_never_drops_all() -> None:
    rng = np.random.default_rng(0)
    assert keep_rows(6, 0.0, rng).tolist() == list(range(6))
    kept = [keep_rows(6, 0.9, rng) for _ in range(50)]
    assert all(rows.size >= 1 and (np.diff(rows) > 0).all() and rows[-1] < 6 for rows in kept)
    assert len({rows.size for rows in kept}) > 1
    assert keep_rows(0, 0.5, rng).size == 0


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 460), seed=st.integers(0, 1000))
def test_spans_are_cut_out_of_encoder_rows_and_the_rest_stays(count: int, seed: int) -> None:
    rows = np.arange(count, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    kept = EncoderAugmentation().rows(rows, Statistics.none(3), np.random.default_rng(seed))
    assert count - 40 <= kept.shape[0] <= count
    assert kept.shape[0] >= min(1, count)
    assert (np.diff(kept[:, 0]) > 0).all()
