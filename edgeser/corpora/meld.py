"""`meld:DIR`: MELD as it is released, seven emotions, with the official train, dev and test splits.

Labels and words come from `train_sent_emo.csv` and its two sisters, audio from one file an utterance: the release's
mp4 files (through PyAV, the extra `video`), or copies of them as WAV or FLAC, which go first.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edgeser.corpora.folder import check_folder, several, visible_files
from edgeser.corpora.mojibake import decode, repair
from edgeser.corpora.utterance import Utterance
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import SEVEN_EMOTIONS, emotion_name

FULL_RELEASE: Mapping[str, int] = MappingProxyType({"train": 9989, "dev": 1109, "test": 2610})
"""Rows of each split's table; two of the 13,708 have no usable audio."""

BROKEN: Mapping[str, str] = MappingProxyType({"train/dia125_utt3": ".mp4", "dev/dia110_utt7": ""})
"""Utterances that the release has no sound of, and the suffix of the file that cannot be decoded; none where there is
no file."""

COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")

_FOLDERS = {
    "train": ("train_splits", "train"),
    "dev": ("dev_splits_complete", "dev_splits", "dev"),
    "test": ("output_repeated_splits_test", "test_splits", "test"),
}
_SPLIT_OF = {f"{name}{copy}": split for split, names in _FOLDERS.items() for name in names for copy in ("", "_wav")}
_SUFFIXES = (".wav", ".flac", ".mp4")  # what needs no decoder goes first
_DEPTH = 3  # <above>/MELD.Raw/train/train_splits
_EXPECTED = "MELD's tables (train_sent_emo.csv ...) and folders (train_splits ...): give the unpacked MELD.Raw folder"
_NUMBER = re.compile(r"(\d{1,9})(?:\.0)?", re.ASCII)  # tables that went through pandas say 3.0
_AUDIO = re.compile(r"(final_videos_test)?(dia\d{1,9}_utt\d{1,9})", re.ASCII)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: `dia0_utt0`, unique in its split.
        emotion: One of the seven.
        speaker: As the table spells it.
        words: Transcript, punctuation repaired.
    """

    name: str
    emotion: str
    speaker: str
    words: str


def read_meld(path: Path) -> Iterator[Utterance]:
    """Read every labelled utterance that has an audio file: train, dev, test, each as its table is ordered.

    A dialogue is no session: `session` is empty, `split` is the official one, and ids are such as `train/dia0_utt0`.
    What has no audio is left out, with one warning that names the two the release itself lacks and counts the others.

    Args:
        path: `MELD.Raw` or another folder that holds, at most three folders deep, the tables and the audio.

    Raises:
        InputError: The folder is not MELD's, a table is not readable, or no utterance has audio.
    """
    check_folder(path, _EXPECTED)
    tables, audio = _find(path)
    if not tables:
        raise InputError(f"{path}: holds none of {', '.join(_tables())}, expected {_EXPECTED}")
    utterances: list[Utterance] = []
    missing: list[str] = []
    unusable: list[str] = []
    rows = Counter(dict.fromkeys(tables, 0))
    for split, table in tables.items():
        for row in read_table(table, unusable):
            rows[split] += 1
            name = f"{split}/{row.name}"
            file = audio.get((split, row.name))
            if file is None or file.suffix.lower() == BROKEN.get(name):
                missing.append(name)
            else:
                utterances.append(Utterance(name, file, row.emotion, row.words, speaker=row.speaker, split=split))
    if not utterances:
        raise InputError(f"{path}: no audio for any of {rows.total():,} labelled utterances, expected {_EXPECTED}")
    _warn_of_gaps(path, len(utterances), rows, missing, unusable)
    yield from utterances


def read_table(table: Path, unusable: list[str]) -> Iterator[Row]:
    """Read a table's rows, each utterance once; lines that are not usable are added to `unusable`.

    Raises:
        InputError: The file is not CSV, or lacks a column.
    """
    seen: set[str] = set()
    try:
        reader = csv.DictReader(io.StringIO(decode(table.read_bytes()), newline=""))
        lacking = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if lacking:
            raise InputError(
                f"{table}: no column {', '.join(lacking)}: expected MELD's header with {', '.join(COLUMNS)}"
            )
        for cells in reader:
            row = parse_row(cells)
            if row is None or row.name in seen:
                unusable.append(f"{table.name} line {reader.line_num}")
            else:
                seen.add(row.name)
                yield row
    except OSError as error:
        raise InputError(f"{table}: not readable ({error.strerror})") from error
    except csv.Error as error:
        raise InputError(f"{table}: not readable as CSV: {error}") from error


def parse_row(cells: Mapping[str, str | None]) -> Row | None:
    """Return a row's content; `None` where its numbers or its emotion are none of MELD's."""
    # Repaired first: an ellipsis of Windows-1252, read as Latin-1, is white space.
    words, speaker, label, *numbers = (repair(cells.get(column) or "").strip() for column in COLUMNS)
    dialogue, utterance = map(_NUMBER.fullmatch, numbers)
    try:
        emotion = emotion_name(label)
    except InputError:
        return None
    if emotion not in SEVEN_EMOTIONS or dialogue is None or utterance is None:
        return None
    return Row(f"dia{int(dialogue[1])}_utt{int(utterance[1])}", emotion, speaker, words)


def is_meld(path: Path) -> bool:
    """Say whether a folder holds one of MELD's tables."""
    return any(file.name in _tables() for file in visible_files(path, _DEPTH))


