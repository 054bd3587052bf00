"""Which recordings there are: files as they are named, and what folders hold."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeser.runtime.decoding import SOUND_SUFFIXES, VIDEO_SUFFIXES
from edgeser.runtime.errors import InputError
from edgeser.runtime.folders import visible_files
from edgeser.runtime.scoring.recordings import Recording

AUDIO_SUFFIXES = (*SOUND_SUFFIXES, *VIDEO_SUFFIXES)
_NAMED = 6  # a line names this many suffixes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        recordings: In a fixed order.
        left_out: Files of folders that were left out, counted by suffix.
        closed: Folders that may not be read, each with the reason.
    """

    recordings: Sequence[Recording]
    left_out: Counter[str]
    closed: Sequence[str]


def find_recordings(paths: Sequence[Path]) -> list[Recording]:
    """List recordings; see `search`."""
    return list(search(paths).recordings)


def search(paths: Sequence[Path]) -> Found:
    """List recordings: files that are named, whatever they are, and those in folders whose suffix is a recording's.

    Folders are searched in all their depth, linked ones too; hidden files are left out. A file in a folder is named by
    its path below the folder. Where two files would get the same name, all are named by their whole paths; a file that
    is met twice is listed once. One line each says what was left out, and which folders may not be read.

    Raises:
        InputError: A path does not exist, or nothing was found.
    """
    found: dict[str, Recording] = {}  # by absolute path
    left_out: Counter[str] = Counter()
    closed: list[OSError] = []
    taken = _taken()
    for path in paths:
        if path.is_dir():
            files = list(visible_files(path, closed.append))
            left_out.update(file.suffix.lower() for file in files if file.suffix.lower() not in taken)
            for file in sorted(file for file in files if file.suffix.lower() in taken):
                found.setdefault(os.path.abspath(file), Recording(str(file.relative_to(path)), file))  # noqa: PTH100
        elif path.is_file():
            found.setdefault(os.path.abspath(path), Recording(path.name, path))  # noqa: PTH100
        else:
            raise InputError(f"{path}: no such file or folder")
    reasons = [f"{error.filename}: {error.strerror or error}" for error in closed]
    if not found:
        raise InputError(f"{', '.join(map(str, paths))}: no audio found{_why(left_out, reasons)}")
    if left_out:
        log.info("left out: %s", _counts(left_out))
    for reason in reasons:
        log.warning("left out, may not be read: %s", reason)
    return Found(_told_apart(list(found.values())), left_out, reasons)


def _taken() -> frozenset[str]:
    """Return the suffixes of what can be read here."""
    return frozenset(AUDIO_SUFFIXES if importlib.util.find_spec("av") else SOUND_SUFFIXES)


def _told_apart(recordings: list[Recording]) -> list[Recording]:
    if len({recording.id for recording in recordings}) == len(recordings):
        return recordings
    return [Recording(str(recording.path), recording.path) for recording in recordings]


def _why(left_out: Counter[str], closed: Iterable[str]) -> str:
    closed = [f"may not be read: {reason}" for reason in closed]
    reasons = [*([f"left out: {_counts(left_out)}"] if left_out else []), *closed]
    return f" ({'; '.join(reasons)})" if reasons else f", expected {', '.join(AUDIO_SUFFIXES)} files"


def _counts(left_out: Counter[str]) -> str:
    """Say `3 .txt, 2 .mp4 (PyAV is not installed: pip install 'edgeser[video]')`."""
    shown = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in left_out.most_common(_NAMED)]
    more = sum(left_out.values()) - sum(count for _, count in left_out.most_common(_NAMED))
    text = ", ".join([*shown, *([f"{more:,} others"] if more else [])])
    if any(suffix in VIDEO_SUFFIXES for suffix in left_out):
        return f"{text} files; of videos the sound is read with PyAV: pip install 'edgeser[video]'"
    return f"{text} files, whose names are not those of recordings"
