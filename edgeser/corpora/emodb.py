"""`emodb:DIR`: the Berlin Database of Emotional Speech, read from its file names (Burkhardt et al., 2005).

`03a01Wa.wav` is speaker 03, sentence a01, anger (W, for Wut), version a.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from edgeser.corpora.folder import audio_files, check_folder, warn_unless_whole
from edgeser.corpora.utterance import Utterance
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import EMODB_CODES

FULL_RELEASE = 535
"""Recordings of the ten speakers together."""

SPEAKERS = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")

SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "a01": "Der Lappen liegt auf dem Eisschrank.",
        "a02": "Das will sie am Mittwoch abgeben.",
        "a04": "Heute abend könnte ich es ihm sagen.",
        "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
        "a07": "In sieben Stunden wird es soweit sein.",
        "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
        "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
        "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
        "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
        "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
    }
)
"""Third to fifth character of a file name."""

_NAME = re.compile(rf"(\d\d)({'|'.join(SENTENCES)})([{''.join(EMODB_CODES)}])[a-z]", re.ASCII)
_EXPECTED = "EmoDB's folder with files such as wav/03a01Wa.wav"


def read_emodb(path: Path) -> Iterator[Utterance]:
    """Read the recordings, WAV or FLAC, sorted by name; there are no sessions.

    Raises:
        InputError: The folder holds no recording of EmoDB.
    """
    check_folder(path, _EXPECTED)
    files = {file.stem: file for file in audio_files(path)}
    utterances = [u for name in sorted(files) if (u := parse_emodb(files[name])) is not None]
    if not utterances:
        raise InputError(f"{path}: no recording among {len(files):,} audio files, expected {_EXPECTED}")
    strange = sorted(files.keys() - {utterance.id for utterance in utterances})
    warn_unless_whole(path, utterances, ("EmoDB", FULL_RELEASE), ("speaker", SPEAKERS), strange)
    yield from utterances


def parse_emodb(file: Path) -> Utterance | None:
    """Read a file's name; `None` for another name than EmoDB gives."""
    match = _NAME.fullmatch(file.stem)
    if match is None:
        return None
    return Utterance(file.stem, file, EMODB_CODES[match[3]], SENTENCES[match[2]], speaker=match[1])


def is_emodb(path: Path) -> bool:
    """Say whether a folder holds a recording of EmoDB."""
    return any(parse_emodb(file) for file in audio_files(path))
