"""What to start on a GPU, and with what: plain data, the same for a plugin, a benchmark and the tests' emulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError

MAX_HEAD_DIM = 128
_SELECT_THREADS = 512  # SELECT_THREADS of selection.cuh
_MASK_THREADS = 128  # MASK_THREADS of top_k_mask.cu
_ROWS_PER_THREAD = 2  # a warp of 32 has 16 rows

Argument = np.uint64 | np.int32 | np.float32


@dataclass(frozen=True)
class Launch:
    """One kernel's start.

    Attributes:
        kernel: Its name.
        grid: Blocks on each axis.
        threads: Threads of a block, on one axis.
        arguments: Pointers as `uint64`, sizes as `int32`, factors as `float32`.
    """

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class AttentionProblem:
    """The sizes of one key-sparse attention.

    Attributes:
        batch, heads, queries, keys, dim: N, H, Tq, Tk and D; each at least 1, D at most 128.
        keep: How many keys stay, at least 1; all do where it is above Tk.
        scale: Factor on the scores.
        is_half: FP16 instead of FP32; sums are FP32 in both.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    dim: int
    keep: int
    scale: float
    is_half: bool = False

    def __post_init__(self) -> None:
        sizes = (self.batch, self.heads, self.queries, self.keys, self.dim)
        if min(sizes) < 1:
            raise InputError(f"key-sparse attention: got sizes {sizes}, expected N, H, Tq, Tk, D of at least 1")
        if self.dim > MAX_HEAD_DIM:
            raise InputError(f"key-sparse attention: got heads of {self.dim}, expected at most {MAX_HEAD_DIM}")
        _check_keep(self.keep)

    @property
    def head_dim(self) -> int:
        """The `HEAD_DIM` that its kernels are compiled for: D, rounded up to a multiple of 32."""
        return -(-self.dim // 32) * 32

    @property
    def workspace_bytes(self) -> int:
        """Bytes of scratch memory: per head and sample, `Tq + 2 Tk + 1` numbers of 4 bytes."""
        return 4 * self.batch * self.heads * (self.queries + 2 * self.keys + 1)

    def launches(self, inputs: Sequence[int], outputs: Sequence[int], workspace: int, processors: int) -> list[Launch]:
        """Return the kernels to run, one after another.

        Args:
            inputs: Device addresses of q, k, v and key_length.
            outputs: Device addresses of context and importance.
            workspace: Device address of `workspace_bytes` bytes, at a multiple of 4.
            processors: How many multiprocessors the GPU has; small problems take smaller blocks to fill them.
        """
        q, k, v, length, context, importance = map(np.uint64, (*inputs, *outputs))
        heads = self.batch * self.heads
        log_sums = np.uint64(workspace)
        sums = log_sums + np.uint64(4 * heads * self.queries)
        kept = sums + np.uint64(4 * heads * self.keys)
        counts = kept + np.uint64(4 * heads * self.keys)
        numbers = (np.int32(size) for size in (self.heads, self.queries, self.keys, self.dim))
        sizes: tuple[Argument, ...] = (*numbers, np.float32(self.scale))
        selected = (np.int32(self.heads), np.int32(self.keys), np.int32(self.keep))
        by_query, by_key = (_blocks(heads, rows, processors) for rows in (self.queries, self.keys))
        return [
            Launch(self._name("row_log_sums"), *by_query, (q, k, length, log_sums, *sizes)),
            Launch(self._name("column_sums"), *by_key, (q, k, length, log_sums, sums, *sizes)),
            Launch(
                self._name("select_keys"),
                (heads, 1, 1),
                _SELECT_THREADS,
                (sums, length, importance, kept, counts, *selected),
            ),
            Launch(self._name("context"), *by_query, (q, k, v, length, log_sums, kept, counts, context, *sizes)),
        ]

    def _name(self, kernel: str) -> str:
        return f"{kernel}_{'f16' if self.is_half else 'f32'}"

    def kept_keys(self, workspace: NDArray[np.uint8]) -> list[NDArray[np.int32]]:
        """Read from a workspace, after the kernels ran, which keys they kept.

        Args:
            workspace: Its bytes, copied to the host.

        Returns:
            For each sample and head, sample by sample, places of keys in ascending order.
        """
        heads = self.batch * self.heads
        numbers = workspace[: self.workspace_bytes].view(np.int32)
        kept = numbers[heads * (self.queries + self.keys) :][: heads * self.keys].reshape(heads, self.keys)
        return [row[:count] for row, count in zip(kept, numbers[-heads:], strict=True)]


@dataclass(frozen=True)
class MaskProblem:
    """The sizes of one top-k mask on weights.

    Attributes:
        batch, heads, queries, keys: N, H, Tq, Tk; each at least 1.
        keep: How many keys stay, at least 1; all do where it is above Tk.
        is_half: FP16 instead of FP32; sums are FP32 in both.
    """

    batch: int
    heads: int
    queries: int
    keys: int
    keep: int
    is_half: bool = False

    def __post_init__(self) -> None:
        sizes = (self.batch, self.heads, self.queries, self.keys)
        if min(sizes) < 1:
            raise InputError(f"top-k mask: got sizes {sizes}, expected N, H, Tq, Tk of at least 1")
        _check_keep(self.keep)

    @property
    def workspace_bytes(self) -> int:
        """Bytes of scratch memory: per head and sample, `Tk + 1` numbers of 4 bytes."""
        return 4 * self.batch * self.heads * (self.keys + 1)

    def launches(self, inputs: Sequence[int], outputs: Sequence[int], workspace: int) -> list[Launch]:
        """Return the kernels to run, one after another.

        Args:
            inputs: Device address of the weights.
            outputs: Device addresses of the masked weights and of importance.
            workspace: Device address of `workspace_bytes` bytes, at a multiple of 4.
        """
        weights, masked, importance = map(np.uint64, (*inputs, *outputs))
        heads = self.batch * self.heads
        sums = np.uint64(workspace)
        thresholds = sums + np.uint64(4 * heads * self.keys)
        queries, keys, keep = map(np.int32, (self.queries, self.keys, self.keep))
        kind = "f16" if self.is_half else "f32"
        columns = -(-self.keys // _MASK_THREADS)
        parts = min(self.queries, 16)  # rows of one column are masked by several threads
        return [
            Launch(f"sum_columns_{kind}", (heads, columns, 1), _MASK_THREADS, (weights, sums, queries, keys)),
            Launch(
                f"find_threshold_{kind}", (heads, 1, 1), _SELECT_THREADS, (sums, importance, thresholds, keys, keep)
            ),
            Launch(
                f"mask_columns_{kind}",
                (heads, columns, parts),
                _MASK_THREADS,
                (weights, sums, thresholds, masked, queries, keys),
            ),
        ]


def _check_keep(keep: int) -> None:
    if keep < 1:
        raise InputError(f"keep: got {keep}, expected at least 1")


def _blocks(heads: int, rows: int, processors: int) -> tuple[tuple[int, int, int], int]:
    """Return grid and threads: blocks of 64 rows, or of 32 where that leaves multiprocessors with less than two."""
    threads = 128 if heads * math.ceil(rows / 64) >= 2 * processors else 64
    return (heads * math.ceil(rows / threads * _ROWS_PER_THREAD), 1, 1), threads
