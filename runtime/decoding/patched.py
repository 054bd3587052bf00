"""A file some bytes of which read as others: headers that state a wrong length are mended on the way to a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO


class PatchedFile:
    """A file for reading, as `soundfile.SoundFile` wants one.

    It is called from native code, which swallows what Python raises: keep it out of the main thread, where that may be
    Ctrl-C. An error of the disk is kept in `error`.

    Args:
        file: The file; who opened it closes it.
        patches: Bytes by the offset at which they stand instead of those in the file.
    """

    def __init__(self, file: BinaryIO, patches: Mapping[int, bytes]) -> None:
        self._file = file
        self._patches = patches
        self.error: OSError | None = None
        self.seek, self.tell = file.seek, file.tell

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer as far as the file goes; return the count of bytes."""
        view = memoryview(buffer).cast("B")
        try:
            start = self._file.tell()
            count: int = self._file.readinto(view)  # type: ignore[attr-defined]
        except OSError as error:
            self.error = error
            return 0
        for offset, patch in self._patches.items():
            low, high = max(start, offset), min(start + count, offset + len(patch))
            if low < high:
                view[low - start : high - start] = patch[low - offset : high - offset]
        return count

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def write(self, data: bytes) -> int:
        """Write nothing: `soundfile` only looks for the method."""
        return 0
