"""The Runtime on real recordings, with the bundle that ships."""

from __future__ import annotations

import dataclasses
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.clips import CLIPS
from edgeser.runtime.asr import RecognizedWord
from edgeser.runtime.audio import Samples, load_audio
from edgeser.runtime.bundle import GOLDEN, Bundle, write_bundle
from edgeser.runtime.engines import ENGINES, Engine, OpenVinoEngine
from edgeser.runtime.errors import BundleError, EngineError, InputError, MissingDependencyError, ParityError
from edgeser.runtime.golden import TOLERANCE, EncoderVectors, GoldenVectors
from edgeser.runtime.labels import NO_SPEECH
from edgeser.runtime.pipeline import softmax
from edgeser.runtime.recognizer import Runtime, default_bundle
from edgeser.runtime.results import Result

CLIP = CLIPS / "03-01-05-01-01-02-12.flac"
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
        # Resampling noise falls on other sides of INT8's steps: a clip that lies between two emotions moves by 0.035.
        # Rounded to 16 bits at another rate, it moves by 0.08.
        assert distance(result, expected) <= (0.1 if layout == "wav" else 0.05)
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


def test_a_file_that_fails_stops_no_other(
    runtime: Runtime, clips: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad, short, gone = tmp_path / "bad.wav", tmp_path / "short.wav", tmp_path / "gone.wav"
    bad.write_bytes(b"no audio")
    soundfile.write(short, np.zeros(10, np.float32), 16_000)
    paths = [bad, clips[0], str(gone), clips[1], short, clips[2]]
    order: list[str] = []
    results = runtime.score(iter(paths), batch_size=2, on_error=lambda path, error: order.append(f"{path}: {error}"))
    for result in results:
        order.append(result.label)
    labels = [runtime.recognize(clip).label for clip in clips[:3]]
    assert [order[1], order[3], order[5]] == labels
    assert "bad.wav: not readable as audio" in order[0]
    assert "gone.wav: no such file" in order[2]
    assert "expected at least 320" in order[4]
    with caplog.at_level("WARNING"):
        assert [result.label for result in runtime.score([clips[0], bad, clips[1]])] == labels[:2]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert re.match(r".*bad\.wav has no result: .*not readable as audio", warning)


def test_long_audio_says_how_much_was_heard(runtime: Runtime, clip: Path) -> None:
    short = runtime.recognize(clip)
    assert short.heard_s == short.duration_s
    long = np.tile(load_audio(clip), 3)
    result = runtime.recognize(long, 16_000)
    assert result.heard_s == pytest.approx(9.2)
    assert result.duration_s == pytest.approx(long.size / 16_000)
    assert distance(result, runtime.recognize(long[: 460 * 320], 16_000)) < 1e-6


QUIET = (1e-4 * np.random.default_rng(0).standard_normal(59_200)).astype(np.float32)  # -80 dBFS


@pytest.mark.parametrize(
    "samples", [np.zeros(59_200, np.float32), QUIET, 1000 * QUIET, load_audio(CLIP)[16_000:16_320]]
)
def test_without_speech_no_emotion_is_claimed(samples: Samples) -> None:
    """Digital silence was answered "sad 0.80", noise at -80 dBFS "sad 0.96", 20 ms "happy 0.92"."""
    with Runtime.load(asr="pocketsphinx") as runtime:
        for transcript in (None, "", " "):
            result = runtime.recognize(samples, 16_000, transcript=transcript)
            assert result.label == NO_SPEECH == "no speech"
            assert not result.has_speech
            assert result.probability is None
            assert set(result.probabilities.values()) == {0.25}
            assert (result.speech_share, result.words, result.spans) == (0.0, (), ())
            assert result.duration_s == result.heard_s == samples.shape[0] / 16_000
            timings = result.timings
            assert (timings.asr_ms, timings.audio_ms, timings.engine_ms) == (0.0, 0.0, 0.0)
            assert timings.total_ms == timings.vad_ms > 0


def test_words_from_the_caller_are_evidence(runtime: Runtime) -> None:
    result = runtime.recognize(np.zeros(59_200, np.float32), 16_000, transcript="how dare you get out of my house")
    assert result.label in runtime.labels
    assert not result.has_speech
    assert [word.text for word in result.words] == ["how", "dare", "you", "get", "out", "of", "my", "house"]


def test_share_of_speech(runtime: Runtime, clips: list[Path]) -> None:
    for clip in clips:
        result = runtime.recognize(clip)
        assert result.has_speech
        assert 0.3 < result.speech_share < 0.7
        assert result.probability == max(result.probabilities.values())


def test_share_of_speech_is_that_of_the_window(runtime: Runtime, speech: Samples) -> None:
    """Nothing is said of what the model does not hear."""
    late = np.concatenate([np.zeros(10 * 16_000, np.float32), speech])
    result = runtime.recognize(late, 16_000)
    assert result.label == NO_SPEECH
    assert (result.heard_s, result.duration_s) == (9.2, late.shape[0] / 16_000)
    early = runtime.recognize(np.concatenate([speech, np.zeros(10 * 16_000, np.float32)]), 16_000)
    alone = runtime.recognize(speech, 16_000)
    assert early.speech_share == pytest.approx(alone.speech_share * alone.duration_s / 9.2, abs=0.02)


def test_silence_among_a_batch(runtime: Runtime, clips: list[Path]) -> None:
    silence = np.zeros(16_000, np.float32)
    batch = [silence, load_audio(clips[0]), silence, load_audio(clips[1]), silence]
    results = runtime.recognize_batch(batch, [None] * 5)
    assert [result.has_speech for result in results] == [False, True, False, True, False]
    for result, clip in zip(results[1::2], clips, strict=False):
        assert distance(result, runtime.recognize(clip)) < 1e-5


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
    files[GOLDEN] = GoldenVectors(golden.inputs, golden.logits + np.float32(0.5)).to_bytes()
    write_bundle(tmp_path / "other.edgeser", bundle.manifest, files)
    with pytest.raises(ParityError, match=r"golden vectors differ by 5\.00e-01"):
        Runtime.load(tmp_path / "other.edgeser", asr="none")
    Runtime.load(tmp_path / "other.edgeser", asr="none", self_test=False).close()


def test_a_manifest_that_does_not_fit_its_graph_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(default_bundle())
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    shorter = dataclasses.replace(bundle.manifest.inputs["text"], length=10)
    manifest = dataclasses.replace(bundle.manifest, inputs={**bundle.manifest.inputs, "text": shorter})
    write_bundle(tmp_path / "m.edgeser", manifest, files)
    with pytest.raises(BundleError, match=r"the graph gives .*, expected rows \(N, 10, dim\)"):
        Runtime.load(tmp_path / "m.edgeser", asr="none", self_test=False)


OTHER_ROWS = "openvino: encoder .*: golden rows differ by"
OTHER_LOGITS = "openvino: golden vectors differ by"
NO_VECTORS = r"b\.edgeser has no golden vectors for its encoders of audio and text"


@pytest.mark.usefixtures("openvino")
def test_auto_prefers_openvino_where_it_is_proved(
    proved: Path, clips: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with Runtime.load(proved, asr="none") as auto, Runtime.load(proved, engine="onnxruntime", asr="none") as plain:
        assert caplog.messages == []
        for runtime, name in ((auto, "openvino"), (plain, "onnxruntime")):
            engines = [runtime.engine, *(frontend.engine for frontend in runtime.frontends.values())]
            assert [engine.name for engine in engines] == [name] * 3
        for one, other in zip(auto.score(clips), plain.score(clips), strict=True):
            assert (one.engine, other.engine) == ("openvino", "onnxruntime")
            assert distance(one, other) < 0.05  # INT8 rounds some values to the other side: 0.03 between two emotions
            assert one.label == other.label


@pytest.fixture(scope="module")
def damaged(rebundle: Callable[..., Path], vectors: Mapping[str, EncoderVectors]) -> Mapping[str, tuple[Path, str]]:
    """Bundles whose vectors OpenVINO does not pass, by what is wrong; ONNX Runtime, which runs the first two, does."""
    original = Bundle.open(default_bundle())
    logits = GoldenVectors.from_bundle(original).logits.copy()
    logits[-1] += np.float32(2 * TOLERANCE[original.manifest.precision])
    wrong = dataclasses.replace(vectors["text"], rows=np.roll(vectors["text"].rows, 1, axis=1))
    return {
        "logits": (rebundle(logits=logits), OTHER_LOGITS),
        "rows": (rebundle(encoders={**vectors, "text": wrong}), OTHER_ROWS),
    }


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("what", ["logits", "rows"])
def test_openvino_that_is_not_proved_is_not_used(
    damaged: Mapping[str, tuple[Path, str]], what: str, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, reason = damaged[what]
    with Runtime.load(path, asr="none") as runtime:
        assert runtime.engine.name == "onnxruntime"
        assert runtime.recognize(clip).engine == "onnxruntime"
    (message,) = caplog.messages
    assert re.match(rf"openvino is not used, onnxruntime is: {reason}", message)
    assert caplog.records[0].levelname == "WARNING"
    with pytest.raises(ParityError, match=reason):
        Runtime.load(path, engine="openvino", asr="none")
    Runtime.load(path, engine="openvino", asr="none", self_test=False).close()


@pytest.mark.usefixtures("openvino")
def test_encoders_without_vectors_prove_nothing(
    rebundle: Callable[..., Path], vectors: Mapping[str, EncoderVectors], caplog: pytest.LogCaptureFixture
) -> None:
    path = rebundle(encoders={})
    with Runtime.load(path, asr="none") as runtime:
        assert runtime.engine.name == "onnxruntime"
    with Runtime.load(path, engine="openvino", asr="none") as runtime:
        assert runtime.engine.name == "openvino"
    with Runtime.load(rebundle(encoders={"text": vectors["text"]}), asr="none") as runtime:
        assert runtime.engine.name == "onnxruntime"
    first, second, third = caplog.messages
    assert re.match(rf"openvino is not used, onnxruntime is: {NO_VECTORS}", first)
    assert re.match(rf"openvino is used unproved: {NO_VECTORS}", second)
    assert third.endswith("has no golden vectors for its encoders of audio")


def test_onnx_runtime_needs_no_vectors_of_encoders(
    rebundle: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    Runtime.load(rebundle(encoders={}), engine="onnxruntime", asr="none").close()
    assert caplog.messages == []


@pytest.mark.parametrize("error", ["ImportError('cut short')", "OSError('cut short')"])
def test_auto_does_without_openvino_that_does_not_start(
    proved: Path, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text(f"raise {error}")
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with Runtime.load(proved, asr="none") as runtime:
        assert runtime.engine.name == "onnxruntime"
    (message,) = caplog.messages
    assert re.match("openvino is not used, onnxruntime is: openvino: is installed but does not start: cut", message)
    with pytest.raises(EngineError, match="openvino: is installed but does not start: cut short"):
        Runtime.load(proved, engine="openvino", asr="none")


def test_auto_where_openvino_is_not_installed(
    proved: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with Runtime.load(proved, asr="none") as runtime:
        assert runtime.engine.name == "onnxruntime"
    assert caplog.messages == []
    with pytest.raises(MissingDependencyError, match=r"openvino is not installed.*pip install 'edgeser\[openvino\]'"):
        Runtime.load(proved, engine="openvino", asr="none")


def test_auto_without_the_self_test_is_onnx_runtime(
    proved: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> Engine:
        raise AssertionError("opened without a proof")

    monkeypatch.setattr("edgeser.runtime.engines.ENGINES", {**ENGINES, "openvino": refuse})
    with Runtime.load(proved, asr="none", self_test=False) as runtime:
        assert runtime.engine.name == "onnxruntime"
    assert caplog.messages == []


@pytest.mark.usefixtures("openvino")
def test_what_is_refused_is_closed(damaged: Mapping[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Engine] = []

    def watch(graph: bytes, threads: int) -> Engine:
        opened.append(OpenVinoEngine(graph, threads))
        return opened[-1]

    monkeypatch.setattr("edgeser.runtime.engines.ENGINES", {**ENGINES, "openvino": watch})
    Runtime.load(damaged["rows"][0], asr="none").close()
    assert len(opened) == 3
    for engine in opened:
        with pytest.raises(EngineError, match="openvino: the engine is closed"):
            engine.run({spec.name: np.zeros([n or 1 for n in spec.shape], spec.dtype) for spec in engine.inputs})


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Write a small bundle that takes these modalities: `(*modalities)`."""
    write = runpy.run_path(str(Path(__file__).parents[1] / "four_modalities.py"))["four_modalities"]
    return lambda *modalities: write(tmp_path_factory.mktemp("four") / "m.edgeser", modalities)


def listener(bundle: Bundle) -> Runtime:
    return Runtime.load(bundle.path, engine="onnxruntime", asr="none", self_test=False)


@pytest.mark.parametrize(
    "modalities",
    [
        ("audio", "text", "phonemes", "sentence"),
        ("audio", "text", "phonemes"),
        ("audio", "phonemes"),
        ("audio", "sentence"),
        ("text", "phonemes"),
    ],
    ids="+".join,
)
def test_any_modalities_are_served(four: Callable[..., Bundle], clip: Path, modalities: tuple[str, ...]) -> None:
    """All but audio come from the recogniser's words; the graph gets what each frontend gives by itself."""
    recognized = [RecognizedWord(word, 0.3 * i, 0.3 * i + 0.2, 0.9) for i, word in enumerate(WORDS.split())]
    with listener(four(*modalities)) as runtime:
        assert runtime.hears_words
        assert runtime.highlighted == next((name for name in ("text", "phonemes") if name in modalities), None)
        heard, told = runtime.answer(load_audio(clip), recognized), runtime.recognize(clip, transcript=WORDS)
        assert heard.transcript == WORDS
        assert heard.probabilities == told.probabilities
        assert heard.spans == ()  # this model gives no importance of audio
        features = {name: f(load_audio(clip) if name == "audio" else WORDS) for name, f in runtime.frontends.items()}
        feeds = {name: one.values[None] for name, one in features.items()}
        feeds.update({f"{name}_length": np.array([one.valid], np.int32) for name, one in features.items()})
        expected = softmax(runtime.engine.run(feeds)["logits"])[0]
        np.testing.assert_allclose(list(heard.probabilities.values()), expected, atol=1e-6)
        empty = runtime.recognize(clip, transcript="")
        assert distance(empty, heard) > 1e-3
        both = runtime.recognize_batch([load_audio(clip)] * 2, [WORDS, ""])
        assert [distance(both[0], heard) < 1e-6, distance(both[1], empty) < 1e-6] == [True, True]
    assert [word.text for word in heard.words] == WORDS.split()
    assert [word.start_s for word in heard.words] == [word.start_s for word in recognized]
    if runtime.highlighted:
        assert sum(word.importance for word in heard.words) == pytest.approx(1.0)
        assert len({word.importance for word in heard.words}) > 3
    else:
        assert {(word.importance, word.mattered) for word in heard.words} == {(0.0, False)}
    assert heard.timings.text_ms > 0
    assert (heard.timings.audio_ms > 0) == ("audio" in modalities)


def test_words_weigh_what_the_text_says_beside_phonemes(four: Callable[..., Bundle], clip: Path) -> None:
    """Marks and the pieces of contractions count for their word, whose text and phonemes are cut alike."""
    line = "dogs don't sit!"
    with listener(four("audio", "text", "phonemes", "sentence")) as runtime:
        result = runtime.recognize(clip, transcript=line)
        rows = np.abs(runtime.frontends["text"](line).values).sum(axis=1)  # type: ignore[operator]
    expected = np.array([rows[0], rows[1] + rows[2], rows[3] + rows[4]]) / rows.sum()
    np.testing.assert_allclose([word.importance for word in result.words], expected, rtol=1e-5)


def test_a_bundle_of_audio_alone_hears_no_words(four: Callable[..., Bundle], clip: Path) -> None:
    with listener(four("audio")) as runtime:
        assert not runtime.hears_words
        assert runtime.window_samples == round((99 * 0.012 + 0.025) * 16_000)
        result = runtime.recognize(clip)
    assert (result.transcript, result.words, result.timings.asr_ms) == ("", (), 0.0)
    assert result.heard_s == pytest.approx(99 * 0.012 + 0.025)


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="engine: got 'cuda', expected auto or onnxruntime"):
        Runtime.load(engine="cuda")
    with pytest.raises(InputError, match="asr: got 'google', expected auto, whisper, pocketsphinx, none"):
        Runtime.load(asr="google")
    with pytest.raises(InputError, match="threads: got 0"):
        Runtime.load(threads=0)
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgeser\[asr\]'"):
        Runtime.load(asr="pocketsphinx")
    assert Runtime.load(engine="onnxruntime", asr="auto").asr.name == "whisper"
