"""The mean of what was heard so far, which is taken out of an encoder's rows before the model gets them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError
from edgeser.runtime.files import refusal, replacing
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.tensors import from_safetensors, to_safetensors

_MOST_COUNT = 1 << 53  # whole numbers that float64 tells apart
_MOST_BYTES = 1 << 24  # of a file; that of the default bundle has 10 KB
_KINDS = {"count": ("<i8", 1), "mean": ("<f8", 1), "encoder": ("|u1", 1), "seal": ("|u1", 1)}
_TODO = "name another file, or leave it out to begin with nothing heard"


class RunningMean:
    """How many utterances were heard, and the mean over them of the means of their standardised rows.

    Every utterance counts once, however long. Made by `Runtime.open_state`, or `load`ed. A state that several threads
    add to loses nothing; which of them comes first is then theirs to say. It can be pickled and copied.

    Args:
        encoder: SHA-256 of what the rows come from, 64 hexadecimal digits; see `Manifest.encoder_sha256`.
        mean: `(dim,)` float64.
        count: Utterances that it is the mean of, 0 or more.

    Raises:
        InputError: A mean that is not finite, or not 0 where nothing was heard, or a count out of range.
    """

    def __init__(self, encoder: str, mean: NDArray[np.float64], count: int = 0) -> None:
        if not 0 <= count <= _MOST_COUNT:
            raise InputError(f"state: got a count of {count}, expected 0 to {_MOST_COUNT}")
        own = np.array(mean, dtype=np.float64)
        if own.ndim != 1 or not np.isfinite(own).all() or (not count and own.any()):
            raise InputError(f"state: got a mean of shape {own.shape}, expected (dim,), finite, and 0 of no utterances")
        own.flags.writeable = False
        self.encoder = encoder
        self._lock = threading.Lock()
        self._heard = (int(count), own)  # one tuple, so that who reads needs no lock, also after a fork

    @property
    def count(self) -> int:
        """Utterances that were heard."""
        return self._heard[0]

    @property
    def mean(self) -> NDArray[np.float64]:
        """`(dim,)` float64, read-only: the mean over them."""
        return self._heard[1]

    def shift(self, prior: float) -> Rows:
        """Return what is taken out of every row, `(dim,)` float32; 0 where nothing was heard.

        Args:
            prior: Utterances that the training mean, 0, counts as.
        """
        count, mean = self._heard
        return shift_of(mean, count, prior)

    def add(self, mean: NDArray[np.floating]) -> None:
        """Hear one more utterance.

        Args:
            mean: `(dim,)`, over its valid rows, standardised, nothing taken out of them.

        Raises:
            InputError: Another width, or not finite; the state stays as it was.
        """
        self._include(mean, 1)

    def merge(self, other: RunningMean) -> None:
        """Hear also what another state has heard.

        Raises:
            InputError: It is another encoder's.
        """
        other.check(self.encoder, self.mean.shape[0])
        count, mean = other._heard
        if count:
            self._include(mean, count)

    def copy(self) -> RunningMean:
        """Return the same state, which goes its own way from here."""
        count, mean = self._heard
        return RunningMean(self.encoder, mean, count)

    def check(self, encoder: str, dim: int) -> None:
        """Raise `InputError` when this is no state of an encoder."""
        if self.encoder != encoder or self.mean.shape != (dim,):
            raise InputError(
                f"state: is of encoder {self.encoder[:12]} with {self.mean.shape[0]} columns, the bundle's is "
                f"{encoder[:12]} with {dim}: {_TODO}"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, whole or not at all.

        Raises:
            InputError: It cannot be written there.
            EdgeSerError: There is no room, for example; an older file stays.
        """
        count, mean = self._heard
        encoder = np.frombuffer(bytes.fromhex(self.encoder), np.uint8)
        tensors: dict[str, NDArray[Any]] = {"count": np.array([count], np.int64), "mean": mean, "encoder": encoder}
        content = to_safetensors({**tensors, "seal": _seal(tensors)})
        with replacing(path) as part:
            part.write_bytes(content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RunningMean:
        """Read what `save` wrote.

        Raises:
            InputError: There is no such file, or it is no state.
        """
        file = Path(path)
        try:
            with file.open("rb") as opened:
                content = opened.read(_MOST_BYTES + 1)
        except OSError as error:
            raise refusal(error) from error
        try:
            if len(content) > _MOST_BYTES:
                raise InputError(f"more than {_MOST_BYTES:,} bytes")
            return cls._from_bytes(content)
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{file}: is no state of a running mean, or damaged ({reason}): {_TODO}") from error

    @classmethod
    def _from_bytes(cls, content: bytes) -> RunningMean:
        tensors = from_safetensors(content)
        kinds = {name: (value.dtype.str, value.ndim) for name, value in tensors.items()}
        if kinds != _KINDS:
            raise InputError(f"it holds {kinds}")
        if not np.array_equal(tensors["seal"], _seal(tensors)):
            raise InputError("its hash is another")
        count, mean, encoder = (tensors[name] for name in ("count", "mean", "encoder"))
        if count.shape != (1,) or encoder.shape != (hashlib.sha256().digest_size,) or not mean.size:
            raise InputError(f"count {count.shape}, encoder {encoder.shape}, mean {mean.shape}")
        return cls(encoder.tobytes().hex(), mean, int(count[0]))

    def _include(self, mean: NDArray[np.floating], count: int) -> None:
        more = np.asarray(mean, dtype=np.float64)
        if more.shape != self.mean.shape or not np.isfinite(more).all():
            raise InputError(f"state: got a mean of shape {more.shape}, expected {self.mean.shape}, finite")
        with self._lock:
            before, old = self._heard
            total = before + count
            if total > _MOST_COUNT:
                raise InputError(f"state: got more than {_MOST_COUNT} utterances")
            fresh = old + (more - old) * (count / total)
            fresh.flags.writeable = False
            self._heard = (total, fresh)

    def __getstate__(self) -> tuple[str, int, NDArray[np.float64]]:
        return (self.encoder, *self._heard)

    def __setstate__(self, state: tuple[str, int, NDArray[np.float64]]) -> None:
        encoder, count, mean = state
        self.__init__(encoder, mean, count)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"RunningMean of {self.count} utterances, {self.mean.shape[0]} columns, encoder {self.encoder[:12]}"


def shift_of(mean: NDArray[np.floating], count: int, prior: float) -> Rows:
    """Return what a mean over so many utterances takes out of rows, `(dim,)` float32; see `RunningMean.shift`."""
    return (mean * (count / (count + prior))).astype(np.float32) if count else np.zeros(mean.shape, np.float32)


def _seal(tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Return a hash over what a file holds: a mean that is damaged looks like any other."""
    content = b"".join(tensors[name].tobytes() for name in ("count", "mean", "encoder"))
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
