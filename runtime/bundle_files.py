"""Where a bundle's files lie: in a folder, or in one stored zip. Sizes are known before anything is read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path

from edgeser.runtime.errors import BundleError
from edgeser.runtime.stored_zip import Entry, open_zip
from edgeser.runtime.trust import SIGNATURE_SUFFIX

SUFFIX = ".edgeser"
_BLOCK = 1 << 18
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class Files(ABC):
    """The files of a bundle, by name."""

    @abstractmethod
    def names(self) -> frozenset[str]:
        """Return the names of all files, as far as nothing but the bundle's own may be there."""

    @abstractmethod
    def signed(self, name: str, content: bytes) -> tuple[Path, bytes]:
        """Return where the signature is that vouches for a file, and the BLAKE2b-512 that it must be over.

        Args:
            name: The file.
            content: What was read of it, which the digest covers.

        Raises:
            BundleError: That is no longer its content.
        """

    @abstractmethod
    def _opened(self, name: str) -> contextlib.AbstractContextManager[tuple[BufferedReader, int]]:
        """Open one file; give it, where it begins, and its size."""

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[tuple[BufferedReader, int]]:
        """Open one file, from its beginning on, and give its size too.

        Raises:
            BundleError: There is no such file, or it cannot be read.
        """
        try:
            with self._opened(name) as (file, size):
                yield file, size
        except OSError as error:
            raise BundleError(f"{name}: {_why(error)}") from error


class FolderFiles(Files):
    """Files of a folder; other files may lie there, and links may lead from one place in it to another."""

    def __init__(self, folder: Path) -> None:
        self._root = Path(os.path.realpath(folder))

    def names(self) -> frozenset[str]:
        return frozenset()

    def signed(self, name: str, content: bytes) -> tuple[Path, bytes]:
        return self._root / f"{name}{SIGNATURE_SUFFIX}", hashlib.blake2b(content).digest()

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[BufferedReader, int]]:
        place = Path(os.path.realpath(self._root / name, strict=True))
        if not place.is_relative_to(self._root) or not place.is_file():  # a pipe or a device would never end
            raise FileNotFoundError(errno.ENOENT, "outside, or no file")
        with place.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size


class ZipFiles(Files):
    """Files of a stored zip."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: Mapping[str, Entry] = open_zip(path)

    def names(self) -> frozenset[str]:
        return frozenset(self._entries)

    def signed(self, name: str, content: bytes) -> tuple[Path, bytes]:
        entry, digest = self._entries[name], hashlib.blake2b()
        with self._path.open("rb") as file:
            _update(digest, file, entry.offset)
            # As it goes by, so that nothing can be put in its place between the two readings.
            digest.update(again := file.read(entry.size))
            _update(digest, file, None)
        if again != content:
            raise BundleError(f"{name}: changed while it was read")
        return self._path.with_name(f"{self._path.name}{SIGNATURE_SUFFIX}"), digest.digest()

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[BufferedReader, int]]:
        entry = self._entries.get(name)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, "not in the zip")
        with self._path.open("rb") as file:
            file.seek(entry.offset)
            yield file, entry.size


def open_files(path: Path) -> Files:
    """Find a bundle's files.

    Raises:
        BundleError: There is no bundle there, or it cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a name with a null in it
        if isinstance(error, OSError) and error.errno not in _ABSENT:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
        raise BundleError(f"{path}: no such bundle: expected a {SUFFIX} file or folder") from error
    if stat.S_ISDIR(mode):
        return FolderFiles(path)
    if stat.S_ISREG(mode):
        return ZipFiles(path)
    raise BundleError(f"{path}: no such bundle: expected a {SUFFIX} file or folder")


def _update(digest: hashlib.blake2b, file: BufferedReader, count: int | None) -> None:
    """Add the next so many bytes of a file, or all that are left."""
    while count != 0 and (block := file.read(_BLOCK if count is None else min(count, _BLOCK))):
        digest.update(block)
        count = None if count is None else count - len(block)


def _why(error: OSError) -> str:
    return "missing from the bundle" if error.errno in _ABSENT else f"cannot be read: {error.strerror}"
