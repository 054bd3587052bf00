"""Which rows of a recording are speech, and how loud it is, by power alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import Samples

_ACTIVE_DB = 30.0


def rows_of_speech(samples: Samples, hop: int, window: int, pause_db: float) -> NDArray[np.intp]:
    """Return the rows that are not pauses, in order: at least the loudest one.

    Args:
        samples: `(samples,)`, at least `window` of them.
        hop: Samples from one row to the next.
        window: Samples that a row stands for.
        pause_db: A row whose mean power is more than this under the loudest row's is a pause. Digital silence has none.
    """
    powers = _powers(samples, hop, window)
    return np.flatnonzero(powers >= powers.max() * 10.0 ** (-pause_db / 10.0))


def at_speech_level(samples: Samples, hop: int, window: int, lowest_db: float, highest_db: float) -> Samples:
    """Return samples whose speech has at least one level and at most another; between them they stay as they are.

    The level is the mean power of the rows without pauses, close to ITU-T P.56's active speech level.

    Args:
        samples: `(samples,)`, at least `window` of them.
        hop: Samples from one row to the next.
        window: Samples that a row stands for.
        lowest_db: dB under full scale (a square wave of 1); rows 30 dB under the loudest are pauses here.
        highest_db: Likewise; the same for one level whatever the recording's.

    Returns:
        `(samples,)` float32, not limited to -1 to 1. Digital silence stays as it is.
    """
    power = active_power(_powers(samples, hop, window))
    if power == 0.0:
        return samples
    level_db = 10.0 * np.log10(power)
    gain_db = min(max(level_db, lowest_db), highest_db) - level_db
    brought: Samples = samples * np.float32(10.0 ** (gain_db / 20.0))
    return brought


def active_power(powers: NDArray[np.float64]) -> float:
    """Return the mean of those powers of rows, at least one, that are at most 30 dB under the loudest: of speech."""
    return float(powers[powers >= powers.max() * 10.0 ** (-_ACTIVE_DB / 10.0)].mean())


def _powers(samples: Samples, hop: int, window: int) -> NDArray[np.float64]:
    """Return the mean power of each row."""
    starts = np.arange(0, samples.shape[0] - window + 1, hop)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    powers: NDArray[np.float64] = np.maximum(energy[starts + window] - energy[starts], 0.0) / window
    return powers
