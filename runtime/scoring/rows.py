"""Rows: scored recordings as flat records, and files of them that are whole or not there."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.runtime.files import replacing
from edgeser.runtime.names import json_line
from edgeser.runtime.results import result_row
from edgeser.runtime.scoring.recordings import Recording, Scored

Row = Mapping[str, Any]
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the beginning of one (OWASP, CSV injection)
_PARQUET_ROWS = 4096  # in a row group: a few megabytes


def score_row(scored: Scored) -> dict[str, Any]:
    """Return a scored recording as a flat row of plain values."""
    recording, result = scored.recording, scored.result
    if result is None:
        return error_row(recording, scored.error)
    answer = result_row(result)
    how = {name: answer.pop(name) for name in ("engine", "ms")}
    end_s = round(recording.start_s + result.duration_s, 3)
    return {
        **head(recording),
        **answer,
        "start_s": recording.start_s,
        "end_s": end_s,
        "truncated": result.truncated,
        **how,
    }


def error_row(recording: Recording, error: str) -> dict[str, Any]:
    """Return the row of a recording that has no result."""
    return {**head(recording), "error": error}


def row_text(row: Row) -> str:
    """Return a row as one line of JSON, which any UTF-8 output takes, and a terminal shows as it is.

    Raises:
        ValueError: A number is not finite, for which JSON has no word.
    """
    return json_line(row)


def _encodable(text: str) -> str:
    """Spell out the bytes of file names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def head(recording: Recording) -> dict[str, Any]:
    """Return what every row of a recording begins with."""
    row: dict[str, Any] = {"id": recording.id, "path": str(recording.path)}
    if recording.emotion is not None:
        row["emotion"] = recording.emotion
    return row


@dataclass
class Tally:
    """What went by: rows, failures, and how often which emotion was taken for which."""

    total: int = 0
    failed: int = 0
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count a row."""
        self.total += 1
        if "error" in row:
            self.failed += 1
        elif "emotion" in row:
            self.answers[row["emotion"], row["label"]] += 1


class _Format(Protocol):
    """One way to spell rows; `end` writes what the file still needs, `abandon` is for a file that nobody will read."""

    def write(self, row: Row) -> None: ...

    def end(self) -> None: ...

    def abandon(self) -> None: ...


class _JsonLines:
    def __init__(self, file: BinaryIO, labels: Sequence[str]) -> None:
        self._file = file

    def write(self, row: Row) -> None:
        self._file.write(f"{row_text(row)}\n".encode())

    def end(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _Csv:
    """Nested values are JSON in their cells. A text that a spreadsheet would compute begins with an apostrophe."""

    def __init__(self, file: BinaryIO, labels: Sequence[str]) -> None:
        self._csv = csv.DictWriter(self, _columns(labels), restval="")
        self._file = file
        self._csv.writeheader()

    def write(self, row: Row | str) -> None:
        if isinstance(row, str):  # a line from the csv module, which wants to write to something
            self._file.write(_encodable(row).encode())
        else:
            self._csv.writerow({name: _cell(value) for name, value in row.items()})

    def end(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def _cell(value: Any) -> Any:
    """Return what stands in a cell of CSV: what comes from data is not run as a formula."""
    if isinstance(value, list):
        return json.dumps(value, allow_nan=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


class _Parquet:
    """Words and spans are lists of structs; what a row lacks is null."""

    def __init__(self, file: BinaryIO, labels: Sequence[str]) -> None:
        import pyarrow
        from pyarrow import parquet

        self._schema = _parquet_schema(labels)
        self._batch = pyarrow.RecordBatch
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, row: Row) -> None:
        nested: dict[str, Any] = {}
        if "words" in row:
            nested["words"] = [{"text": text, "importance": share} for text, share in row["words"]]
            nested["spans"] = [{"start_s": a, "end_s": b, "importance": share} for a, b, share in row["spans"]]
        texts = {name: _encodable(value) for name, value in row.items() if isinstance(value, str)}
        self._rows.append({**row, **texts, **nested})
        if len(self._rows) == _PARQUET_ROWS:
            self._flush()

    def end(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def abandon(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # it writes a footer, for which the disk may have no room
            self._writer.close()

    def _flush(self) -> None:
        self._writer.write_batch(self._batch.from_pylist(self._rows, schema=self._schema))
        self._rows = []


_WRITERS: Mapping[str, Callable[[BinaryIO, Sequence[str]], _Format]] = {
    ".jsonl": _JsonLines,
    ".csv": _Csv,
    ".parquet": _Parquet,
}
FORMATS = tuple(_WRITERS)


def check_format(path: Path) -> None:
    """Raise unless rows can be written to a file of this name.

    Raises:
        InputError: Another suffix than those of `FORMATS`.
        MissingDependencyError: `.parquet` without PyArrow.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"{path}: got suffix {path.suffix!r}, expected {' or '.join(FORMATS)}")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError("pyarrow", "parquet", "writing .parquet") from error


class RowWriter:
    """Writes rows as JSON lines, CSV or Parquet; the file appears under its name when everything is on the disk.

    Args:
        path: Ends in one of `FORMATS`.
        labels: The model's emotions, for the columns of CSV and Parquet.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        check_format(path)
        self._path = path
        self._labels = labels
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RowWriter:
        self._format = self._stack.enter_context(self._open())
        return self

    def write(self, row: Row) -> None:
        """Write one row."""
        self._format.write(row)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def _open(self) -> Iterator[_Format]:
        with replacing(self._path) as part, part.open("wb") as file:
            form = _WRITERS[self._path.suffix](file, self._labels)
            try:
                yield form
                form.end()
            except BaseException:
                form.abandon()
                raise
            file.flush()
            os.fsync(file.fileno())  # before it is renamed: after a power cut a new name never has old or no content


def _columns(labels: Sequence[str]) -> list[str]:
    return [
        *("id", "path", "emotion", "label", *(f"p_{label}" for label in labels)),
        *("confidence", "speech_share"),
        "transcript",
        *("words", "spans", "start_s", "end_s", "truncated", "engine", "ms", "error"),
    ]


def _parquet_schema(labels: Sequence[str]) -> Any:
    import pyarrow as pa

    number = pa.float64()
    kinds = {
        "words": pa.list_(pa.struct([("text", pa.string()), ("importance", number)])),
        "spans": pa.list_(pa.struct([("start_s", number), ("end_s", number), ("importance", number)])),
        "truncated": pa.bool_(),
        **dict.fromkeys(
            ["confidence", "speech_share", "start_s", "end_s", "ms", *(f"p_{label}" for label in labels)], number
        ),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in _columns(labels)])
