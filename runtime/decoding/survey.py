"""What is known of a file before it is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass(frozen=True)
class Survey:
    """What a file's header says of its length, against the file.

    Attributes:
        cut: The file ends before its header says.
        patches: Bytes by offset that a decoder is to see instead of those in the file.
        stated_frames: Frames that the header states, where only decoding tells whether they are there.
    """

    cut: bool = False
    patches: Mapping[int, bytes] = field(default_factory=dict)
    stated_frames: int | None = None


def bytes_at(file: BinaryIO, place: int, count: int) -> bytes:
    """Read up to `count` bytes at a place."""
    file.seek(place)
    return file.read(max(0, count))


def id3_size(head: bytes) -> int:
    """Return the length of the ID3v2 tag that a file begins with, 0 without one; `head` holds 10 bytes."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + 10
