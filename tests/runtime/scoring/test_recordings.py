from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.runtime.audio import Recorded
from edgeser.runtime.errors import AsrError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import Result
from edgeser.runtime.scoring import Recording, recordings, score, score_row


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


@pytest.mark.parametrize("error", [TypeError("no such thing"), MemoryError(), ZeroDivisionError("0"), RecursionError()])
@pytest.mark.parametrize("place", ["load", "recognize"])
def test_whatever_one_raises_is_its_own_row_and_nothing_else(
    runtime: Runtime, snippets: list[Recording], monkeypatch: pytest.MonkeyPatch, error: Exception, place: str
) -> None:
    bad, recognize = snippets[1].load(), runtime.recognize_batch
    load = recordings.load_recording

    def loaded(path: Path, start_s: float, end_s: float | None) -> Recorded:
        if (path, start_s) == (snippets[1].path, snippets[1].start_s):
            raise error
        return load(path, start_s, end_s)

    def recognized(
        audio: list[np.ndarray], transcripts: list[str | None], shifts: list[None], answered: float
    ) -> list[Result]:
        if any(np.array_equal(samples, bad) for samples in audio):
            raise error
        return recognize(audio, transcripts, shifts, answered)

    if place == "load":
        monkeypatch.setattr(recordings, "load_recording", loaded)
    else:
        monkeypatch.setattr(runtime, "recognize_batch", recognized)
    scored = list(score(runtime, snippets[:4], batch_size=4))
    assert [s.result is not None for s in scored] == [True, False, True, True]
    assert scored[1].error == f"{type(error).__name__}: {error}".removesuffix(": ")


def test_one_that_is_cut_short_has_its_row_marked(runtime: Runtime, clip: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.flac"
    cut.write_bytes(clip.read_bytes()[:20_000])
    rows = [score_row(s) for s in score(runtime, [Recording("a", clip, ""), Recording("b", cut, "")])]
    assert [row["truncated"] for row in rows] == [False, True]
    assert 0.3 < rows[1]["end_s"] < rows[0]["end_s"]
    assert [result.truncated for result in runtime.score([clip, cut])] == [False, True]
    assert runtime.recognize(cut, transcript="").truncated
    assert not runtime.recognize(clip, transcript="").truncated


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
