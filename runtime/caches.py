"""Where files are kept that can be made again; also in a container or a service, which may have no home folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edgeser.runtime.errors import InputError

_NAME = "edgeser"
_OWN = 0o700  # nobody else is to put a file there: TensorRT trusts its plans


def cache_folder(name: str) -> Path:
    """Return the folder of a cache, whether it is there or not.

    It lies in `$XDG_CACHE_HOME/edgeser`; without that, in `~/.cache/edgeser`; without a home, or where nothing can be
    made in it, below `edgeser-<user's number>` in the folder for temporary files, which may be gone after a restart.

    Args:
        name: Of the cache, for example `plans`.

    Raises:
        InputError: There is no such place.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or ""
    if Path(cache).is_absolute():  # the specification of XDG says to leave relative paths alone
        return Path(cache) / _NAME / name
    folder = Path(".cache") / _NAME
    home = _home()
    if home is None or not ((home / folder).is_dir() or _can_be_made(home / folder)):
        home = _temporary()
    return home / folder / name


def ensure_home() -> None:
    """Set `HOME` where there is no home: libraries ask for one when they are imported, Vosk and matplotlib for example.

    Raises:
        InputError: There is no place for one.
    """
    if _home() is None:
        os.environ["HOME"] = str(_temporary())


def expand_user(path: str | os.PathLike[str], what: str) -> Path:
    """Return a path with `~` and `~name` in it replaced by the home folder.

    Args:
        path: The path.
        what: What it is, for the error's message.

    Raises:
        InputError: There is no such user, or no home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{what}: got {os.fspath(path)!r}, no such user or home: give the whole path") from error


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # neither HOME nor an entry for the user
        return None


def _can_be_made(folder: Path) -> bool:
    try:
        place = next(place for place in folder.parents if place.exists())
    except OSError:  # a folder above it that may not be entered
        return False
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _temporary() -> Path:
    """Return a folder for temporary files that is this user's own, made when it is not there."""
    folder = Path(tempfile.gettempdir()) / f"{_NAME}-{os.geteuid()}"
    todo = "set XDG_CACHE_HOME to a folder of yours"
    try:
        folder.mkdir(mode=_OWN, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise InputError(
            f"cache: there is no home folder, and {folder} cannot be made ({error.strerror}): {todo}"
        ) from error
    if folder.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise InputError(f"cache: there is no home folder, and {folder} is not this user's alone: {todo}")
    return folder
