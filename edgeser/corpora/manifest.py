"""`manifest:FILE.csv`: any corpus, as a table with one utterance a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgeser.corpora.selection import Condition, check_columns
from edgeser.corpora.utterance import Utterance
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import emotion_name

REQUIRED = ("id", "audio")
OPTIONAL = ("transcript", "emotion", "speaker", "session", "split", "corpus", "language", "role", "start_s", "end_s")


def read_manifest(path: Path, where: Sequence[Condition] = ()) -> Iterator[Utterance]:
    """Read a UTF-8 CSV with a header; columns `id`, `audio` and, where known, the others of `OPTIONAL`.

    `audio` is relative to the manifest; other columns are there to choose rows by.

    Args:
        path: The file.
        where: What a row has to be, to be read.

    Raises:
        InputError: The file, a column, a label, a time or an id is not usable; the message names the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such manifest")
    seen: set[str] = set()
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in REQUIRED if column not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}: no column {', '.join(missing)}: expected a header with {', '.join(REQUIRED + OPTIONAL)}"
                )
            check_columns(where, list(reader.fieldnames or ()), str(path))
            for row in reader:
                if not all(condition.holds(row) for condition in where):
                    continue
                utterance = _utterance(row, path.parent, f"{path}, line {reader.line_num}")
                if utterance.id in seen:
                    raise InputError(f"{path}, line {reader.line_num}: id {utterance.id!r} stands twice")
                seen.add(utterance.id)
                yield utterance
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: not readable as UTF-8 CSV: {error}") from error


def _utterance(row: Mapping[str, str | None], folder: Path, where: str) -> Utterance:
    def field(name: str) -> str:
        return (row.get(name) or "").strip()

    for name in REQUIRED:
        if not field(name):
            raise InputError(f"{where}: {name} is empty")
    try:
        return Utterance(
            id=field("id"),
            audio=folder / field("audio"),
            emotion=emotion_name(field("emotion")) if field("emotion") else None,
            transcript=row.get("transcript"),
            start_s=float(field("start_s") or 0.0),
            end_s=float(field("end_s")) if field("end_s") else None,
            speaker=field("speaker"),
            session=field("session"),
            split=field("split"),
            corpus=field("corpus"),
            language=field("language"),
            role=field("role"),
        )
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
