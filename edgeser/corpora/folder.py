"""What lies in a corpus's folder, and how a warning says what does not."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from edgeser.corpora.utterance import Utterance
from edgeser.runtime.errors import InputError

AUDIO_SUFFIXES = (".wav", ".flac")

_NAMED = 3  # a warning names this many of what is missing

_log = logging.getLogger(__name__)


def check_folder(path: Path, expected: str) -> None:
    """Refuse what is no folder.

    Raises:
        InputError: The path does not exist, or is a file.
    """
    if not path.is_dir():
        raise InputError(f"{path}: {'is a file' if path.exists() else 'no such folder'}, expected {expected}")


def visible_files(root: Path, depth: int | None = None) -> Iterator[Path]:
    """Yield the files below a folder, those nearest to it first, in a fixed order.

    Hidden ones are left out: copies made on macOS hold a resource fork `._name.wav` beside each `name.wav`.

    Args:
        root: Folder.
        depth: How many folders below `root` to enter; `None` for all.
    """
    level = [os.fspath(root)]
    while level:
        deeper: list[str] = []
        for folder in level:
            folders, files = _entries(folder)
            yield from (Path(folder, name) for name in files)
            deeper += [os.path.join(folder, name) for name in folders]  # noqa: PTH118 - 147,000 files are listed
        depth = None if depth is None else depth - 1
        level = [] if depth is not None and depth < 0 else deeper


def audio_files(root: Path) -> Iterator[Path]:
    """Yield the WAV and FLAC files below a folder, each name once: that nearest to the folder, a WAV before a FLAC."""
    names: set[str] = set()
    for file in visible_files(root):
        stem, suffix = file.stem, file.suffix.lower()
        if suffix not in AUDIO_SUFFIXES or stem in names:
            continue
        names.add(stem)
        yield file.with_suffix(".wav") if suffix == ".flac" and file.with_suffix(".wav").is_file() else file


def several(what: str, names: Sequence[str]) -> str:
    """Say `2 sessions (4, 5)`; nothing where there are none."""
    if not names:
        return ""
    shown = ", ".join([*names[:_NAMED], *(["..."] if len(names) > _NAMED else [])])
    return f"{len(names):,} {what}{'s' if len(names) > 1 else ''} ({shown})"


def warn_unless_whole(
    path: Path,
    utterances: Collection[Utterance],
    release: tuple[str, int],
    speakers: tuple[str, Sequence[str]],
    strange: Sequence[str],
) -> None:
    """Say in one line how a copy differs from the release; nothing where it does not.

    Args:
        path: The copy.
        utterances: What was found in it.
        release: The corpus's name, and how many utterances the whole of it has.
        speakers: What its speakers are called, such as `actor`, and all of them.
        strange: Names of files that are none of its.
    """
    name, count = release
    if len(utterances) == count and not strange:
        return
    what, everyone = speakers
    found = {utterance.speaker for utterance in utterances}
    lacking = several(what, [speaker for speaker in everyone if speaker not in found])
    other = several("file", strange)
    reasons = "".join([f"; missing: {lacking}" if lacking else "", f"; left out: {other}" if other else ""])
    _log.warning("%s: %s utterances, %s has %s%s", path, f"{len(utterances):,}", name, f"{count:,}", reasons)


def _entries(folder: str) -> tuple[list[str], list[str]]:
    """Return the names of the visible folders (links to folders are not followed) and files, sorted."""
    try:
        with os.scandir(folder) as entries:
            seen = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
            folders = [entry.name for entry in seen if entry.is_dir(follow_symlinks=False)]
            return folders, [entry.name for entry in seen if entry.is_file()]
    except OSError:  # a folder that may not be entered: what it holds counts as missing
        return [], []
