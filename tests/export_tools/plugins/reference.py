"""Key-sparse and drop attention as their papers write them, slow and plain, in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


def attention_weights(q: NDArray[Any], k: NDArray[Any], key_length: NDArray[np.int32], scale: float) -> Doubles:
    """Equation 1: softmax(q k^T * scale) over the valid keys of each sample, `(N, H, Tq, Tk)`; padded keys weigh 0."""
    samples, heads, queries, keys = *q.shape[:3], k.shape[2]
    weights = np.zeros((samples, heads, queries, keys))
    for sample in range(samples):
        length = int(np.clip(key_length[sample], 0, keys))
        if length == 0:
            continue
        for head in range(heads):
            scores = q[sample, head].astype(np.float64) @ k[sample, head, :length].astype(np.float64).T * scale
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights[sample, head, :, :length] = powers / powers.sum(axis=1, keepdims=True)
    return weights


def importance(weights: NDArray[Any]) -> Doubles:
    """Section 2.1.2: how much attention each key gets from all queries together, `(N, H, Tk)`."""
    return weights.astype(np.float64).sum(axis=2)


def kept_keys(sums: Doubles, keep: int) -> Mask:
    """Section 2.1.2: the keys whose sum is not below the `keep`-th largest, `(N, H, Tk)`."""
    descending = -np.sort(-sums, axis=-1)
    thresholds = descending[..., keep - 1 : keep] if keep <= sums.shape[-1] else np.zeros((*sums.shape[:2], 1))
    return np.asarray(sums >= thresholds)


def context(weights: Doubles, kept: Mask, v: NDArray[Any]) -> Doubles:
    """Equation 3: the weights of the keys that stay, not renormalised, times the values, `(N, H, Tq, D)`."""
    return np.asarray((weights * kept[:, :, None, :]) @ v.astype(np.float64))


def without_padded_queries(weights: Doubles, length: NDArray[np.int32]) -> Doubles:
    """In drop attention, queries are the keys' rows: where they are padding, they weigh nothing and do not vote."""
    valid = np.arange(weights.shape[2]) < np.asarray(length)[:, None]
    return np.asarray(weights * valid[:, None, :, None])


def drop_mask(kept: Mask, offsets: Sequence[int]) -> Mask:
    """DropFormer's equations 2 and 3: between rows that both are kept, or one of the offsets apart, `(N, H, T, T)`."""
    place = np.arange(kept.shape[-1])
    static = np.isin(np.abs(place[:, None] - place), list(offsets))
    return np.asarray(kept[:, :, :, None] & kept[:, :, None, :] | static)


def drop_context(weights: Doubles, mask: Mask, v: NDArray[Any]) -> Doubles:
    """DropFormer's equation 4, `(N, H, T, D)`."""
    return np.asarray((weights * mask) @ v.astype(np.float64))
