"""A few rows of an activation, all channels of them, and the peak of every channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_EACH = 8  # rows kept of a run, so that 128 utterances give 1,024
_MOST = 1024


class RowSample:
    """Keeps rows from all over a corpus, at places that a fixed seed draws.

    Args:
        axis: The channels' axis.

    Attributes:
        peaks: Largest magnitude of each channel `(channels,)`; 0 before the first row.
    """

    def __init__(self, axis: int) -> None:
        self.peaks: NDArray[np.float32] = np.zeros(1, dtype=np.float32)
        self._axis = axis
        self._rng = np.random.default_rng(0)
        self._kept: list[NDArray[np.float32]] = []

    @property
    def rows(self) -> NDArray[np.float32]:
        """What was kept, `(rows, channels)`."""
        return np.concatenate(self._kept)[:_MOST]

    def add(self, values: NDArray[Any]) -> None:
        """Take rows of an activation of any rank, and count its peaks."""
        if values.size == 0:
            return
        rows = np.moveaxis(values, self._axis, -1).reshape(-1, values.shape[self._axis])
        self.peaks = np.maximum(self.peaks, np.abs(rows).max(axis=0))
        if sum(map(len, self._kept)) < _MOST:
            self._kept.append(rows[self._rng.permutation(len(rows))[:_EACH]].astype(np.float32))
