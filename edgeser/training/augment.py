"""Augmentation of log-mel energies, of encoder rows and of words, drawn afresh for every sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.frontends import Rows, Statistics

_NEPER_PER_DB = np.log(10.0) / 10.0  # natural log of power, per decibel


@dataclass(frozen=True)
class LogMelAugmentation:
    """How far the audio of a training sample may be moved.

    Attributes:
        speeds: Playing speeds to draw from.
        gain_db: Level, at most this far up or down.
        vocal_tract: Frequency axis stretched or squeezed by at most this share (another speaker's vocal tract).
        noise_share: Share of the samples that get noise.
        noise_snr_db: Lowest and highest signal-to-noise ratio.
        start_rows: At most so many rows cut from the start.
        time_masks: How many spans of time are masked (SpecAugment).
        time_mask_rows: Longest of them.
        frequency_masks: How many bands are masked.
        frequency_mask_bins: Widest of them.
    """

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)
    gain_db: float = 6.0
    vocal_tract: float = 0.1
    noise_share: float = 0.3
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    start_rows: int = 20
    time_masks: int = 2
    time_mask_rows: int = 40
    frequency_masks: int = 2
    frequency_mask_bins: int = 12

    def rows(self, energies: Rows, statistics: Statistics, rng: np.random.Generator) -> Rows:
        """Turn `(n, bins)` log energies into augmented, normalised rows."""
        return self.mask(statistics.normalise(self.energies(energies, rng)), rng)

    def energies(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Change speaker, level, noise and start of `(n, bins)` log energies."""
        rows = rows[rng.integers(0, min(self.start_rows, rows.shape[0] // 2) + 1) :]
        rows = stretch_bins(rows, 1.0 + rng.uniform(-self.vocal_tract, self.vocal_tract))
        rows = rows + np.float32(rng.uniform(-self.gain_db, self.gain_db) * _NEPER_PER_DB)
        if rng.random() < self.noise_share:
            rows = add_noise(rows, rng.uniform(*self.noise_snr_db), rng)
        moved: Rows = rows.astype(np.float32)
        return moved

    def mask(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Set random spans and bands of normalised `(n, bins)` rows to their mean, 0 (SpecAugment)."""
        rows = rows.copy()
        for _ in range(self.time_masks):
            width = int(rng.integers(0, min(self.time_mask_rows, rows.shape[0] // 4) + 1))
            start = int(rng.integers(0, rows.shape[0] - width + 1))
            rows[start : start + width] = 0.0
        for _ in range(self.frequency_masks):
            width = int(rng.integers(0, self.frequency_mask_bins + 1))
            start = int(rng.integers(0, rows.shape[1] - width + 1))
            rows[:, start : start + width] = 0.0
        return rows


@dataclass(frozen=True)
class EncoderAugmentation:
    """How far the rows of a pretrained encoder may be moved.

    Attributes:
        speeds: Playing speeds to draw from. One is the default: faster, louder, filtered or noisy copies of the
            proxy corpus made the model worse (`docs/results.md`), since level, pitch and pace are what it listens to.
        spans: How many spans of time are cut out.
        span_rows: Longest of them.
    """

    speeds: tuple[float, ...] = (1.0,)
    spans: int = 2
    span_rows: int = 20

    def rows(self, rows: Rows, statistics: Statistics, rng: np.random.Generator) -> Rows:
        """Cut random spans out of `(n, dim)` rows, at most a quarter of them each, and normalise what stays."""
        for _ in range(self.spans):
            width = int(rng.integers(0, min(self.span_rows, rows.shape[0] // 4) + 1))
            start = int(rng.integers(0, rows.shape[0] - width + 1))
            rows = np.delete(rows, slice(start, start + width), axis=0)
        return statistics.normalise(rows)


def stretch_bins(rows: Rows, factor: float) -> Rows:
    """Read bin `b * factor` where bin `b` was, between bins in a straight line."""
    bins = rows.shape[1]
    position = np.clip(np.arange(bins) * factor, 0, bins - 1)
    low = np.minimum(position.astype(int), bins - 2)
    share = (position - low).astype(np.float32)
    stretched: Rows = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    return stretched


def add_noise(rows: Rows, snr_db: float, rng: np.random.Generator) -> Rows:
    """Add stationary noise with a random spectral tilt to log energies, at a ratio to their mean power."""
    bins = rows.shape[1]
    level = np.log(np.exp(rows).mean()) - snr_db * _NEPER_PER_DB
    tilt = np.linspace(-1.0, 1.0, bins) * rng.uniform(-2.0, 2.0)
    grain = rng.normal(0.0, 0.3, rows.shape)
    noisy: Rows = np.logaddexp(rows, level + tilt + grain).astype(np.float32)
    return noisy


def keep_rows(count: int, share: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return which of `count` rows stay when each is left out with a probability: in order, and never none of them."""
    kept = np.flatnonzero(rng.random(count) >= share)
    return kept if kept.size else np.arange(count)
