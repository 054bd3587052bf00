"""What to start on a GPU, and with what: plain data, the same for a plugin, a benchmark and the tests' emulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError

MAX_HEAD_DIM = 128
MAX_OFFSET = 63  # one bit each of 64
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
        arguments: Pointers and sets of bits as `uint64`, sizes as `int32`, factors as `float32`.
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
        name, source: What messages call it, and the source of its kernels, without `.cu`.
    """

    name: ClassVar[str] = "key-sparse attention"
    source: ClassVar[str] = "key_sparse_attention"

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
            raise InputError(f"{self.name}: got sizes {sizes}, expected N, H, Tq, Tk, D of at least 1")
        if self.dim > MAX_HEAD_DIM:
            raise InputError(f"{self.name}: got heads of {self.dim}, expected at most {MAX_HEAD_DIM}")
        self._check_selection()

    def _check_selection(self) -> None:
        _check_keep(self.keep)

    @property
    def head_dim(self) -> int:
        """The `HEAD_DIM` that its kernels are compiled for: D, rounded up to a multiple of 32."""
        return -(-self.dim // 32) * 32

    @property
    def workspace_bytes(self) -> int:
        """Bytes of scratch memory: per head and sample, `Tq + 2 Tk + 2` numbers of 4 bytes."""
        return 4 * self.batch * self.heads * (self.queries + 2 * self.keys + 2)

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
        rooms = (4 * heads * size for size in (self.queries, self.keys, self.keys, 1))
        log_sums, sums, kept, counts, thresholds = map(np.uint64, accumulate(rooms, initial=workspace))
        numbers = (np.int32(size) for size in (self.heads, self.queries, self.keys, self.dim))
        sizes: tuple[Argument, ...] = (*numbers, np.float32(self.scale))
        selected = (np.int32(self.heads), np.int32(self.keys), np.int32(self.keep))
        by_query, by_key = (_blocks(heads, rows, processors) for rows in (self.queries, self.keys))
        mask = self._mask(sums, kept, counts, thresholds)
        return [
            Launch(self._name("row_log_sums"), *by_query, (q, k, length, log_sums, *sizes)),
            Launch(self._name("column_sums"), *by_key, (q, k, length, log_sums, sums, *sizes)),
            Launch(
                self._name("select_keys"),
                (heads, 1, 1),
                _SELECT_THREADS,
                (sums, length, importance, kept, counts, thresholds, *selected),
            ),
            Launch(self._name("context"), *by_query, (q, k, v, length, log_sums, *mask, context, *sizes)),
        ]

    def _mask(self, sums: np.uint64, kept: np.uint64, counts: np.uint64, thresholds: np.uint64) -> tuple[Argument, ...]:
        """Return what tells the last kernel which weights stay."""
        return kept, counts

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
        return [row[:count] for row, count in zip(kept, numbers[-2 * heads : -heads], strict=True)]


@dataclass(frozen=True)
class DropProblem(AttentionProblem):
    """The sizes of one drop attention.

    Attributes:
        keys: As many as queries.
        keep: How many rows the dynamic mask keeps; 0 for the static mask alone.
        offsets: Distances that the static mask keeps, 0 to 63; none for the dynamic mask alone.
    """

    name: ClassVar[str] = "drop attention"
    source: ClassVar[str] = "drop_attention"

    offsets: tuple[int, ...] = ()

    def _check_selection(self) -> None:
        if self.keys != self.queries:
            raise InputError(f"{self.name}: got {self.queries} queries and {self.keys} keys, expected the same rows")
        if self.keep < 0 or not (self.keep or self.offsets):
            raise InputError(f"keep: got {self.keep}, expected at least 1, or 0 and offsets")
        if any(not 0 <= offset <= MAX_OFFSET for offset in self.offsets):
            raise InputError(
                f"{self.name}: got offsets {self.offsets}, expected 0 to {MAX_OFFSET}: the portable graph takes any"
            )

    def _mask(self, sums: np.uint64, kept: np.uint64, counts: np.uint64, thresholds: np.uint64) -> tuple[Argument, ...]:
        bits = sum(1 << offset for offset in set(self.offsets))
        return sums, kept, counts, thresholds, np.uint64(bits), np.int32(max(self.offsets, default=-1))


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
