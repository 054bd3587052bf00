from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.runtime.errors import InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.scoring import Recording, RowWriter, find_recordings, score, score_row


def test_folders_are_searched_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.WAV", "a/c.flac", ".hidden/d.wav", "notes.txt", "a/._c.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [r.id for r in find_recordings([tmp_path])] == ["a/c.flac", "b.WAV"]


@pytest.mark.parametrize(("name", "message"), [("gone", "no such file or folder"), (".", "no audio found")])
def test_nothing_to_score_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_recordings([tmp_path / name])


def test_unreadable_files_are_reported_and_the_rest_scored(clips: list[Path], tmp_path: Path) -> None:
    broken, short = tmp_path / "broken.wav", tmp_path / "short.wav"
    broken.write_text("no audio")
    soundfile.write(short, np.zeros(10, np.float32), 16_000)
    files = [clips[0], broken, clips[1], short, clips[2]]
    with Runtime.load(asr="none") as runtime:
        scored = list(score(runtime, [Recording(p.name, p) for p in files], batch_size=2))
        single = runtime.recognize(clips[1])
    assert [s.recording.path for s in scored] == files
    assert [s.result is not None for s in scored] == [True, False, True, False, True]
    assert "not readable as audio" in scored[1].error
    assert "expected at least 320" in scored[3].error
    assert scored[2].result is not None
    assert scored[2].result.probabilities == pytest.approx(single.probabilities, abs=1e-5)


def test_an_extent_of_a_file_is_scored_as_a_file_of_its_own(clip: Path) -> None:
    with Runtime.load(asr="none") as runtime:
        (part,) = score(runtime, [Recording("a", clip, "hello", "sad", 0.5, 2.5)])
        row = score_row(part)
        samples = Recording("a", clip, start_s=0.5, end_s=2.5).load()
        assert samples.shape == (32_000,)
        same = runtime.recognize(samples, 16_000, transcript="hello")
    assert (row["start_s"], row["end_s"], row["emotion"]) == (0.5, 2.5, "sad")
    assert row["label"] == same.label
    assert row["words"] == [["hello", 1.0]]
    assert sum(row[f"p_{label}"] for label in runtime.labels) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_rows_are_written_whole_or_not_at_all(clip: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"scores{suffix}"
    out.write_text("yesterday's scores")
    with Runtime.load(asr="none") as runtime:
        (scored,) = score(runtime, [Recording("ä,\n1", clip, 'say "no"')])
        row = score_row(scored)
        with pytest.raises(KeyboardInterrupt), RowWriter(out, runtime.labels) as writer:  # noqa: PT012
            writer.write(row)
            raise KeyboardInterrupt
        assert out.read_text() == "yesterday's scores"
        with RowWriter(out, runtime.labels) as writer:
            writer.write(row)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if suffix == ".jsonl":
        assert json.loads(out.read_text(encoding="utf-8")) == json.loads(json.dumps(row))
    else:
        with out.open(encoding="utf-8", newline="") as file:
            (read,) = csv.DictReader(file)
        assert read["id"] == row["id"]
        assert json.loads(read["words"]) == row["words"]
        assert float(read["p_sad"]) == row["p_sad"]


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got suffix '\.xlsx', expected \.jsonl or \.csv"):
        RowWriter(tmp_path / "scores.xlsx", ())
