"""Files that are either whole or not there: written beside their place, then renamed; what hinders it is one line."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeser.runtime.errors import EdgeSerError, InputError

_PART = re.compile(r"\.(?P<name>.+)\.(?P<process>[1-9]\d{0,6})\.part", re.DOTALL)  # as `_part` makes them
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TODO = {
    errno.ENOENT: "check the name",
    errno.ENOTDIR: "check the name",
    errno.EISDIR: "name a file",
    errno.EEXIST: "choose another name",
    errno.ENOTEMPTY: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.ELOOP: "mend the links",
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose another place",
}
"""What the user can do about a path that was named; what is not here is a failure of the machine."""


def refusal(error: OSError, written: Path | None = None) -> EdgeSerError:
    """Return what the operating system refused as one of our errors, in one line.

    Args:
        error: What it raised.
        written: The file that was being written; `None` for whatever the error names.

    Returns:
        An `InputError` where another path is the answer; an `EdgeSerError` for a failure, a full disk for example.
    """
    reason = error.strerror or str(error) or type(error).__name__
    if written is not None:
        reason = f"{written}: cannot be written ({reason})"
    elif error.filename is not None:
        reason = f"{os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename}: {reason}"
    if error.errno in _FULL:
        return EdgeSerError(f"{reason}: make room, then run the same again: it goes on where it was")
    todo = _TODO.get(error.errno or 0)
    return EdgeSerError(f"{reason}: see to it, then run it again") if todo is None else InputError(f"{reason}: {todo}")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while `path` is written into one line.

    Raises:
        InputError: The folder of `path` does not exist, or it is a folder, or it may not be written to.
        EdgeSerError: Anything else, a full disk for example.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: its folder does not exist: create {path.parent} first") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, expected a file name") from error
    except OSError as error:
        raise refusal(error, path) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well.

    When the block raises, the temporary file is removed and an older file at `path` stays as it was.

    Args:
        path: The file to write.
        sync: Put it on the disk before it takes its name, so that a power cut leaves the old file or the new one, never
            an empty one. Without, a file that can be made again is written faster.

    Raises:
        InputError: The folder of `path` does not exist or may not be written to, or `path` is a folder.
        EdgeSerError: It cannot be written, for want of room for example.
    """
    target = Path(path)
    check_file(target)
    part = part_of(target)
    try:
        try:
            yield part
            if sync:
                sync_path(part)
            part.replace(target)
            if sync:
                sync_path(target.parent)
        except OSError as error:
            if error.filename not in (None, str(part), str(target)):
                raise
            if isinstance(error, FileNotFoundError):
                raise  # the block wrote nothing
            raise refusal(error, target) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically; see `replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: Path, todo: str) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Args:
        path: The file.
        todo: What to do where it is damaged.

    Raises:
        InputError: It is not readable as one.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is damaged, not readable as JSON ({type(error).__name__}): {todo}") from error
    except OSError as error:
        raise refusal(error) from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged, holds no JSON object: {todo}")
    return content


@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; when the block raises, those that were made and are empty go again."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()
        raise


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write several files into a folder, which is made where it is not there; all are written before any is replaced.

    An older file of the last one's name goes first and the new one comes last, so a folder that has it is whole.

    Raises:
        InputError: The folder cannot be made or written to.
        EdgeSerError: There is no room, or the disk fails; older files stay.
    """
    check_folder(folder)
    parts = {part_of(folder / name): folder / name for name in files}
    *_, name = files
    last = folder / name
    with writing(last), making(folder):
        try:
            for part, content in zip(parts, files.values(), strict=True):
                part.write_bytes(content)
                sync_path(part)
            last.unlink(missing_ok=True)
            for part, target in parts.items():
                part.replace(target)
            sync_path(folder)
        finally:
            for part in parts:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Put a file on the disk; of a folder, its names: a new name, or one that was removed, survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot do that for folders
            raise
    finally:
        os.close(descriptor)


def check_file(path: Path) -> None:
    """Find out, before the work is done, whether a file can be written at `path`.

    Raises:
        InputError: Its folder does not exist or may not be written to, it is a folder, or its name is too long.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist: create {path.parent} first")
    with writing(path), contextlib.suppress(FileNotFoundError):
        os.lstat(_part(path))  # the longer name
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file name")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: {path.parent} may not be written to: name another folder")


def check_folder(folder: Path, purpose: str = "write into") -> None:
    """Find out, before the work is done, whether a folder can be made, or written to where it is there.

    Raises:
        InputError: The path, or something above it, is a file or may not be written to, or its name is too long.
    """
    with writing(folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(_part(folder))
    place = _existing(folder)
    if not place.is_dir():
        raise InputError(f"{folder}: {place} is a file, expected a folder to {purpose}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: {place} may not be written to: name another folder")


def check_room(path: Path, size: int) -> None:
    """Find out, before the work is done, whether there is room for what will be written.

    Args:
        path: Where to; its folders may not be there yet.
        size: Bytes.

    Raises:
        EdgeSerError: There is not.
    """
    place = _existing(path.absolute())
    free = shutil.disk_usage(place).free
    if free < size:
        raise EdgeSerError(
            f"{path}: needs {megabytes(size)}, {megabytes(free)} are free: make room, or name another place"
        )


def megabytes(size: float) -> str:
    """Say `1.5 MB`."""
    return f"{size / 1e6:,.1f} MB"


def part_of(target: Path) -> Path:
    """Return where this process writes a file or folder before it takes its name.

    What processes that were killed have left there goes, as far as it lay there when this one first wrote in the
    folder: so that many files in one folder are no work.
    """
    for left in _left_behind(target.parent.absolute()).pop(target.name, ()):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                left.unlink()
    return _part(target)


@functools.cache
def _left_behind(folder: Path) -> dict[str, list[Path]]:
    """Find a folder's parts whose processes are gone, by the name of what they were to be."""
    found: dict[str, list[Path]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _PART.fullmatch(entry.name)
            if match is not None and not _runs(int(match["process"])):
                found.setdefault(match["name"], []).append(folder / entry.name)
    return found


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")
