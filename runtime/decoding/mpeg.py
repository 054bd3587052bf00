"""MP3 and MP2 files: the frames that are there against those that the first of them states."""

from __future__ import annotations

import struct
from typing import BinaryIO

from edgeser.runtime.decoding.survey import Survey, bytes_at, id3_size

_RATES = (44_100, 48_000, 32_000)
_II, _III = 2, 1  # layers, as a header writes them
_BITRATES = {  # kbit/s, by layer and version 1 or 2
    (_III, 1): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (_III, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (_II, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (_II, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def is_frame(head: bytes) -> bool:
    """Say whether an MPEG frame of layer II or III begins with these 4 bytes."""
    return _frame(head) is not None


def survey(file: BinaryIO, start: int, size: int) -> Survey:
    """Walk over the frames from `start` on.

    The first may be a Xing or Info frame, which states how many follow. A decoder stops there: where more are there
    (files that were joined), the number is mended; where fewer, the file was cut.
    """
    place, stated = _stated(bytes_at(file, start, 256))
    count, complete = _walk(file, start, size)
    if stated is None:
        return Survey(cut=not complete)
    count -= 1  # the one that states
    if count > stated:
        return Survey(cut=not complete, patches={start + place: struct.pack(">I", count)})
    return Survey(cut=count < stated or not complete)


def _walk(file: BinaryIO, at: int, size: int) -> tuple[int, bool]:
    """Return how many whole frames follow one another, and whether none is broken off at their end."""
    count = 0
    while True:
        head = bytes_at(file, at, 10)
        length = _frame(head)
        if length is None and not id3_size(head):
            return count, True  # the end, or a tag that ends the file
        at += length or id3_size(head)  # of a file that was joined to the one before
        if at > size:
            return count, False
        count += length is not None


def _frame(head: bytes) -> int | None:
    """Return the length in bytes of the frame that begins with this header; `None` where none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:  # sync
        return None
    layer = head[1] >> 1 & 3
    version = head[1] >> 3 & 3  # 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if layer not in (_II, _III) or version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    hz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    kbps = _BITRATES[layer, 1 if version == 3 else 2][bitrate]
    return (144 if version == 3 or layer == _II else 72) * kbps * 1000 // hz + (head[2] >> 1 & 1)


def _stated(first: bytes) -> tuple[int, int | None]:
    """Return where a Xing or Info frame states the count of frames, and that count; `None` where none does."""
    place = max(first.find(b"Xing", 4, 48), first.find(b"Info", 4, 48))
    if place < 0 or len(first) < place + 12:
        return 0, None
    flags, count = struct.unpack(">II", first[place + 4 : place + 12])
    return place + 8, count if flags & 1 and count else None