def _tables() -> dict[str, str]:
    return {f"{split}_sent_emo.csv": split for split in FULL_RELEASE}


def _find(path: Path) -> tuple[dict[str, Path], dict[tuple[str, str], Path]]:
    """Return each split's table, and the audio file of each split and name.

    The test folder holds `final_videos_test<name>` beside 132 of its files, and some hold no labelled utterance. As
    MELD's authors advise, the plain name counts; the other one stands in where that is not there.
    """
    splits = _tables()
    tables: dict[str, Path] = {}
    found: dict[tuple[str, str], tuple[tuple[bool, int], Path]] = {}
    for file in visible_files(path, _DEPTH):
        if file.name in splits:
            tables.setdefault(splits[file.name], file)
        split = _SPLIT_OF.get(file.parent.name.lower())
        match = _AUDIO.fullmatch(file.stem)
        suffix = file.suffix.lower()
        if split is None or match is None or suffix not in _SUFFIXES or file.stat().st_size == 0:
            continue
        rank = (match[1] is not None, _SUFFIXES.index(suffix))
        if (split, match[2]) not in found or rank < found[split, match[2]][0]:
            found[split, match[2]] = (rank, file)
    return {s: tables[s] for s in FULL_RELEASE if s in tables}, {key: file for key, (_, file) in found.items()}


def _warn_of_gaps(path: Path, used: int, rows: Counter[str], missing: Sequence[str], unusable: Sequence[str]) -> None:
    """Say in one line what is left out, and how the tables differ from the release's; nothing where nothing is."""
    known = [name for name in missing if name in BROKEN]
    gaps = [
        f"{' and '.join(known)}, which the release has no usable audio of" if known else "",
        several("audio file", [name for name in missing if name not in BROKEN]),
        several("table", [f"{split}_sent_emo.csv" for split in FULL_RELEASE if split not in rows]),
    ]
    reasons = [f"missing: {', '.join(gap for gap in gaps if gap)}"] if any(gaps) else []
    if unusable:
        reasons.append(f"{several('row', unusable)} without a number or an emotion of MELD's, or standing twice")
    short = [split for split in rows if rows[split] != FULL_RELEASE[split]]
    if short:
        counts = ", ".join(f"{split} {rows[split]:,} of {FULL_RELEASE[split]:,}" for split in short)
        reasons.append(f"tables differ in length from the release's ({counts})")
    if reasons:
        _log.warning("%s: %s of %s utterances; %s", path, f"{used:,}", f"{rows.total():,}", "; ".join(reasons))
