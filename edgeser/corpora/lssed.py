"""`lssed:DIR`: LSSED, or any corpus that is one table and a folder of audio files.

LSSED comes on request and its layout is not published. A file `lssed.toml` in the folder says where things are; without
it, `metadata.csv` names files of `wav` in the columns of `Columns`.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgeser.corpora.folder import AUDIO_SUFFIXES, check_folder, several, visible_files
from edgeser.corpora.mojibake import decode
from edgeser.corpora.utterance import Utterance
from edgeser.runtime.decoding import VIDEO_SUFFIXES
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import emotion_name
from edgeser.toml_file import read_toml

CONFIGURATION = "lssed.toml"

OWN_CLASSES = ("excited", "excitement", "exc")
"""LSSED has excited beside happy, and the papers' four classes leave it out: it is happy only where `lssed.toml` says
so."""

_EXPECTED = f"metadata.csv and wav, or {CONFIGURATION} that says where they are"
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
_SUFFIXES = (*AUDIO_SUFFIXES, *VIDEO_SUFFIXES)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """Names of the table's columns. `file` and `emotion` must be there, the others where they are known."""

    file: str = "file"
    emotion: str = "emotion"
    transcript: str = "transcript"
    speaker: str = "speaker"
    split: str = "split"


@dataclass(frozen=True)
class Layout:
    """What `lssed.toml` may say.

    Attributes:
        metadata: The table, relative to the folder.
        audio: Folder of the audio files, relative to the folder.
        delimiter: What separates the table's cells.
        columns: Names of its columns.
        named: Columns that `lssed.toml` names: they have to be there.
        emotions: Emotion that a label stands for, for labels such as `0`; they go before the known spellings.
    """

    metadata: str = "metadata.csv"
    audio: str = "wav"
    delimiter: str = ","
    columns: Columns = Columns()
    named: tuple[str, ...] = ()
    emotions: Mapping[str, str] = field(default_factory=dict)

    def emotion(self, label: str) -> str | None:
        """Return the emotion that a label names, `None` where it is none that is known."""
        key = label.strip().lower()
        if key in self.emotions:
            return self.emotions[key]
        try:
            return None if key in OWN_CLASSES else emotion_name(key)
        except InputError:
            return None


def read_lssed(path: Path) -> Iterator[Utterance]:
    """Read the table's rows in their order; `session` is empty, `split` where the table has it.

    Rows with an unknown label or without an audio file are left out, with one warning that counts them.

    Raises:
        InputError: The folder, `lssed.toml` or the table is not usable, or no row has audio.
    """
    check_folder(path, _EXPECTED)
    layout = read_layout(path)
    table = path / layout.metadata
    rows = _rows(table, layout)
    audio = _AudioIndex(path / layout.audio)
    unknown: Counter[str] = Counter()
    missing: list[str] = []
    seen: set[str] = set()
    utterances: list[Utterance] = []
    for line, cells in rows:
        name, emotion = cells[layout.columns.file], layout.emotion(cells[layout.columns.emotion])
        split = _split(cells.get(layout.columns.split, ""), f"{table}, line {line}")
        found = audio.find(name)
        if emotion is None:
            unknown[cells[layout.columns.emotion]] += 1
        elif found is None:
            missing.append(name or f"line {line}")
        elif found[0] in seen:
            raise InputError(f"{table}, line {line}: {name!r} stands twice")
        else:
            seen.add(found[0])
            words, speaker = cells.get(layout.columns.transcript), cells.get(layout.columns.speaker, "")
            utterances.append(Utterance(*found, emotion, words, speaker=speaker, split=split))
    if not utterances:
        raise InputError(
            f"{path}: no audio in {layout.audio} for any labelled row of {layout.metadata}: {_hint(audio)}"
        )
    _warn_of_gaps(path, len(utterances), unknown, missing)
    yield from utterances


def is_lssed(path: Path) -> bool:
    """Say whether a folder has a `lssed.toml`, or the table that is expected without one."""
    return any((path / name).is_file() for name in (CONFIGURATION, Layout.metadata))


def read_layout(path: Path) -> Layout:
    """Read a folder's `lssed.toml`, or return the layout that is expected without one.

    Raises:
        InputError: It is not TOML, or says something else than a `Layout` does.
    """
    file = path / CONFIGURATION
    return parse_layout(read_toml(file), str(file)) if file.exists() else Layout()


