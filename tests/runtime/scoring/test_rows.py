from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.runtime.scoring import InProcess, Recording, RowWriter, Tally, row_text


@pytest.fixture(scope="module")
def rows(scorer: InProcess, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Mapping[str, Any]]:
    """A row with everything, one without an emotion, an error, and a name that is not UTF-8."""
    gone = tmp_path_factory.mktemp("rows") / os.fsdecode(b"\xff.wav")
    recordings = [
        Recording("ä,\n1", clip, 'say "no"', "sad"),
        Recording("b", clip, end_s=0.5),
        Recording("c", gone, None, "angry"),
    ]
    return [row for _, row in scorer.rows(recordings)]


def test_the_rows_are_what_the_tests_need(rows: list[Mapping[str, Any]]) -> None:
    assert rows[0]["words"]
    assert rows[0]["spans"]
    assert rows[1]["words"] == []
    assert "no such file" in rows[2]["error"]


def write(out: Path, labels: tuple[str, ...], rows: list[Mapping[str, Any]]) -> None:
    with RowWriter(out, labels) as writer:
        for row in rows:
            writer.write(row)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_are_written_whole_or_not_at_all(
    rows: list[Mapping[str, Any]], scorer: InProcess, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"scores{suffix}"
    out.write_text("yesterday's scores")
    with pytest.raises(KeyboardInterrupt), RowWriter(out, scorer.identity.labels) as writer:  # noqa: PT012
        writer.write(rows[0])
        raise KeyboardInterrupt
    assert out.read_text() == "yesterday's scores"
    write(out, scorer.identity.labels, rows)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_bytes() != b"yesterday's scores"


def test_json_lines_hold_the_rows(rows: list[Mapping[str, Any]], scorer: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    write(out, scorer.identity.labels, rows)
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == rows
    assert "ä" in out.read_text(encoding="utf-8")
    assert [json.loads(row_text(row)) for row in rows] == rows


def test_csv_has_json_in_cells(rows: list[Mapping[str, Any]], scorer: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    write(out, scorer.identity.labels, rows)
    with out.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["id"] for row in read] == ["ä,\n1", "b", "c"]
    assert json.loads(read[0]["words"]) == rows[0]["words"]
    assert float(read[0]["p_sad"]) == rows[0]["p_sad"]
    assert (read[2]["label"], read[2]["error"].endswith("\\udcff.wav: no such file")) == ("", True)


def test_csv_runs_nothing(rows: list[Mapping[str, Any]], scorer: InProcess, tmp_path: Path) -> None:
    """Names and words from data are text in a spreadsheet, never formulas; numbers stay numbers."""
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a=1", "1"]
    write(tmp_path / "s.csv", scorer.identity.labels, [{**rows[0], "id": n, "transcript": n, "ms": -1} for n in names])
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    expected = [*(f"'{name}" for name in names[:6]), "a=1", "1"]
    assert [row["id"] for row in read] == [row["transcript"] for row in read] == expected
    assert {row["ms"] for row in read} == {"-1"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["p_sad", "words"])
def test_rows_hold_no_number_that_json_does_not_know(rows: list[Mapping[str, Any]], value: float, name: str) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        row_text({**rows[0], name: [["a", value]] if name == "words" else value})


def test_rows_say_how_much_was_speech(rows: list[Mapping[str, Any]], scorer: InProcess) -> None:
    assert 0.3 < rows[0]["speech_share"] < 0.7
    silent = rows[1]  # the clip's first 0.5 s
    assert (silent["label"], silent["speech_share"], silent["transcript"]) == ("no speech", 0.0, "")
    assert {silent[f"p_{label}"] for label in scorer.identity.labels} == {0.25}


def test_parquet_has_lists_of_structs_and_nulls(
    rows: list[Mapping[str, Any]], scorer: InProcess, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    out = tmp_path / "scores.parquet"
    write(out, scorer.identity.labels, rows)
    read = parquet.read_table(out).to_pylist()
    for got, row in zip(read[:2], rows[:2], strict=True):
        assert [[word["text"], word["importance"]] for word in got["words"]] == row["words"]
        assert [[s["start_s"], s["end_s"], s["importance"]] for s in got["spans"]] == row["spans"]
        flat = {name: value for name, value in got.items() if name not in ("words", "spans")}
        assert flat == {name: row.get(name) for name in flat}
    assert {name for name, value in read[2].items() if value is not None} == {"id", "path", "emotion", "error"}


def test_parquet_of_many_rows_comes_back_in_order(
    rows: list[Mapping[str, Any]], scorer: InProcess, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    out = tmp_path / "scores.parquet"
    write(out, scorer.identity.labels, [{**rows[0], "id": str(i)} for i in range(10_000)])
    assert parquet.read_table(out, columns=["id"])["id"].to_pylist() == [str(i) for i in range(10_000)]


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got suffix '\.xlsx', expected \.jsonl or \.csv or \.parquet"):
        RowWriter(tmp_path / "scores.xlsx", ())


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pyarrow is not installed.*'edgeser\[parquet\]'"):
        RowWriter(tmp_path / "scores.parquet", ())


def test_a_tally_counts_answers_where_the_truth_is_known(rows: list[Mapping[str, Any]]) -> None:
    tally = Tally()
    for row in rows:
        tally.add(row)
    assert (tally.total, tally.failed) == (3, 1)
    assert tally.answers == {("sad", rows[0]["label"]): 1}
