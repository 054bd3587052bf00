"""Whether a video file ends before its outermost boxes do: MP4 and its kin, Matroska, AVI."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from edgeser.runtime.decoding.survey import bytes_at

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_MAX_BOXES = 100_000


def is_cut(path: Path) -> bool:
    """Say whether a file ends before the boxes do that it consists of; `False` where they state no end."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = bytes_at(file, 0, 12)
        if head[:4] == _EBML:
            return _matroska(file, size)
        if head[:4] == b"RIFF":
            return 8 + int.from_bytes(head[4:8], "little") > size + 1
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _mp4(file, size)
    return False


def _mp4(file: BinaryIO, size: int) -> bool:
    at = 0
    for _ in range(_MAX_BOXES):
        if at + 8 > size:
            return at != size  # less than the head of a box
        head = bytes_at(file, at, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 0:
            return False  # to the end of the file
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or at + length > size:
            return length >= 8
        at += length
    return False


def _matroska(file: BinaryIO, size: int) -> bool:
    length, at = _vint(file, 4)
    if length is None:
        return False
    at += length
    if bytes_at(file, at, 4) != _SEGMENT:
        return False
    length, start = _vint(file, at + 4)
    return length is not None and start + length > size


def _vint(file: BinaryIO, at: int) -> tuple[int | None, int]:
    """Return a length, `None` where it is left open, and the offset of what follows it."""
    raw = bytes_at(file, at, 8)
    if not raw or not raw[0]:
        return None, at
    width = 9 - raw[0].bit_length()
    mask = (1 << (7 * width)) - 1
    value = int.from_bytes(raw[:width], "big") & mask
    return (None if value == mask else value), at + width
