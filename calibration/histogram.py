"""A histogram of magnitudes that grows with its data and never keeps them."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError

BINS = 2048


class Histogram:
    """How often each magnitude |x| occurs, in `BINS` equal bins from 0, beside the smallest and largest x.

    The width of a bin is a power of two; when a larger magnitude comes, it doubles and neighbours merge. So the result
    depends on the values alone, not on the order or the pieces in which they came.

    Attributes:
        counts: `(BINS,)` int64; bin i holds `i * width <= |x| < (i + 1) * width`.
        width: Width of a bin; 0 before the first value other than 0.
        low: Smallest value, at most 0: ranges always contain 0.
        high: Largest value, at least 0.
        total: How many values came.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, dtype=np.int64)
        self.width = 0.0
        self.low = 0.0
        self.high = 0.0
        self.total = 0

    @property
    def peak(self) -> float:
        """The largest magnitude."""
        return max(self.high, -self.low)

    @property
    def centres(self) -> NDArray[np.float64]:
        """`(BINS,)` the magnitude in the middle of each bin."""
        middles: NDArray[np.float64] = (np.arange(BINS, dtype=np.float64) + 0.5) * self.width
        return middles

    def add(self, values: NDArray[Any]) -> None:
        """Count values of any shape.

        Raises:
            InputError: Some are not finite.
        """
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise InputError("got values that are not finite, expected finite ones: look for the clip that gives them")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.total += values.size
        if self.peak == 0.0:
            self.counts[0] += values.size
            return
        self._widen()
        places = (np.abs(values.ravel().astype(np.float64)) / self.width).astype(np.int64)
        self.counts += np.bincount(places, minlength=BINS)

    def above(self, magnitude: float) -> int:
        """Return about how many values are larger than a magnitude: whole bins by their middle, none from the peak."""
        return int(self.counts[self.centres > magnitude].sum()) if magnitude < self.peak else 0

    def _widen(self) -> None:
        """Make the bins wide enough for the peak."""
        # The quotient of a float64 below 1e-320 is 0, and a width for that would never fit what comes later.
        needed = _power_of_two_above(max(self.peak / BINS, sys.float_info.min))
        if self.width == 0.0:
            self.width = needed
            return
        while self.width < needed:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, dtype=np.int64)])
            self.width *= 2.0


def _power_of_two_above(value: float) -> float:
    """Return the smallest power of two that is larger than a value above 0."""
    _, exponent = math.frexp(value)
    return math.ldexp(1.0, exponent)
