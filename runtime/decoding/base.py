"""What every decoder of a file does: blocks in their order, to the real end, and whether that came too early."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError

Block = NDArray[np.float32]
MAX_CHANNELS = 16

_BLOCK = 65_536  # frames: 4 s of 16 kHz

log = logging.getLogger(__name__)


class BrokenOff(Exception):
    """The decoder cannot go on; `block` is what came before, `(frames, channels)`."""

    def __init__(self, block: Block, reason: str) -> None:
        super().__init__(reason)
        self.block = block
        self.reason = reason


class AudioFile(ABC):
    """An opened recording, read once from its start to its end. A context manager.

    Nothing is believed of what a header says of the length: reading goes on to the real end, and memory depends on
    the blocks alone.

    Attributes:
        path: The file.
        rate: Sample rate, Hz.
        channels: 1 to 16.
        truncated: The end that was met came before the one that the file states, or it broke off there. `False` until
            the end is met, and where the file states nothing.
    """

    def __init__(self, path: Path, rate: int, channels: int) -> None:
        if channels > MAX_CHANNELS:
            raise InputError(f"{path}: got {channels} channels, expected at most {MAX_CHANNELS}: mix to mono first")
        self.path = path
        self.rate = rate
        self.channels = channels
        self.truncated = False
        self._position = 0
        self._ended = False

    def read(self, frames: int) -> Block:
        """Return the next `(frames, channels)` float32 at full scale 1.0; fewer where the end is met, then none.

        A file that is cut short is answered to its end, with one warning.

        Raises:
            InputError: There is not one sample in the file.
        """
        if self._ended:
            return self._nothing()
        reason = ""
        try:
            block = self._read(frames)
        except BrokenOff as error:
            block, reason = error.block, error.reason
        self._position += block.shape[0]
        if block.shape[0] < frames:
            self._ended = True
            self._end(reason)
        return block

    def skip(self, frames: int) -> None:
        """Go on by so many frames, or to the end."""
        self._read_on(frames)

    def length_s(self) -> float:
        """Return how long the recording really lasts, seconds; the file is used up by it."""
        self._read_on(1 << 62)
        return self._position / self.rate

    @abstractmethod
    def close(self) -> None:
        """Close the file; again is harmless."""

    @abstractmethod
    def _read(self, frames: int) -> Block:
        """Return `(frames, channels)`, fewer at the end; raise `BrokenOff` where the decoder cannot go on."""

    @abstractmethod
    def stated_s(self) -> float | None:
        """Return the length that the file states, seconds; `None` where it states none."""

    def _read_on(self, frames: int) -> None:
        while frames > 0 and not self._ended:
            frames -= self.read(min(frames, _BLOCK)).shape[0]

    def _is_cut(self, heard_s: float) -> bool:
        """Say whether an end after `heard_s` seconds comes before the one that the file states."""
        stated_s = self.stated_s()
        return stated_s is not None and heard_s < stated_s

    def _end(self, reason: str) -> None:
        if self._position == 0:
            raise InputError(
                f"{self.path}: not readable as audio ({reason})" if reason else f"{self.path}: holds no samples"
            )
        heard_s = self._position / self.rate
        self.truncated = bool(reason) or self._is_cut(heard_s)
        if self.truncated:
            stated_s = self.stated_s()
            of = f" of {stated_s:.2f}" if stated_s is not None and stated_s > heard_s else ""
            why = f" ({reason})" if reason else ""
            log.warning("%s: cut short: ends after %.2f%s s%s; what is there is used", self.path, heard_s, of, why)

    def _nothing(self) -> Block:
        return np.zeros((0, self.channels), np.float32)

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
