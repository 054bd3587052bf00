"""From a histogram of activations to the range that INT8 covers: min-max, percentile, entropy, mean squared error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.calibration.histogram import BINS, Histogram
from edgeser.runtime.errors import InputError

LEVELS = 128  # magnitudes that signed INT8 tells apart: 0 to 127
_CANDIDATES = 100  # thresholds that the searches try


@dataclass(frozen=True)
class Range:
    """What INT8 codes stand for: `low` to `high`, 0 among them; what lies outside saturates."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """The larger side; symmetric codes span from its negative to it."""
        return max(self.high, -self.low)


@dataclass(frozen=True)
class Method:
    """How ranges are found.

    Attributes:
        name: One of `METHODS`.
        percentile: With `percentile`: the share of magnitudes inside, in percent, above 0 and at most 100.
    """

    name: str = "minmax"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise InputError(f"--method: got {self.name!r}, expected one of {', '.join(METHODS)}")
        if not 0.0 < self.percentile <= 100.0:
            raise InputError(
                f"--percentile: got {self.percentile}, expected above 0 and at most 100, for example 99.99"
            )

    def range(self, histogram: Histogram) -> Range:
        """Return the range for an activation; outliers beyond the method's threshold are cut on both sides.

        Raises:
            InputError: The histogram is empty.
        """
        if histogram.total == 0:
            raise InputError("ranges: got no activations, expected at least one utterance's")
        threshold = METHODS[self.name](histogram, self)
        return Range(max(histogram.low, -threshold), min(histogram.high, threshold))


def _minmax(histogram: Histogram, method: Method) -> float:
    """Everything is inside."""
    return histogram.peak


def _percentile(histogram: Histogram, method: Method) -> float:
    """The upper edge of the first bin up to which at least `percentile` percent of the magnitudes lie."""
    inside = np.cumsum(histogram.counts)
    needed = histogram.total * (method.percentile / 100.0)
    place = int(np.searchsorted(inside, needed))
    return min((place + 1) * histogram.width, histogram.peak) if histogram.width else 0.0


def _entropy(histogram: Histogram, method: Method) -> float:
    """The threshold whose quantized distribution tells most about the real one (Migacz, GTC 2017).

    For each candidate number of bins: the reference P is the histogram cut there, with what lies beyond in its last
    bin; Q is the histogram cut there without that, merged into `LEVELS` levels and spread again evenly over the bins
    that were not empty. The candidate with the smallest Kullback-Leibler divergence of P from Q wins.
    """
    if histogram.width == 0.0:
        return 0.0
    used = min(int(histogram.peak / histogram.width) + 1, BINS)
    best, best_divergence = used, np.inf
    # A cut behind an empty bin would have the whole outside where Q has nothing: candidates end on filled ones.
    ends = np.flatnonzero(histogram.counts[:used]) + 1
    ends = ends[ends >= min(LEVELS, used)]
    for bins in ends[_steps(0, len(ends) - 1)]:
        divergence = _divergence(histogram.counts, bins)
        if divergence < best_divergence:
            best, best_divergence = bins, divergence
    return min(int(best) * histogram.width, histogram.peak)


def _steps(first: int, last: int) -> NDArray[np.int64]:
    """Return up to `_CANDIDATES` whole numbers from first to last, both among them; the last alone where it is less."""
    if last <= first:
        return np.array([last])
    return np.unique(np.linspace(first, last, _CANDIDATES).round().astype(np.int64))


def _divergence(counts: NDArray[np.int64], bins: int) -> float:
    reference = counts[:bins].astype(np.float64)
    merged_into = np.arange(bins) * LEVELS // bins
    filled = reference > 0
    sums = np.bincount(merged_into, weights=reference, minlength=LEVELS)
    places = np.bincount(merged_into, weights=filled.astype(np.float64), minlength=LEVELS)
    spread = np.where(filled, (sums / np.maximum(places, 1.0))[merged_into], 0.0)
    reference[-1] += counts[bins:].sum()
    if spread.sum() == 0.0 or (spread[-1] == 0.0 and reference[-1] > 0.0):
        return float("inf")
    p, q = reference / reference.sum(), spread / spread.sum()
    inside = p > 0
    return float((p[inside] * np.log(p[inside] / q[inside])).sum())


def _mse(histogram: Histogram, method: Method) -> float:
    """The threshold with the smallest mean squared error of rounding inside it and cutting beyond it.

    Magnitudes count as the middle of their bin.
    """
    if histogram.width == 0.0:
        return 0.0
    thresholds = histogram.peak * np.linspace(1.0 / _CANDIDATES, 1.0, _CANDIDATES)
    errors = [_squared_error(histogram, threshold) for threshold in thresholds]
    return float(thresholds[int(np.argmin(errors))])


def _squared_error(histogram: Histogram, threshold: float) -> float:
    step = threshold / (LEVELS - 1)
    codes = np.minimum(np.rint(histogram.centres / step), LEVELS - 1)
    errors = histogram.centres - codes * step
    return float((histogram.counts * (errors * errors)).sum() / histogram.total)


METHODS: Mapping[str, Callable[[Histogram, Method], float]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
"""The threshold of magnitudes, by name of the method."""
