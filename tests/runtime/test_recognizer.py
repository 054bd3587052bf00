"""The Runtime on real recordings, with the bundle that ships."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.audio import load_audio
from edgeser.runtime.bundle import GOLDEN, Bundle, write_bundle
from edgeser.runtime.errors import BundleError, InputError, MissingDependencyError, ParityError
from edgeser.runtime.golden import GoldenVectors
from edgeser.runtime.recognizer import Runtime, default_bundle
from edgeser.runtime.results import Result

WORDS = "dogs are sitting by the door"


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with Runtime.load(asr="none") as loaded:
        yield loaded


def distance(one, other) -> float:
    return max(abs(one.probabilities[label] - other.probabilities[label]) for label in one.probabilities)


def test_words_and_moments_that_mattered(clip: Path) -> None:
    with Runtime.load(asr="pocketsphinx") as runtime:
        result = runtime.recognize(clip)
    assert result.transcript == WORDS
    assert [word.text for word in result.words] == WORDS.split()
    assert sum(word.importance for word in result.words) == pytest.approx(1.0)
    assert any(word.mattered for word in result.words)
    assert result.words[0].start_s is not None
    assert 0.5 < result.words[0].start_s < 1.5
    assert result.spans
    assert all(0 <= span.start_s < span.end_s <= result.duration_s + 0.03 for span in result.spans)
    assert sum(result.probabilities.values()) == pytest.approx(1.0)
    assert result.label == max(result.probabilities, key=result.probabilities.__getitem__)
    assert result.timings.total_ms > 0


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("layout", ["samples", "stereo", "int16", "wav"])
def test_the_same_clip_in_any_form_gives_the_same_answer(
    runtime: Runtime, clips: list[Path], tmp_path: Path, rate: int, layout: str
) -> None:
    for clip in clips:
        expected = runtime.recognize(clip, transcript=WORDS)
        samples = soxr.resample(load_audio(clip), 16_000, rate)
        if layout == "wav":
            file = tmp_path / f"{clip.stem}.{layout}"
            soundfile.write(file, samples, rate)
            result = runtime.recognize(file, transcript=WORDS)
        else:
            given = {
                "samples": samples,
                "stereo": np.stack([samples, samples], axis=1),
                "int16": np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16),
            }[layout]
            result = runtime.recognize(given, rate, transcript=WORDS)
        # Rounded to 16 bits at another rate, one clip that lies between two emotions moves by 0.08.
        assert distance(result, expected) <= (0.1 if layout == "wav" else 0.02)
        assert result.label == expected.label


def test_8_khz_answers_without_the_upper_band(runtime: Runtime, clips: list[Path]) -> None:
    """Half the band is gone: what is left must still give a usable answer, not always the same one."""
    for clip in clips:
        narrow = soxr.resample(load_audio(clip), 16_000, 8_000)
        result = runtime.recognize(narrow, 8_000, transcript=WORDS)
        assert np.isfinite(list(result.probabilities.values())).all()


def covered(result: Result) -> set[int]:
    """The 20 ms rows that a result's spans cover."""
    return {row for s in result.spans for row in range(round(s.start_s / 0.02), round(s.end_s / 0.02))}


def test_batches_answer_as_single_utterances_do(runtime: Runtime, clips: list[Path]) -> None:
    alone = [runtime.recognize(clip) for clip in clips]
    together = list(runtime.score(clips, batch_size=3))
    for one, other in zip(alone, together, strict=True):
        assert distance(one, other) < 1e-5
        assert one.label == other.label
        # Sums in another order move a row across the threshold now and then.
        here, there = (covered(result) for result in (one, other))
        assert len(here ^ there) <= 0.05 * one.duration_s / 0.02


def test_long_audio_says_how_much_was_heard(runtime: Runtime, clip: Path) -> None:
    short = runtime.recognize(clip)
    assert short.heard_s == short.duration_s
    long = np.tile(load_audio(clip), 3)
    result = runtime.recognize(long, 16_000)
    assert result.heard_s == pytest.approx(9.2)
    assert result.duration_s == pytest.approx(long.size / 16_000)
    assert distance(result, runtime.recognize(long[: 460 * 320], 16_000)) < 1e-6


