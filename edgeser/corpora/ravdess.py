"""`ravdess:DIR`: the speech of RAVDESS, read from its file names (Livingstone and Russo, 2018).

`03-01-05-02-01-01-12.wav` is audio only (03), speech (01), angry (05), strong (02), the first statement, said first,
by actor 12. Songs and videos are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from edgeser.corpora.folder import audio_files, check_folder, warn_unless_whole
from edgeser.corpora.utterance import Utterance
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import RAVDESS_CODES

FULL_RELEASE = 1440
"""Spoken recordings, audio only: 60 of each actor."""

ACTORS = tuple(f"{number:02d}" for number in range(1, 25))

STATEMENTS: Mapping[str, str] = MappingProxyType(
    {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
)
"""Fifth field of a file name."""

_SPEECH = re.compile(r"03-01-(0[1-8])-0[12]-(0[12])-0[12]-(0[1-9]|1[0-9]|2[0-4])")
_OTHER = re.compile(r"0[1-3]-0[12]-0[1-8]-0[12]-0[12]-0[12]-(0[1-9]|1[0-9]|2[0-4])")
_EXPECTED = "RAVDESS's folders Actor_01 to Actor_24 with files such as 03-01-05-01-02-01-12.wav"


def read_ravdess(path: Path) -> Iterator[Utterance]:
    """Read the spoken recordings, WAV or FLAC, sorted by name; the actor is the speaker, there are no sessions.

    Each name counts once: the usual download holds all of it again in `audio_speech_actors_01-24`.

    Raises:
        InputError: The folder holds no RAVDESS speech.
    """
    check_folder(path, _EXPECTED)
    files = {file.stem: file for file in audio_files(path)}
    utterances = [u for name in sorted(files) if (u := parse_ravdess(files[name])) is not None]
    if not utterances:
        raise InputError(f"{path}: no spoken recording among {len(files):,} audio files, expected {_EXPECTED}")
    strange = sorted(name for name in files if not _OTHER.fullmatch(name))
    warn_unless_whole(path, utterances, ("RAVDESS speech", FULL_RELEASE), ("actor", ACTORS), strange)
    yield from utterances


def parse_ravdess(file: Path) -> Utterance | None:
    """Read a file's name; `None` for a song, a video, or another name than RAVDESS gives."""
    match = _SPEECH.fullmatch(file.stem)
    if match is None:
        return None
    return Utterance(file.stem, file, RAVDESS_CODES[match[1]], STATEMENTS[match[2]], speaker=match[3])


def is_ravdess(path: Path) -> bool:
    """Say whether a folder holds a spoken recording of RAVDESS."""
    return any(parse_ravdess(file) for file in audio_files(path))
