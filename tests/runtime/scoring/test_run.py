from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import soundfile

from edgeser.runtime.audio import load_audio
from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.scoring import InProcess, Recording, Setup, find_recordings, journal_path, score_to_file
from edgeser.runtime.scoring.journal import Journal


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def interrupted(recordings: list[Recording], out: Path, scorer: InProcess, after: int) -> list[Mapping[str, Any]]:
    """Stop a run after some rows, and return them."""
    rows: list[Mapping[str, Any]] = []

    def count(row: Mapping[str, Any]) -> None:
        rows.append(row)
        if len(rows) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_to_file(recordings, out, scorer, on_row=count)
    return rows


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_run_that_was_stopped_goes_on_where_it_was(
    snippets: list[Recording], scorer: InProcess, tmp_path: Path, suffix: str
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    out = tmp_path / f"scores{suffix}"
    first = interrupted(snippets, out, scorer, 5)
    assert [path.name for path in tmp_path.iterdir()] == [f".scores{suffix}.journal"]
    starts: list[int] = []
    second: list[Mapping[str, Any]] = []
    summary = score_to_file(snippets, out, scorer, on_start=starts.append, on_row=second.append)
    assert (summary.total, summary.failed, summary.resumed, starts) == (12, 0, 5, [5])
    assert [row["id"] for row in [*first, *second]] == [recording.id for recording in snippets]
    assert sorted(path.name for path in tmp_path.iterdir()) == [journal_path(out).name, out.name]
    if suffix == ".jsonl":
        assert read(out) == [*first, *second]  # with their milliseconds: nothing was scored twice


def test_recordings_may_come_and_go_between_runs(snippets: list[Recording], scorer: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    first = interrupted(snippets[:6], out, scorer, 4)
    changed = dataclasses.replace(snippets[2], transcript="hello")
    later = [snippets[7], *snippets[1:2], changed, *snippets[3:5]]
    assert score_to_file(later, out, scorer).resumed == 2
    rows = read(out)
    assert [row["id"] for row in rows] == [recording.id for recording in later]
    assert (rows[1], rows[3]) == (first[1], first[3])
    assert rows[2]["transcript"] == "hello"


def test_what_could_not_be_read_is_tried_again(
    snippets: list[Recording], clip: Path, scorer: InProcess, tmp_path: Path
) -> None:
    out, late = tmp_path / "scores.jsonl", tmp_path / "late.flac"
    recordings = [Recording("late", late, emotion="sad"), *snippets[:4]]
    (row, *_) = interrupted(recordings, out, scorer, 3)
    assert "no such file" in row["error"]
    shutil.copy(clip, late)
    summary = score_to_file(recordings, out, scorer)
    assert (summary.failed, summary.resumed) == (0, 2)
    row = read(out)[0]
    assert (row["id"], "error" in row) == ("late", False)
    assert summary.answers == {("sad", row["label"]): 1}


def test_a_kill_between_the_file_and_the_end_of_its_journal_costs_nothing(
    snippets: list[Recording], scorer: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.jsonl"

    def die(journal: Journal, keys: Mapping[str, bytes], more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgeser.runtime.scoring.journal.Journal.finish", die)
        with pytest.raises(KeyboardInterrupt):
            score_to_file(snippets[:3], out, scorer)
    content = out.read_bytes()
    assert score_to_file(snippets[:3], out, scorer).resumed == 3
    assert out.read_bytes() == content


def test_a_finished_run_scores_only_what_is_new(
    clips: list[Path], scorer: InProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New files, changed ones, and those that failed; and everything with `restart`."""
    out, folder = tmp_path / "scores.jsonl", tmp_path / "in"
    folder.mkdir()

    def snippet(name: str, clip: int, start: int) -> None:
        soundfile.write(folder / name, load_audio(clips[clip])[start : start + 6400], 16_000)

    def run(**options: bool) -> list[str]:
        scored: list[Mapping[str, Any]] = []
        score_to_file(find_recordings([folder]), out, scorer, on_row=scored.append, **options)
        assert [row["id"] for row in read(out)] == sorted(path.name for path in folder.iterdir())
        return [row["id"] for row in scored]

    snippet("a.wav", 0, 12_800)
    snippet("b.wav", 1, 12_800)
    (folder / "bad.wav").write_bytes(b"half a copy")
    assert run() == ["a.wav", "b.wav", "bad.wav"]
    assert run() == ["bad.wav"]
    snippet("c.wav", 2, 12_800)
    before = read(out)
    assert run() == ["bad.wav", "c.wav"]
    assert read(out)[:2] == before[:2]
    snippet("b.wav", 3, 16_000)  # of the same size
    (folder / "bad.wav").unlink()
    assert run() == ["b.wav"]
    assert read(out)[0] == before[0]
    assert read(out)[1]["p_sad"] != before[1]["p_sad"]
    out.unlink()
    assert run() == []
    assert run(restart=True) == ["a.wav", "b.wav", "c.wav"]
    with InProcess(Setup(engine="onnxruntime", asr="pocketsphinx")) as other, caplog.at_level("INFO"):
        rows: list[Mapping[str, Any]] = []
        score_to_file(find_recordings([folder / "a.wav"]), out, other, on_row=rows.append)
    assert len(rows) == len(read(out)) == 1
    assert "its rows are of asr none, not pocketsphinx: all recordings are scored" in caplog.text


def test_a_file_that_changes_while_it_is_scored_is_scored_again(
    clips: list[Path], scorer: InProcess, tmp_path: Path
) -> None:
    out, file = tmp_path / "scores.jsonl", tmp_path / "a.wav"
    soundfile.write(file, load_audio(clips[0])[12_800:19_200], 16_000)

    def change(row: Mapping[str, Any]) -> None:
        soundfile.write(file, load_audio(clips[1])[12_800:19_200], 16_000)

    recordings = [Recording("a", file)]
    score_to_file(recordings, out, scorer, on_row=change)
    before = read(out)
    assert score_to_file(recordings, out, scorer).resumed == 0
    assert read(out)[0]["p_sad"] != before[0]["p_sad"]
    assert score_to_file(recordings, out, scorer).resumed == 1


def test_ids_are_unique(clip: Path, scorer: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    with pytest.raises(InputError, match="id 'a' stands 2 times, expected once"):
        score_to_file([Recording("a", clip), Recording("a", clip, end_s=1.0)], out, scorer)
    with pytest.raises(InputError, match="got no recordings"):
        score_to_file([], out, scorer)
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(InputError, match="is a folder, expected a file name"):
        score_to_file([Recording("a", clip)], tmp_path / "d.csv", scorer)
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: it needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(("room", "where"), [(12, ".journal"), (28, ".jsonl")])
def test_a_full_disk_is_one_line_and_loses_nothing(
    small_disk: Path, snippets: list[Recording], scorer: InProcess, room: int, where: str
) -> None:
    """12 KiB do not hold the journal; 28 KiB do, but not the file as well."""
    out, ballast = small_disk / "scores.jsonl", small_disk / "ballast"
    long = [dataclasses.replace(r, transcript=f"well {r.id} " + "and so on " * 30) for r in snippets]
    ballast.write_bytes(bytes(1024 * (64 - room)))
    rows: list[Mapping[str, Any]] = []
    with pytest.raises(EdgeSerError, match=r"cannot be written \(No space left on device\): make room") as raised:
        score_to_file(long, out, scorer, on_row=rows.append)
    assert f"scores.jsonl{where if where == '.journal' else ':'}" in str(raised.value)
    assert sorted(path.name for path in small_disk.iterdir()) == [".scores.jsonl.journal", "ballast"]
    assert (len(rows) == len(long)) == (where == ".jsonl")
    assert rows
    ballast.unlink()
    summary = score_to_file(long, out, scorer)
    assert (summary.resumed, summary.failed) == (len(rows), 0)
    assert read(out)[: len(rows)] == rows
    assert [row["id"] for row in read(out)] == [recording.id for recording in long]


def test_the_disk_of_the_output_is_full_for_parquet_too(
    small_disk: Path, snippets: list[Recording], scorer: InProcess
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    out, ballast = small_disk / "scores.parquet", small_disk / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(1024 * 56))
    with pytest.raises(EdgeSerError, match=r"scores\.parquet: cannot be written .*No space left"):
        score_to_file(snippets[:4], out, scorer)
    ballast.unlink()
    assert score_to_file(snippets[:4], out, scorer).resumed == 4
