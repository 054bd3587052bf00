"""The top-k mask's CUDA kernels, their own source, emulated on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeser.export_tools.plugins.launches import MaskProblem

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float16])


@pytest.fixture(scope="module")
def mask(emulation: ModuleType, emulated: Callable[..., Any]) -> Callable[..., tuple[NDArray[Any], NDArray[Any]]]:
    """Run the kernels: `(weights, keep)` -> masked weights, importance."""
    kernels = emulated("top_k_mask")

    def run(weights: NDArray[Any], keep: int) -> tuple[NDArray[Any], NDArray[Any]]:
        memory = emulation.Memory()
        problem = MaskProblem(*weights.shape, keep, weights.dtype == np.float16)
        given, masked = memory.put(weights), memory.empty(weights.shape, weights.dtype)
        importance = memory.empty((*weights.shape[:2], weights.shape[3]), weights.dtype)
        workspace = memory.empty((problem.workspace_bytes,), np.uint8)
        outputs = [masked.ctypes.data, importance.ctypes.data]
        kernels.run(problem.launches([given.ctypes.data], outputs, workspace.ctypes.data))
        memory.check()
        return masked, importance

    return run


def draw(shape: tuple[int, int, int, int], dtype: Any) -> NDArray[Any]:
    scores = np.random.default_rng(0).normal(0.0, 2.0, shape)
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    weights: NDArray[Any] = (powers / powers.sum(-1, keepdims=True)).astype(dtype)
    return weights


@TYPES
@pytest.mark.parametrize(
    ("shape", "keep"),
    [((1, 1, 1, 1), 1), ((2, 3, 20, 20), 10), ((1, 2, 50, 230), 115), ((1, 1, 460, 460), 230), ((1, 1, 3, 1024), 512)],
)
def test_sizes(
    shape: tuple[int, int, int, int],
    keep: int,
    dtype: Any,
    mask: Callable[..., Any],
    reference: ModuleType,
    checks: ModuleType,
) -> None:
    weights = draw(shape, dtype)
    masked, importance = mask(weights, keep)
    sums = reference.importance(weights)
    checks.assert_near(importance, sums, checks.TOLERANCE[np.dtype(dtype).name])
    kept = reference.kept_keys(weights.astype(np.float32).sum(axis=2, dtype=np.float32), keep)
    np.testing.assert_array_equal(masked, weights * kept[:, :, None, :])


@TYPES
@pytest.mark.parametrize("keep", [1, 29, 30, 31])
def test_padding_and_keep(keep: int, dtype: Any, mask: Callable[..., Any], reference: ModuleType) -> None:
    """Padded keys weigh 0 already; where more stay than weigh anything, nothing is lost."""
    weights = draw((2, 2, 20, 30), dtype)
    weights[0, ..., 17:] = 0
    weights[1, 0] = 0
    masked, _ = mask(weights, keep)
    kept = reference.kept_keys(reference.importance(weights), keep)
    np.testing.assert_array_equal(masked, weights * kept[:, :, None, :])
    assert keep < 17 or np.array_equal(masked[0], weights[0])
    assert not masked[1, 0].any()


def test_ties_stay(mask: Callable[..., Any]) -> None:
    weights = np.zeros((1, 1, 4, 600), np.float32)
    weights[..., ::100] = 0.25
    weights[0, 0, 0, 550] = 0.5
    masked, importance = mask(weights, 3)
    assert sorted(np.flatnonzero(masked[0, 0].any(axis=0))) == [0, 100, 200, 300, 400, 500]
    assert importance[0, 0, 550] == 0.5


def test_the_threshold_is_exact(mask: Callable[..., Any]) -> None:
    """Sums that differ in the last bit alone: as many stay as should, the largest ones."""
    values = (np.float32(0.5).view(np.int32) + np.arange(1100, dtype=np.int32)).view(np.float32)
    order = np.random.default_rng(0).permutation(1100)
    masked, _ = mask(values[order].reshape(1, 1, 1, 1100), 333)
    np.testing.assert_array_equal(np.flatnonzero(masked), np.flatnonzero(order >= 1100 - 333))
