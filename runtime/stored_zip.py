"""Zip files in one exact form: stored, in the given order, no dates, no extra fields.

`zipfile` reads around damage in dates, attributes and gaps. A bundle must be intact to the last byte, so the
form has no freedom: every byte that is not content follows from the names, sizes and checksums, and reading
compares it. Any zip tool can open the result.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeser.runtime.errors import BundleError

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION = 20
_UTF8_NAME = 0x800
_DATE = 0x21  # 1980-01-01, the first day a zip can name
_MODE = 0o100644 << 16
_UNIX = 3 << 8
_LIMIT = 0xFFFFFFFF
_MOST_NAME = 200
MOST_ENTRIES = 1000
"""Files in one zip."""


@dataclass(frozen=True)
class Entry:
    """One file inside: where its bytes lie."""

    name: str
    offset: int
    size: int


def write_zip(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write the files in the given order.

    Raises:
        BundleError: More than 4 GiB.
    """
    central = b""
    count = 0
    with path.open("wb") as out:
        for name, content in files:
            offset, checksum = out.tell(), zlib.crc32(content)
            if offset + len(content) > _LIMIT:
                raise BundleError(f"{path}: more than 4 GiB: write the bundle as a folder instead")
            out.write(_local_header(name, checksum, len(content)))
            out.write(content)
            central += _central_header(name, checksum, len(content), offset)
            count += 1
        end = _end_record(count, len(central), out.tell())
        out.write(central + end)


def open_zip(path: Path) -> Mapping[str, Entry]:
    """List the files of a zip that `write_zip` wrote, and check every byte that is not content.

    Raises:
        BundleError: Not readable, not a zip, cut short, not in the exact form, or of more than `MOST_ENTRIES` files.
    """
    try:
        with path.open("rb") as file:
            return _entries(path, file)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (struct.error, UnicodeDecodeError) as error:
        raise _damaged(path) from error


def _entries(path: Path, file: BinaryIO) -> Mapping[str, Entry]:
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size))
    end = file.read()
    count, central_size, central_offset = _END.unpack(end)[4:7]
    if end != _end_record(count, central_size, central_offset) or central_offset + central_size + _END.size != size:
        raise _damaged(path)
    if count > MOST_ENTRIES or central_size > count * (_CENTRAL.size + _MOST_NAME):
        raise BundleError(f"{path}: {count} files, expected at most {MOST_ENTRIES}, with names of at most {_MOST_NAME}")
    file.seek(central_offset)
    central = file.read(central_size)
    entries: dict[str, Entry] = {}
    at = offset = 0
    for _ in range(count):
        checksum, length, name_size = (_CENTRAL.unpack_from(central, at)[i] for i in (7, 9, 10))
        name = central[at + _CENTRAL.size :][:name_size].decode()
        header, expected = _central_header(name, checksum, length, offset), _local_header(name, checksum, length)
        file.seek(offset)
        if name in entries or not central.startswith(header, at) or file.read(len(expected)) != expected:
            raise _damaged(path)
        entries[name] = Entry(name, offset + len(expected), length)
        at, offset = at + len(header), offset + len(expected) + length
    if (at, offset) != (central_size, central_offset):
        raise _damaged(path)
    return entries


def read_entry(file: BinaryIO, entry: Entry) -> bytes:
    """Read one file's bytes."""
    file.seek(entry.offset)
    return file.read(entry.size)


def _local_header(name: str, checksum: int, size: int) -> bytes:
    raw = name.encode()
    fixed = _LOCAL.pack(b"PK\3\4", _VERSION, _UTF8_NAME, 0, 0, _DATE, checksum, size, size, len(raw), 0)
    return fixed + raw


def _central_header(name: str, checksum: int, size: int, offset: int) -> bytes:
    raw = name.encode()
    fixed = _CENTRAL.pack(
        *(b"PK\1\2", _UNIX | _VERSION, _VERSION, _UTF8_NAME, 0, 0, _DATE, checksum, size, size),
        *(len(raw), 0, 0, 0, 0, _MODE, offset),
    )
    return fixed + raw


def _end_record(count: int, central_size: int, central_offset: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, count, count, central_size, central_offset, 0)


def _damaged(path: Path) -> BundleError:
    return BundleError(f"{path}: damaged, or packed by another tool: fetch it again, or unpack it and use the folder")