def parse_layout(content: Mapping[str, Any], where: str) -> Layout:
    """Check and take over the content of a `lssed.toml`."""
    known = [one.name for one in fields(Layout) if one.name != "named"]
    texts = {key: value for key, value in content.items() if key not in ("columns", "emotions")}
    columns, emotions = (_table(content, key, where) for key in ("columns", "emotions"))
    _check_keys(content, known, where)
    _check_keys(columns, [one.name for one in fields(Columns)], f"{where}, [columns]")
    _check_texts(texts, where)
    _check_texts(columns, f"{where}, [columns]")
    _check_texts(emotions, f"{where}, [emotions]")
    if len(texts.get("delimiter", ",")) != 1 or texts.get("delimiter") in ("\n", "\r", '"'):
        raise InputError(f"{where}: delimiter is {texts['delimiter']!r}, expected one character such as ',' or '\\t'")
    try:
        labels = {label.strip().lower(): emotion_name(emotion) for label, emotion in emotions.items()}
    except InputError as error:
        raise InputError(f"{where}, [emotions]: {error}") from error
    return Layout(**texts, columns=Columns(**columns), named=tuple(columns.values()), emotions=labels)


class _AudioIndex:
    """The audio files of a folder, by what a table may call them: path or name, with or without a suffix."""

    def __init__(self, folder: Path) -> None:
        check_folder(folder, "the folder of the audio files")
        self._files: dict[str, Path] = {}  # by path below the folder, without suffix
        self._places: dict[str, str] = {}  # by name; empty where several files have it
        before = len(os.path.join(folder, ""))  # noqa: PTH118 - pathlib is slow for LSSED's 147,025 files
        for file in visible_files(folder):
            place, suffix = os.path.splitext(os.fspath(file)[before:])  # noqa: PTH122
            if suffix.lower() in _SUFFIXES and place not in self._files:
                name = place.rpartition(os.sep)[2]
                self._files[place] = file
                self._places[name] = "" if name in self._places else place

    def __len__(self) -> int:
        return len(self._files)

    def find(self, cell: str) -> tuple[str, Path] | None:
        """Return the id and the file that a cell names; a bare name must be that of one file alone."""
        path = posixpath.normpath(cell.replace("\\", "/"))
        name = path.rpartition("/")[2]
        places = (path, posixpath.splitext(path)[0])
        names = (name, posixpath.splitext(name)[0])
        for place in (*places, *(self._places.get(name, "") for name in names)):
            if place in self._files:
                return place, self._files[place]
        return None


def _rows(table: Path, layout: Layout) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row's line number, and its cells by column."""
    if not table.is_file():
        raise InputError(f"{table}: no such table, expected {_EXPECTED}")
    try:
        text = decode(table.read_bytes())
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=layout.delimiter)
        header = [name.strip() for name in reader.fieldnames or ()]
        needed = {layout.columns.file, layout.columns.emotion, *layout.named}
        lacking = sorted(needed - set(header))
        if lacking:
            raise InputError(
                f"{table}: no column {', '.join(lacking)}, it has {', '.join(header) or 'none'}: "
                f"name its columns under [columns] of {CONFIGURATION}"
            )
        reader.fieldnames = header
        for row in reader:
            # More cells than columns come under None, and a short row's last cells are None.
            yield reader.line_num, {key: (row[key] or "").strip() for key in header}
    except OSError as error:
        raise InputError(f"{table}: not readable ({error.strerror})") from error
    except csv.Error as error:
        raise InputError(f"{table}: not readable as CSV: {error}") from error


def _split(cell: str, where: str) -> str:
    if cell and cell.lower() not in _SPLITS:
        raise InputError(f"{where}: split is {cell!r}, expected one of {', '.join(_SPLITS)}")
    return _SPLITS[cell.lower()] if cell else ""


def _table(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, dict):
        raise InputError(f"{where}: {key} is {table!r}, expected a table [{key}]")
    return table


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        raise InputError(f"{where}: got {', '.join(map(repr, unknown))}, expected {', '.join(known)}")


def _check_texts(table: Mapping[str, Any], where: str) -> None:
    for key, value in table.items():
        if not isinstance(value, str) or not value or "\0" in value:
            raise InputError(f"{where}: {key!r} is {value!r}, expected a text in quotes")


def _hint(audio: _AudioIndex) -> str:
    return f"{len(audio):,} audio files are there, expected their names in the column of files"


def _warn_of_gaps(path: Path, used: int, unknown: Counter[str], missing: Sequence[str]) -> None:
    reasons = []
    if unknown:
        labels = [f"{label or 'none'!r} {count:,}" for label, count in unknown.most_common()]
        reasons.append(f"{unknown.total():,} rows left out for {several('unknown label', labels)}")
    if missing:
        reasons.append(f"missing: {several('audio file', missing)}")
    if reasons:
        _log.warning("%s: %s utterances; %s", path, f"{used:,}", "; ".join(reasons))
