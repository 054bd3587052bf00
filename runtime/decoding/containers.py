"""Where containers say that their samples lie, what is wrong with that, and how it is mended.

Recorders that were killed leave a length of 0, encoders that write into a pipe the largest number, and a copy that
broke off has less than its header says. libsndfile believes the first, and says nothing of the last.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from edgeser.runtime.decoding import flac, mpeg
from edgeser.runtime.decoding.survey import Survey, bytes_at, id3_size

_CHUNK = re.compile(rb"[A-Za-z0-9_ ]{4}")
_MAX_CHUNKS = 10_000
_OGG_TAIL = 66_000  # an Ogg page has at most 65,307 bytes


@dataclass(frozen=True)
class _Data:
    """A container's statement of where its samples are.

    Attributes:
        start: Offset of the first.
        size: Stated bytes; `None` where the length is left open.
        place: Offset of the field with the size; `None` where decoders do not heed it.
        form: The field's `struct` format.
        more: What the field counts beside the samples.
        last: Nothing may follow the samples.
    """

    start: int
    size: int | None
    place: int | None = None
    form: str = ""
    more: int = 0
    last: bool = False


def survey(file: BinaryIO, size: int) -> Survey:
    """Look at the header of a file of `size` bytes, and mend what it says of its length."""
    start = id3_size(bytes_at(file, 0, 10))
    head = bytes_at(file, start, 16)
    if head[:4] == b"fLaC":
        return flac.survey(file, start, size)
    if start or mpeg.is_frame(head):
        return mpeg.survey(file, start, size)
    if head[:4] == b"OggS":
        return Survey(cut=_ogg_is_cut(file, size))
    for magic, find in _FINDERS.items():
        if head.startswith(magic):
            try:
                data = find(file, size)
            except (struct.error, ValueError, IndexError):
                data = None
            return Survey() if data is None else _judge(file, size, data)
    return Survey()


def _judge(file: BinaryIO, size: int, data: _Data) -> Survey:
    rest = max(0, size - data.start)
    most = (1 << (8 * struct.calcsize(data.form))) - 1 if data.form else rest
    if data.size == rest or (data.size is not None and data.size < rest and _is_whole(file, size, data)):
        return Survey()
    cut = rest > most or (data.size is not None and data.size > rest)
    if data.place is None or rest == 0:
        return Survey(cut=cut)
    return Survey(cut=cut, patches={data.place: struct.pack(data.form, min(most, rest + data.more))})


def _is_whole(file: BinaryIO, size: int, data: _Data) -> bool:
    """Say whether a length that is less than what there is can be right: chunks, and nothing else, follow it."""
    assert data.size is not None
    if data.place is None:
        return True
    if data.last:
        return False
    end = data.start + data.size
    wide, order = ("q", 12) if data.form.endswith("Q") and data.form[0] == ">" else ("I", 8)
    return any(_are_chunks(file, at, size, data.form[0] + wide, order) for at in (end + end % 2, end))


def _are_chunks(file: BinaryIO, at: int, size: int, form: str, head: int) -> bool:
    for _ in range(_MAX_CHUNKS):
        if at >= size - 1:
            return True
        file.seek(at)
        raw = file.read(head)
        if len(raw) < head or not _CHUNK.fullmatch(raw[:4]):
            return False
        (length,) = struct.unpack(form, raw[4:])
        at += head + length + (length % 2 if head == 8 else 0)
        if length < 0 or at > size + 1:
            return False
    return False


def _riff(file: BinaryIO, size: int) -> _Data | None:
    order = ">" if bytes_at(file, 0, 4) == b"RIFX" else "<"
    place = 0  # of the size that 32 bits do not hold
    for name, at, length in _chunks(file, 12, size, f"{order}I"):
        if name == b"ds64":
            place = at + 8
        elif name == b"data" and place and length == 0xFFFFFFFF:
            (stated,) = struct.unpack("<Q", bytes_at(file, place, 8))
            return _Data(at, stated if 0 < stated < 1 << 62 else None, place, "<Q")
        elif name == b"data":
            return _Data(at, None if length == 0xFFFFFFFF else length, at - 4, f"{order}I")
    return None


def _aiff(file: BinaryIO, size: int) -> _Data | None:
    for name, at, length in _chunks(file, 12, size, ">I"):
        if name == b"SSND":
            stated = None if length in (0, 0xFFFFFFFF) else max(0, length - 8)
            return _Data(at + 8, stated, at - 4, ">I", more=8)
    return None


def _w64(file: BinaryIO, size: int) -> _Data | None:
    at = 40
    for _ in range(_MAX_CHUNKS):
        head = bytes_at(file, at, 24)
        (length,) = struct.unpack("<Q", head[16:])
        if head[:4] == b"data":
            return _Data(at + 24, length - 24 if 24 < length < 1 << 62 else None)
        at += max(24, length + -length % 8)
    return None


def _au(file: BinaryIO, size: int) -> _Data:
    order = ">" if bytes_at(file, 0, 4) == b".snd" else "<"
    start, length = struct.unpack(f"{order}II", bytes_at(file, 4, 8))
    return _Data(start, None if length == 0xFFFFFFFF else length, 8, f"{order}I", last=True)


def _caf(file: BinaryIO, size: int) -> _Data | None:
    for name, at, length in _chunks(file, 8, size, ">q"):
        if name == b"data":
            stated = None if length in (-1, 0) else max(0, length - 4)
            return _Data(at + 4, stated, at - 8, ">Q", more=4)
    return None


def _nist(file: BinaryIO, size: int) -> _Data | None:
    start = int(bytes_at(file, 8, 8))
    lines = bytes_at(file, 16, min(start, 1 << 16) - 16).splitlines()
    facts = {parts[0]: parts[2] for parts in (line.split(None, 2) for line in lines) if len(parts) == 3}
    names = (b"sample_count", b"sample_n_bytes", b"channel_count")
    if not all(name in facts for name in names[:2]):
        return None
    count, width, channels = (int(facts.get(name, b"1")) for name in names)
    return _Data(start, count * width * channels)


def _chunks(file: BinaryIO, at: int, size: int, form: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the offset of the content and the stated size of each chunk."""
    width = struct.calcsize(form)
    for _ in range(_MAX_CHUNKS):
        if at + 4 + width > size:
            return
        raw = bytes_at(file, at, 4 + width)
        (length,) = struct.unpack(form, raw[4:])
        yield raw[:4], at + 4 + width, length
        if length < 0:
            return
        at += 4 + width + length + (length % 2 if width == 4 else 0)


def _ogg_is_cut(file: BinaryIO, size: int) -> bool:
    """Say whether the last page is not there whole, or not marked as the stream's last."""
    start = max(0, size - _OGG_TAIL)
    tail = bytes_at(file, start, size - start)
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27 or len(tail) < at + 27 + tail[at + 26]:
        return True
    segments = tail[at + 26]
    end = at + 27 + segments + sum(tail[at + 27 : at + 27 + segments])
    return end > len(tail) or not tail[at + 5] & 4


_FINDERS: Mapping[bytes, Callable[[BinaryIO, int], _Data | None]] = {
    b"RIFF": _riff,
    b"RIFX": _riff,
    b"RF64": _riff,
    b"FORM": _aiff,
    b"riff\x2e\x91\xcf\x11": _w64,
    b".snd": _au,
    b"dns.": _au,
    b"caff": _caf,
    b"NIST_1A": _nist,
}
