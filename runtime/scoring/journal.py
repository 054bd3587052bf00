"""The journal of a file of rows: every row as soon as it is known, so that no recording is scored twice.

JSON lines beside the file to come: a header that says what the rows were scored with, then one line a row, and at the
end of a run a line that says so. Only whole lines count; whatever follows the last good one is cut off.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeser.runtime.errors import InputError
from edgeser.runtime.files import replacing, sync_path, writing
from edgeser.runtime.scoring.recordings import Recording
from edgeser.runtime.scoring.rows import Row

log = logging.getLogger(__name__)

_SYNC_S = 1.0  # at most so much work is done again after a power cut; after a kill, none
_MANY = 10_000  # lines too many: 10 MB or so
_USUAL = {"normalize": "none", "answered": 1.0}  # of journals that were begun before their headers said so
_FINISHED = b'{"finished": true}\n'
_KINDS = ("label", "mean", "error")  # one of them is in every row
_START_OVER = "go on with what it was begun with, or start over with --restart (restart=True)"


def derived_key(key: bytes, what: bytes) -> bytes:
    """Return 16 bytes that stand for a recording, as `key` does, and for what was done with it."""
    return hashlib.blake2b(key + what, digest_size=16).digest()


def journal_path(out: Path) -> Path:
    """Return where the journal of an output file lies."""
    return out.with_name(f".{out.name}.journal")


def key_of(recording: Recording) -> bytes:
    """Return 16 bytes that stand for a recording: its fields, and the size and the last change of its file.

    To be asked for before the file is read: one that changes meanwhile is then another the next time.
    """
    fields: list[Any] = [recording.id, os.fspath(recording.path), recording.transcript, recording.emotion]
    try:
        now = recording.path.stat()
        fields += [recording.start_s, recording.end_s, now.st_size, now.st_mtime_ns]
    except (OSError, ValueError):  # reading it will say what is wrong
        fields += [recording.start_s, recording.end_s, None, None]
    # surrogatepass: names of files need not be UTF-8
    content = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).digest()


class Journal:
    """Rows on the disk, by the keys of their recordings. One process at a time.

    Args:
        path: A journal to go on with, or a new one.
        header: What the rows are scored with. A finished journal of anything else is begun anew, an unfinished one
            refused.
        restart: Throw away what is there.

    Raises:
        InputError: Another process writes it, it is no journal, or it was begun with something else.
        EdgeSerError: It cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], restart: bool = False) -> None:
        self.path = path
        self._places: dict[bytes, int] = {}  # by key: where its line begins
        self._lines = 0  # rows, those that count no more among them
        self._synced_s = time.monotonic()
        self._header = f"{json.dumps(header)}\n".encode()
        with writing(path):
            self._fd = _opened(path)
        try:
            self._lock()
            self._end = 0 if restart else self._read()
            with writing(path):
                os.ftruncate(self._fd, self._end)
                if not self._end:
                    self._write(self._header)
                    sync_path(path.parent)
        except BaseException:
            os.close(self._fd)
            raise
        self._reader = os.fdopen(os.dup(self._fd), "rb")

    def __contains__(self, key: bytes) -> bool:
        """Whether a recording has a row."""
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def append(self, key: bytes, row: Row) -> None:
        """Keep a row; it is with the operating system when this returns, and on the disk within a second.

        Raises:
            EdgeSerError: It cannot be written; what was there before stays as it was.
        """
        place = self._end
        with writing(self.path):
            self._write(f"{json.dumps({'key': key.hex(), 'row': row})}\n".encode())
            if time.monotonic() - self._synced_s >= _SYNC_S:
                os.fsync(self._fd)
                self._synced_s = time.monotonic()
        self._places[key] = place
        self._lines += 1

    def row(self, key: bytes) -> dict[str, Any]:
        """Return a recording's row, the last that was kept."""
        row: dict[str, Any] = json.loads(self._line(key))["row"]
        return row

    def finish(self, keys: Mapping[str, bytes], more: Iterable[bytes] = ()) -> None:
        """Note that a file has all its rows; then close.

        A journal of many more lines than that file is written anew, without rows that nobody will ask for: of
        recordings that changed, or whose file is gone.

        Args:
            keys: Those whose rows are in the file, by the recordings' ids.
            more: Those whose rows will be asked for again, too.
        """
        current = {*keys.values(), *more}
        if self._lines > 2 * len(current) + _MANY:
            needed = self._needed(keys, current)
            if len(needed) < self._lines:
                with replacing(self.path) as part, part.open("wb") as file:
                    file.write(self._header)
                    file.writelines(self._line(key) for key in needed)
                    file.write(_FINISHED)
                return
        with writing(self.path):
            self._write(_FINISHED)

    def close(self) -> None:
        """Put the rows on the disk and let the file go."""
        self._reader.close()
        try:
            with writing(self.path):
                os.fsync(self._fd)
        finally:
            os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{self.path}: another process is writing it: wait for it, or choose another file"
            ) from error
        except OSError as error:  # a file system without locks
            log.warning("%s: cannot be locked (%s): do not run the same command twice at once", self.path, error)

    def _line(self, key: bytes) -> bytes:
        self._reader.seek(self._places[key])
        return self._reader.readline()

    def _needed(self, keys: Mapping[str, bytes], current: Set[bytes]) -> list[bytes]:
        return [key for key in self._places if key in current or self._may_come_back(self.row(key), keys)]

    @staticmethod
    def _may_come_back(row: Row, asked: Mapping[str, bytes]) -> bool:
        return row.get("id") not in asked and Path(row.get("path", "")).exists()

    def _read(self) -> int:
        """Find the rows, and return where the last good line ends; 0 when it is to be begun."""
        with open(self._fd, "rb", closefd=False) as file:
            first = file.readline()
            if not first.endswith(b"\n") and self._header.startswith(first):
                return 0  # cut off before the first line was whole
            different = self._differences(first)
            finished, end = False, len(first)
            for line in file:
                finished = line == _FINISHED
                if finished:
                    break
                entry = _entry(line)
                if entry is None:
                    log.info("%s: its last %d bytes are torn and scored again", self.path, self._size() - end)
                    break
                key, failed = entry
                # What failed is tried again: a disk may be back, a copy complete.
                if failed:
                    self._places.pop(key, None)
                else:
                    self._places[key] = end
                end += len(line)
                self._lines += 1
        if not different:
            return end
        if not finished:
            raise InputError(f"{self.path}: was begun with {different}: {_START_OVER}")
        log.info("%s: its rows are of %s: all recordings are scored", self.path, different)
        self._places.clear()
        self._lines = 0
        return 0

    def _differences(self, line: bytes) -> str:
        """Say in what a header differs from ours."""
        header = {**_USUAL, **json.loads(self._header)}
        try:
            begun = json.loads(line)
        except (ValueError, RecursionError):
            begun = None
        if isinstance(begun, dict):
            begun = {**_USUAL, **begun}
        if not isinstance(begun, dict) or begun.keys() != header.keys():
            raise InputError(
                f"{self.path}: is no journal that this EdgeSER reads: start over with --restart (restart=True)"
            )
        return "; ".join(f"{name} {begun[name]}, not {value}" for name, value in header.items() if begun[name] != value)

    def _size(self) -> int:
        return os.fstat(self._fd).st_size

    def _write(self, content: bytes) -> None:
        """Write a line at the end: in one call, so that no signal's exception comes between its parts."""
        written = os.pwrite(self._fd, content, self._end)
        while written < len(content):  # a disk that is nearly full takes a part; the next call says why
            try:
                written += os.pwrite(self._fd, content[written:], self._end + written)
            except OSError:
                os.ftruncate(self._fd, self._end)
                raise
        self._end += len(content)


def _opened(path: Path) -> int:
    """Open a file of its own: through a link, another file would be cut and written."""
    try:
        # NONBLOCK: or a pipe waits for its other end
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise InputError(f"{path}: is a link, expected a file of its own: remove it") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: is no regular file, expected a journal: remove it")
    return descriptor


def _entry(line: bytes) -> tuple[bytes, bool] | None:
    """Return a line's key and whether its recording failed; `None` for a line that is not a whole row."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
        key, row = bytes.fromhex(entry["key"]), entry["row"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (key, "error" in row) if isinstance(row, dict) and not row.keys().isdisjoint(_KINDS) else None
