"""Mean and deviation of a frontend's rows over a training corpus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.tensors import from_safetensors, to_safetensors

Rows = NDArray[np.float32]
"""What frontends give and models take: `(n, dim)` float32."""

STATISTICS = "statistics.safetensors"


@dataclass(frozen=True)
class Statistics:
    """What rows are normalised by, column by column.

    Attributes:
        mean: `(dim,)` float32.
        std: `(dim,)` float32, above 0.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def none(cls, dim: int) -> Statistics:
        """Return statistics that leave rows as they are."""
        return cls(np.zeros(dim, np.float32), np.ones(dim, np.float32))

    @classmethod
    def of(cls, corpus: Iterable[Rows]) -> Statistics:
        """Measure `(n, dim)` rows, one array at a time, so that a corpus need not fit into memory.

        Raises:
            InputError: There are no rows.
        """
        count, total, squares = 0, np.float64(0), np.float64(0)
        offset: Rows | None = None
        for rows in corpus:
            if rows.shape[0] == 0:
                continue
            # Shifted by the first array's mean, squares keep their digits.
            offset = rows.mean(axis=0) if offset is None else offset
            shifted = rows - offset
            count += rows.shape[0]
            total = total + shifted.sum(axis=0, dtype=np.float64)
            squares = squares + np.square(shifted).sum(axis=0, dtype=np.float64)
        if offset is None:
            raise InputError("statistics: got no rows, expected a corpus's")
        variance = squares / count - np.square(total / count)
        mean = (offset + total / count).astype(np.float32)
        return cls(mean, np.sqrt(np.maximum(variance, 1e-8)).astype(np.float32))

    def check(self, dim: int) -> None:
        """Raise `InputError` when these are not the statistics of `dim` columns."""
        if self.mean.shape != (dim,) or self.std.shape != (dim,):
            raise InputError(f"statistics: mean {self.mean.shape} and std {self.std.shape}, expected ({dim},)")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and (self.std > 0).all()):
            raise InputError("statistics: mean must be finite and std finite and above 0 in every column")

    def normalise(self, rows: Rows) -> Rows:
        """Subtract the mean and divide by the deviation."""
        normal: Rows = ((rows - self.mean) / self.std).astype(np.float32)
        return normal

    def to_bytes(self) -> bytes:
        """Return the safetensors form."""
        return to_safetensors({"mean": self.mean, "std": self.std})

    @classmethod
    def from_bytes(cls, content: bytes) -> Statistics:
        """Read what `to_bytes` wrote.

        Raises:
            BundleError: It is something else.
        """
        try:
            tensors = from_safetensors(content)
            mean, std = (tensors[name] for name in ("mean", "std"))
            if mean.dtype.kind != "f" or std.dtype.kind != "f":
                raise InputError(f"mean is {mean.dtype} and std {std.dtype}, expected float32")
            return cls(mean.astype(np.float32), std.astype(np.float32))
        except (KeyError, ValueError) as error:
            raise BundleError(f"{STATISTICS} is not usable: {error}") from error