@settings(max_examples=25, deadline=None)
@given(transcript=st.text(max_size=60))
def test_any_transcript_gives_finite_numbers(runtime: Runtime, clip: Path, transcript: str) -> None:
    result = runtime.recognize(clip, transcript=transcript)
    assert np.isfinite(list(result.probabilities.values())).all()
    assert [word.text for word in result.words] == transcript.split()


def test_words_change_the_answer(runtime: Runtime, clip: Path) -> None:
    furious = runtime.recognize(clip, transcript="how dare you get out of my house")
    sorry = runtime.recognize(clip, transcript="i am so sorry i miss her")
    assert furious.probabilities["angry"] > sorry.probabilities["angry"]


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros(0, np.float32), 16_000, "got no samples"),
        (np.zeros(1, np.float32), 16_000, r"got 1 samples \(0.1 ms\), expected at least 320"),
        (np.full(16_000, np.nan, np.float32), 16_000, "got NaN or infinity"),
        (np.zeros((2, 16_000), np.float32), 16_000, r"got shape \(2, 16000\)"),
        (np.zeros(16_000, np.float32), None, "rate: got none with samples"),
        (np.zeros(16_000, np.float32), 1_000, "got a rate of 1000 Hz"),
    ],
)
def test_unusable_audio_is_refused(runtime: Runtime, audio: np.ndarray, rate: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        runtime.recognize(audio, rate)


def test_a_rate_with_a_file_is_refused(runtime: Runtime, clip: Path) -> None:
    with pytest.raises(InputError, match="rate: got 16000 with a file"):
        runtime.recognize(clip, 16_000)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_silence_and_full_scale_are_answered(runtime: Runtime, level: float) -> None:
    square = level * np.sign(np.sin(np.arange(16_000) * 0.1)).astype(np.float32)
    assert np.isfinite(list(runtime.recognize(square, 16_000).probabilities.values())).all()


def test_self_test_finds_an_engine_that_computes_something_else(tmp_path: Path) -> None:
    bundle = Bundle.open(default_bundle())
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    golden = GoldenVectors.from_bundle(bundle)
    files[GOLDEN] = GoldenVectors(golden.inputs, golden.logits + np.float32(0.01)).to_bytes()
    write_bundle(tmp_path / "other.edgeser", bundle.manifest, files)
    with pytest.raises(ParityError, match=r"golden vectors differ by 1\.00e-02"):
        Runtime.load(tmp_path / "other.edgeser", asr="none")
    Runtime.load(tmp_path / "other.edgeser", asr="none", self_test=False).close()


def test_a_manifest_that_does_not_fit_its_graph_is_refused(tmp_path: Path) -> None:
    import dataclasses

    bundle = Bundle.open(default_bundle())
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    shorter = dataclasses.replace(bundle.manifest.inputs["text"], length=10)
    manifest = dataclasses.replace(bundle.manifest, inputs={**bundle.manifest.inputs, "text": shorter})
    write_bundle(tmp_path / "m.edgeser", manifest, files)
    with pytest.raises(BundleError, match=r"the graph gives .*, expected rows \(N, 10, dim\)"):
        Runtime.load(tmp_path / "m.edgeser", asr="none", self_test=False)


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="engine: got 'cuda', expected auto or onnxruntime"):
        Runtime.load(engine="cuda")
    with pytest.raises(InputError, match="asr: got 'google', expected auto, pocketsphinx, none"):
        Runtime.load(asr="google")
    with pytest.raises(InputError, match="threads: got 0"):
        Runtime.load(threads=0)
    monkeypatch.setitem(__import__("sys").modules, "pocketsphinx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgeser\[asr\]'"):
        Runtime.load(asr="pocketsphinx")
    assert Runtime.load(asr="auto").asr.name == "none"
