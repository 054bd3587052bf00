"""Inputs for the attention kernels, and whether what came out is what `reference` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.export_tools.plugins.launches import AttentionProblem, DropProblem

TOLERANCE = {"float32": 1e-5, "float16": 2e-3}  # of the largest value


@dataclass(frozen=True)
class Inputs:
    """What one attention is computed from."""

    problem: AttentionProblem
    q: NDArray[Any]
    k: NDArray[Any]
    v: NDArray[Any]
    key_length: NDArray[np.int32]

    @property
    def arrays(self) -> list[NDArray[Any]]:
        return [self.q, self.k, self.v, self.key_length]


@dataclass(frozen=True)
class Outputs:
    """What came of it; `kept` has places of keys for each sample and head."""

    context: NDArray[Any]
    importance: NDArray[Any]
    kept: list[NDArray[np.int32]]


def problem(
    sizes: tuple[int, int, int, int, int], keep: int, dtype: str = "float32", scale: float | None = None
) -> AttentionProblem:
    """A problem of the sizes N, H, Tq, Tk, D."""
    return AttentionProblem(*sizes, keep, sizes[-1] ** -0.5 if scale is None else scale, dtype == "float16")


def drop_problem(
    sizes: tuple[int, int, int, int],
    keep: int,
    offsets: tuple[int, ...],
    dtype: str = "float32",
    scale: float | None = None,
) -> DropProblem:
    """A problem of the sizes N, H, T, D."""
    n, h, t, d = sizes
    return DropProblem(n, h, t, t, d, keep, d**-0.5 if scale is None else scale, dtype == "float16", offsets)


def draw(given: AttentionProblem, lengths: Sequence[int] = (), seed: int = 0, spread: float = 1.5) -> Inputs:
    """Normal numbers; what lies past a sample's length is NaN, which must not get into any result."""
    rng = np.random.default_rng(seed)
    dtype = np.float16 if given.is_half else np.float32
    n, h, tq, tk, d = given.batch, given.heads, given.queries, given.keys, given.dim
    q, k, v = (rng.normal(0.0, spread, size).astype(dtype) for size in ((n, h, tq, d), (n, h, tk, d), (n, h, tk, d)))
    key_length = np.array(list(lengths) or [tk] * n, np.int32)
    for sample, length in enumerate(key_length):
        k[sample, :, max(0, length) :] = np.nan
        v[sample, :, max(0, length) :] = np.nan
        if isinstance(given, DropProblem):
            q[sample, :, max(0, length) :] = np.nan
    return Inputs(given, q, k, v, key_length)


def check(inputs: Inputs, outputs: Outputs, reference: ModuleType) -> None:
    """Compare with the reference.

    Which of two keys stays whose sums differ by less than rounding is the kernels' choice: the context is compared for
    the keys that they kept, and these with the reference's sums.
    """
    given = inputs.problem
    tolerance = TOLERANCE[str(inputs.q.dtype)]
    q, v = np.nan_to_num(inputs.q), np.nan_to_num(inputs.v)
    weights = reference.attention_weights(q, inputs.k, inputs.key_length, given.scale)
    if isinstance(given, DropProblem):
        weights = reference.without_padded_queries(weights, inputs.key_length)
    sums = reference.importance(weights)
    assert_near(outputs.importance, sums, tolerance)
    kept = _check_kept(inputs, outputs, sums, reference)
    if isinstance(given, DropProblem):
        expected = reference.drop_context(weights, reference.drop_mask(kept, given.offsets), v)
    else:
        expected = reference.context(weights, kept, v)
    assert_near(outputs.context, expected, tolerance)


def _check_kept(inputs: Inputs, outputs: Outputs, sums: NDArray[Any], reference: ModuleType) -> NDArray[np.bool_]:
    given = inputs.problem
    assert len(outputs.kept) == given.batch * given.heads
    kept = np.zeros((given.batch * given.heads, given.keys), bool)
    for row, places in zip(kept, outputs.kept, strict=True):
        assert (np.diff(places) > 0).all(), "the list of kept keys is not in order"
        row[places] = True
    kept = kept.reshape(sums.shape)
    if given.keep == 0:
        assert not kept.any(), "a row was kept"
        return kept
    valid = np.arange(given.keys) < np.clip(inputs.key_length, 0, given.keys)[:, None, None]
    assert not (kept & ~valid).any(), "a padded key was kept"
    threshold = np.where(reference.kept_keys(sums, given.keep), sums, np.inf).min(-1, keepdims=True)
    margin = 2e-6 * np.maximum(threshold, 1.0)
    assert (kept | ~valid)[np.broadcast_to(sums > threshold + margin, kept.shape)].all(), "a key is missing"
    assert not kept[np.broadcast_to(sums < threshold - margin, kept.shape)].any(), "a key is too many"
    assert (kept.sum(-1) >= np.minimum(given.keep, valid.sum(-1))).all(), "too few keys were kept"
    return kept


def assert_near(found: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    """Fail when a number is off by more than `tolerance` of the largest, or none was written."""
    assert found.shape == expected.shape
    assert np.isfinite(found).all(), "no numbers"
    off = np.abs(found.astype(np.float64) - expected).max()
    assert off <= tolerance * np.abs(expected).max(), f"off by {off:.2e}, largest {np.abs(expected).max():.2e}"
