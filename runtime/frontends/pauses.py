"""Which rows of a recording are speech and which are pauses, by level alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.audio import Samples


def rows_of_speech(samples: Samples, hop: int, window: int, pause_db: float) -> NDArray[np.intp]:
    """Return the rows that are not pauses, in order: at least the loudest one.

    Args:
        samples: `(samples,)`, at least `window` of them.
        hop: Samples from one row to the next.
        window: Samples that a row stands for.
        pause_db: A row whose mean power is more than this under the loudest row's is a pause. Digital silence has none.
    """
    starts = np.arange(0, samples.shape[0] - window + 1, hop)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    powers = energy[starts + window] - energy[starts]
    return np.flatnonzero(powers >= powers.max() * 10.0 ** (-pause_db / 10.0))
