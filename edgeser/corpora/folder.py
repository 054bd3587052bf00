"""What lies in a corpus's folder, and how a warning says what does not."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from edgeser.corpora.utterance import Utterance
from edgeser.runtime import folders
from edgeser.runtime.decoding import SOUND_SUFFIXES
from edgeser.runtime.errors import InputError

AUDIO_SUFFIXES = SOUND_SUFFIXES

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
    """Yield the files below a folder; see `edgeser.runtime.folders`.

    Args:
        root: Folder.
        depth: How many folders below `root` to enter; `None` for all.

    Raises:
        InputError: A folder may not be read: a corpus is taken whole or not at all.
    """
    return folders.visible_files(root, _refuse, depth)


def audio_files(root: Path) -> Iterator[Path]:
    """Yield the recordings below a folder, each name once: that nearest to the folder, a WAV before all others."""
    names: set[str] = set()
    for file in visible_files(root):
        stem, suffix = file.stem, file.suffix.lower()
        if suffix not in AUDIO_SUFFIXES or stem in names:
            continue
        names.add(stem)
        yield file.with_suffix(".wav") if suffix != ".wav" and file.with_suffix(".wav").is_file() else file


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


def _refuse(error: OSError) -> None:
    reason = error.strerror or str(error)
    raise InputError(f"{error.filename}: may not be read ({reason}): a part of the corpus would be missing") from error
