"""FLAC files: the samples that their last frame ends with, against those that the header states."""

from __future__ import annotations

from typing import BinaryIO

from edgeser.runtime.decoding.survey import Survey, bytes_at

_TAIL = 1 << 18  # more than a frame of 4,608 samples in 8 channels takes
_CODES = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 256 << code - 8 for code in range(8, 16)}}


def survey(file: BinaryIO, start: int, size: int) -> Survey:
    """Look whether the file goes on after the total that it states, which is where a decoder stops.

    A total of 0 says that it is not known: then a decoder goes to the real end.
    """
    place = start + 18  # 36 bits, after the 28 of rate, channels and width
    facts = int.from_bytes(bytes_at(file, place, 8), "big")
    total = facts & 0xFFFFFFFFF
    if not total:
        return Survey()
    if _end(file, start, size) <= total:
        return Survey(stated_frames=total)
    return Survey(patches={place: (facts - total).to_bytes(8, "big")}, stated_frames=total)


def _end(file: BinaryIO, start: int, size: int) -> int:
    """Return the count of samples up to the end of the last frame whose header is found; 0 where none is."""
    blocking = int.from_bytes(bytes_at(file, start + 10, 2), "big")  # of a stream with frames of one length
    first = max(start + 42, size - _TAIL)
    tail = bytes_at(file, first, size - first)
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        end = _frame_end(tail[at : at + 16], blocking)
        if end is not None:
            return end
    return 0


def _frame_end(head: bytes, blocking: int) -> int | None:
    """Return the sample after the frame that begins here; `None` where none does, by its 8-bit checksum."""
    head = head.ljust(16, b"\0")  # the last frame may be shorter
    if head[1] & 0xFE != 0xF8 or head[3] & 1:
        return None
    number, at = _coded_number(head, 4)
    if number is None:
        return None
    code, rate = head[2] >> 4, head[2] & 15
    width = {6: 1, 7: 2}.get(code, 0)
    block = _CODES.get(code, 0) if not width else int.from_bytes(head[at : at + width], "big") + 1
    at += width + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if not block or _crc8(head[:at]) != head[at]:
        return None
    return number + block if head[1] & 1 else number * blocking + block


def _coded_number(head: bytes, at: int) -> tuple[int | None, int]:
    """Return a number coded as UTF-8 codes characters, and what follows it."""
    first = head[at]
    if first < 0x80:
        return first, at + 1
    more = 7 - (first ^ 0xFF).bit_length()  # bytes after the first
    rest = head[at + 1 : at + 1 + more]
    if not 1 <= more <= 6 or any(byte & 0xC0 != 0x80 for byte in rest):
        return None, at
    number = first & (0x3F >> more)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return number, at + 1 + more


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc
