"""When each token was said: from what the decoder looked at, by dynamic time warping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
MEDIAN_WIDTH = 7  # rows, as Whisper's authors have it
_LONG_WORD = 35  # rows, 0.7 s: no median is above it
_SHORT_WORD = 5  # rows: a median below says that the words were not found


def token_rows(attention: Array) -> NDArray[np.intp]:
    """Return the row at which each token begins, `(tokens,)`, never going back.

    As Whisper's authors find it: every head's attention in standard deviations over the tokens, smoothed by a median
    over 7 rows, the mean over the heads, and the cheapest monotonic path through it.

    Args:
        attention: `(heads, tokens, rows)`, at least one of each: what each alignment head looked at when the token was
            said.
    """
    token, row = cheapest_path(-median_filter(_standardised(attention), MEDIAN_WIDTH).mean(axis=0))
    starts = np.flatnonzero(np.diff(token, prepend=-1))
    return row[starts]


def word_times(starts: NDArray[np.intp], words: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return each word's first row and the row after its last.

    A token begins where the one before it ends, so pauses belong to words, and the silence at both ends to the first
    and the last. As Whisper's authors do, no word is longer than twice the median: what is more is a pause, before the
    first word and behind the others.

    Args:
        starts: Of each token, and of one more that follows them.
        words: The first token of each, and the one that follows its sound: its marks are found in the silence.
    """
    times = [(int(starts[first]), int(starts[after])) for first, after in words]
    longest = 2 * min(_LONG_WORD, int(np.median([end - start for start, end in times])))
    if longest < _SHORT_WORD:
        return times
    kept = [(start, min(end, start + longest)) for start, end in times]
    first, end = times[0]
    kept[0] = (max(first, end - longest), end)
    return kept


def looked_at(attention: Array) -> list[int]:
    """Return the row that each token looked at more than the others did, with no order enforced; as `token_rows`."""
    return [int(row) for row in _standardised(attention).mean(axis=0).argmax(axis=-1)]


def _standardised(attention: Array) -> Array:
    """Take out what all tokens look at: a row or two that hold the whole utterance rather than a sound."""
    deviation = attention.std(axis=1, keepdims=True)
    scores: Array = (attention - attention.mean(axis=1, keepdims=True)) / np.maximum(deviation, 1e-9)
    return scores


def median_filter(values: Array, width: int) -> Array:
    """Return the median of `width` (odd) neighbours along the last axis, reflected at the ends."""
    reach = min(width // 2, values.shape[-1] - 1)
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(reach, reach)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=-1)
    median: Array = np.partition(windows, reach, axis=-1)[..., reach]
    return median


def cheapest_path(costs: NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the cheapest monotonic path from the first to the last of both axes, as indices of both.

    Args:
        costs: `(tokens, rows)`; each step goes to the next token, the next row, or both.
    """
    tokens, rows = costs.shape
    total = np.full((tokens + 1, rows + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(tokens):
        # total[j] = costs[j] + min(above[j], total[j - 1]): with the sums of costs taken out, a running minimum.
        above = np.minimum(total[i, :-1], total[i, 1:])
        sums = np.cumsum(costs[i], dtype=np.float64)
        total[i + 1, 1:] = np.minimum.accumulate(above - (sums - costs[i])) + sums
    i, j = tokens, rows
    path = []
    while i and j:
        path.append((i - 1, j - 1))
        both, token, row = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        if both <= token and both <= row:
            i, j = i - 1, j - 1
        elif token <= row:
            i -= 1
        else:
            j -= 1
    places = np.array(path[::-1], dtype=np.intp)
    return places[:, 0], places[:, 1]
