"""The journal of a run: every row as soon as it is known, so that a run that was cut off can go on.

JSON lines beside the file to come: a header that says what the rows were scored with, then one line a row. Only whole
lines count; whatever follows the last good one is cut off.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeser.runtime.errors import InputError
from edgeser.runtime.files import sync_path, writing
from edgeser.runtime.scoring.recordings import Recording
from edgeser.runtime.scoring.rows import Row

log = logging.getLogger(__name__)

_SYNC_S = 1.0  # at most so much work is done again after a power cut; after a kill, none
_START_OVER = "go on with what it was begun with, or start over with --restart (restart=True)"


def journal_path(out: Path) -> Path:
    """Return where the journal of an output file lies."""
    return out.with_name(f".{out.name}.journal")


class Journal:
    """Rows on the disk, by recording. One process at a time.

    Args:
        path: A journal to go on with, or a new one.
        header: What the rows are scored with; a journal of anything else is refused.
        restart: Throw away what is there.

    Raises:
        InputError: Another process writes it, it is no journal, or it was begun with something else.
        EdgeSerError: It cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], restart: bool = False) -> None:
        self.path = path
        self._places: dict[bytes, int] = {}  # by the recording's key: where its line begins
        self._synced_s = time.monotonic()
        with writing(path):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock()
            self._end = 0 if restart else self._read(json.dumps(header))
            with writing(path):
                os.ftruncate(self._fd, self._end)
                if not self._end:
                    self._write(json.dumps(header))
                    sync_path(path.parent)
        except BaseException:
            os.close(self._fd)
            raise
        self._reader = path.open("rb")

    def __contains__(self, recording: Recording) -> bool:
        """Whether a recording has a row."""
        return bytes.fromhex(recording.key) in self._places

    def __len__(self) -> int:
        return len(self._places)

    def append(self, recording: Recording, row: Row) -> None:
        """Keep a row; it is with the operating system when this returns, and on the disk within a second.

        Raises:
            EdgeSerError: It cannot be written; what was there before stays as it was.
        """
        key, place = recording.key, self._end
        with writing(self.path):
            self._write(json.dumps({"key": key, "row": row}))
            if time.monotonic() - self._synced_s >= _SYNC_S:
                os.fsync(self._fd)
                self._synced_s = time.monotonic()
        self._places[bytes.fromhex(key)] = place

    def row(self, recording: Recording) -> dict[str, Any]:
        """Return a recording's row, the last that was kept."""
        self._reader.seek(self._places[bytes.fromhex(recording.key)])
        row: dict[str, Any] = json.loads(self._reader.readline())["row"]
        return row

    def remove(self) -> None:
        """Remove the file; the rows have found another place."""
        self.path.unlink()
        sync_path(self.path.parent)

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

    def _read(self, header: str) -> int:
        """Find the rows, and return where the last good line ends; 0 when there is no header yet."""
        with open(self._fd, "rb", closefd=False) as file:
            first = file.readline()
            if not first.endswith(b"\n") and f"{header}\n".encode().startswith(first):
                return 0  # cut off before the first line was whole
            self._check_header(first, json.loads(header))
            end = len(first)
            for line in file:
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
        return end

    def _check_header(self, line: bytes, header: Mapping[str, Any]) -> None:
        try:
            begun = json.loads(line)
        except ValueError:
            begun = None
        if not isinstance(begun, dict) or begun.keys() != header.keys():
            raise InputError(
                f"{self.path}: is no journal that this EdgeSER reads: start over with --restart (restart=True)"
            )
        different = [f"{name} {begun[name]}, not {value}" for name, value in header.items() if begun[name] != value]
        if different:
            raise InputError(f"{self.path}: was begun with {'; '.join(different)}: {_START_OVER}")

    def _size(self) -> int:
        return os.fstat(self._fd).st_size

    def _write(self, line: str) -> None:
        """Write a line at the end: in one call, so that no signal's exception comes between its parts."""
        content = f"{line}\n".encode()
        written = os.pwrite(self._fd, content, self._end)
        while written < len(content):  # a disk that is nearly full takes a part; the next call says why
            try:
                written += os.pwrite(self._fd, content[written:], self._end + written)
            except OSError:
                os.ftruncate(self._fd, self._end)
                raise
        self._end += len(content)


def _entry(line: bytes) -> tuple[bytes, bool] | None:
    """Return a line's key and whether its recording failed; `None` for a line that is not a whole row."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
        key, row = bytes.fromhex(entry["key"]), entry["row"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (key, "error" in row) if isinstance(row, dict) else None
