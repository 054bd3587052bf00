from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.runtime.errors import AsrError, InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.scoring import Recording, find_recordings, score, score_row


def test_folders_are_searched_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.WAV", "a/c.flac", ".hidden/d.wav", "notes.txt", "a/._c.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [r.id for r in find_recordings([tmp_path])] == ["a/c.flac", "b.WAV"]


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.wav", "b/x.wav", "b/y.wav"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"x")
    assert [r.id for r in find_recordings([Path("a"), Path("b")])] == ["a/x.wav", "b/x.wav", "b/y.wav"]
    assert [r.id for r in find_recordings([Path("b"), Path("a/x.wav").absolute()])] == [
        "b/x.wav",
        "b/y.wav",
        str(tmp_path / "a/x.wav"),
    ]


def test_a_file_that_is_named_twice_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").write_bytes(b"x")
    paths = [Path("a"), Path("a/x.wav"), tmp_path / "a", Path("a/../a/x.wav")]
    assert find_recordings(paths) == [Recording("x.wav", Path("a/x.wav"))]


@pytest.mark.parametrize(("name", "message"), [("gone", "no such file or folder"), (".", "no audio found")])
def test_nothing_to_score_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_recordings([tmp_path / name])


def test_unreadable_files_are_reported_and_the_rest_scored(runtime: Runtime, clips: list[Path], tmp_path: Path) -> None:
    broken, short = tmp_path / "broken.wav", tmp_path / "short.wav"
    broken.write_text("no audio")
    soundfile.write(short, np.zeros(10, np.float32), 16_000)
    files = [clips[0], broken, clips[1], short, clips[2]]
    scored = list(score(runtime, [Recording(p.name, p) for p in files], batch_size=2))
    single = runtime.recognize(clips[1])
    assert [s.recording.path for s in scored] == files
    assert [s.result is not None for s in scored] == [True, False, True, False, True]
    assert "not readable as audio" in scored[1].error
    assert "expected at least 320" in scored[3].error
    assert scored[2].result is not None
    assert scored[2].result.probabilities == pytest.approx(single.probabilities, abs=1e-5)


def test_one_that_the_asr_fails_on_does_not_take_its_batch_along(
    runtime: Runtime, snippets: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = snippets[1].load()

    def transcribe(samples: np.ndarray) -> tuple[()]:
        if np.array_equal(samples, bad):
            raise AsrError("out of words")
        return ()

    monkeypatch.setattr(runtime.asr, "transcribe", transcribe)
    scored = list(score(runtime, snippets[:4], batch_size=4))
    assert [s.error for s in scored] == ["", "out of words", "", ""]
    assert [s.result is not None for s in scored] == [True, False, True, True]


def test_an_extent_of_a_file_is_scored_as_a_file_of_its_own(runtime: Runtime, clip: Path) -> None:
    (part,) = score(runtime, [Recording("a", clip, "hello", "sad", 0.5, 2.5)])
    row = score_row(part)
    samples = Recording("a", clip, start_s=0.5, end_s=2.5).load()
    assert samples.shape == (32_000,)
    same = runtime.recognize(samples, 16_000, transcript="hello")
    assert (row["start_s"], row["end_s"], row["emotion"]) == (0.5, 2.5, "sad")
    assert row["label"] == same.label
    assert row["words"] == [["hello", 1.0]]
    assert sum(row[f"p_{label}"] for label in runtime.labels) == pytest.approx(1.0, abs=1e-5)
