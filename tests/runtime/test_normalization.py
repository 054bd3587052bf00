"""The mean of what was heard, taken out of the rows: in `Runtime`, with real recordings and the shipped model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import EngineError, InputError
from edgeser.runtime.frontends import AudioFrontend
from edgeser.runtime.labels import NO_SPEECH
from edgeser.runtime.pipeline import softmax
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import Result
from edgeser.runtime.running_mean import RunningMean


@pytest.fixture(scope="module")
def runtime(centered: Path) -> Iterator[Runtime]:
    with Runtime.load(centered, engine="onnxruntime", asr="none") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def plain(uncentered: Path) -> Iterator[Runtime]:
    with Runtime.load(uncentered, engine="onnxruntime", asr="none") as loaded:
        yield loaded


def chances(result: Result) -> list[float]:
    return list(result.probabilities.values())


def by_hand(runtime: Runtime, samples: Samples, shift: np.ndarray) -> list[float]:
    """Answer without the pipeline: rows, minus the shift where they are valid, through the engine."""
    audio, text = runtime.frontends["audio"], runtime.frontends["text"]
    assert isinstance(audio, AudioFrontend)
    rows = audio.rows(samples[: audio.samples_for(audio.length)])[: audio.length]
    values = np.zeros((1, audio.length, audio.dim), np.float32)
    values[0, : rows.shape[0]] = rows - shift
    words = np.zeros((1, text.length, text.dim), np.float32)
    lengths = np.array([rows.shape[0]], np.int32), np.zeros(1, np.int32)
    feeds = {"audio": values, "audio_length": lengths[0], "text": words, "text_length": lengths[1]}
    return list(softmax(runtime.engine.run(feeds)["logits"])[0])


def test_the_mean_of_what_was_heard_before_is_taken_out_and_then_the_utterance_is_added(
    runtime: Runtime, clips: Sequence[Path]
) -> None:
    state, means = runtime.open_state(), []
    for clip in clips:
        samples = load_audio(clip)
        expected = np.sum(means, axis=0) / (len(means) + 2.0) if means else np.zeros(runtime.frontends["audio"].dim)
        answer = runtime.recognize(clip, state=state)
        np.testing.assert_allclose(chances(answer), by_hand(runtime, samples, expected), atol=1e-4)
        audio = runtime.frontends["audio"]
        assert isinstance(audio, AudioFrontend)
        means.append(audio.rows(samples).mean(axis=0))
        np.testing.assert_allclose(runtime.mean_of(samples), means[-1], atol=1e-5)
        assert state.count == len(means)
    np.testing.assert_allclose(state.mean, np.mean(means, axis=0), atol=1e-5)


def test_cold_is_what_it_was(runtime: Runtime, plain: Runtime, clips: Sequence[Path]) -> None:
    for clip in clips:
        cold = chances(plain.recognize(clip))
        assert chances(runtime.recognize(clip)) == cold
        assert chances(runtime.recognize(clip, state=runtime.open_state())) == cold


def test_a_warm_state_changes_the_answer(runtime: Runtime, clips: Sequence[Path]) -> None:
    state = runtime.open_state()
    for clip in clips[1:]:
        runtime.recognize(clip, state=state)
    warm, cold = runtime.recognize(clips[0], state=state), runtime.recognize(clips[0])
    assert max(abs(a - b) for a, b in zip(chances(warm), chances(cold), strict=True)) > 1e-3


def test_padding_stays_zero(runtime: Runtime, speech: Samples) -> None:
    audio = runtime.frontends["audio"]
    assert isinstance(audio, AudioFrontend)
    features = audio(speech[:SAMPLE_RATE])
    shifted = features.without(np.ones(audio.dim, np.float32))
    assert 0 < features.valid < features.values.shape[0]
    assert not shifted.values[features.valid :].any()
    np.testing.assert_array_equal(shifted.values[: features.valid], features.values[: features.valid] - 1)


def test_what_has_no_speech_or_fails_is_not_heard(runtime: Runtime, speech: Samples) -> None:
    state = runtime.open_state()
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    assert runtime.recognize(quiet, SAMPLE_RATE, state=state).label == NO_SPEECH
    assert runtime.mean_of(quiet) is None
    assert runtime.recognize(quiet, SAMPLE_RATE, transcript="how dare you", state=state).label != NO_SPEECH
    with pytest.raises(InputError, match="audio: got 10 samples"):
        runtime.recognize(speech[:10], SAMPLE_RATE, state=state)
    with pytest.raises(InputError):
        runtime.recognize(np.full(SAMPLE_RATE, np.nan), SAMPLE_RATE, state=state)
    assert state.count == 0


def test_an_utterance_that_the_engine_fails_on_is_not_heard(
    centered: Path, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Runtime.load(centered, engine="onnxruntime", asr="none") as runtime:
        state = runtime.open_state()
        monkeypatch.setattr(runtime.engine, "run", lambda feeds: (_ for _ in ()).throw(EngineError("no")))
        with pytest.raises(EngineError):
            runtime.recognize(speech, SAMPLE_RATE, state=state)
        assert state.count == 0


def test_a_batch_with_shifts_answers_as_one_by_one(runtime: Runtime, clips: Sequence[Path]) -> None:
    audio = [load_audio(clip) for clip in clips]
    state = runtime.open_state()
    for samples in audio:
        mean = runtime.mean_of(samples)
        assert mean is not None
        state.add(mean)
    shift = runtime.normalization.shift(state)
    together = runtime.recognize_batch(audio, [""] * len(audio), [shift, None] * (len(audio) // 2))
    for number, (samples, result) in enumerate(zip(audio, together, strict=True)):
        alone = runtime.recognize(samples, SAMPLE_RATE, transcript="", state=None if number % 2 else state.copy())
        np.testing.assert_allclose(chances(result), chances(alone), atol=1e-5)


def test_a_bundle_that_was_not_trained_for_it_refuses(plain: Runtime, runtime: Runtime, clip: Path) -> None:
    message = "uncentered.edgeser has no mean_prior: its model was not trained for rows without their mean"
    with pytest.raises(InputError, match=message):
        plain.open_state()
    with pytest.raises(InputError, match=message):
        plain.recognize(clip, state=runtime.open_state())


def test_a_state_of_another_encoder_is_refused(runtime: Runtime, clip: Path) -> None:
    dim = runtime.frontends["audio"].dim
    for state in (RunningMean("ab" * 32, np.zeros(dim)), RunningMean(runtime.normalization.encoder, np.zeros(80))):
        with pytest.raises(InputError, match="state: is of encoder"):
            runtime.recognize(clip, state=state)


def test_a_state_that_was_saved_gives_the_same_answers(runtime: Runtime, clips: Sequence[Path], tmp_path: Path) -> None:
    state = runtime.open_state()
    runtime.recognize(clips[1], state=state)
    state.save(tmp_path / "voice.state")
    loaded = RunningMean.load(tmp_path / "voice.state")
    for clip in clips:
        assert chances(runtime.recognize(clip, state=loaded)) == chances(runtime.recognize(clip, state=state))


def test_in_a_fork_a_state_can_be_read_and_saved(
    runtime: Runtime, clip: Path, tmp_path: Path, forked: Callable[[Callable[[], object]], str]
) -> None:
    state = runtime.open_state()
    runtime.recognize(clip, state=state)

    def child() -> object:
        state.save(tmp_path / f"{os.getpid()}.state")
        return state.count

    assert forked(child) == "1"
    assert RunningMean.load(next(tmp_path.iterdir())).count == 1
    assert "load it after the fork" in forked(lambda: runtime.recognize(clip, state=state))


@pytest.mark.parametrize("normalize", ["speaker", "all", ""])
def test_unknown_choices(normalize: str) -> None:
    from edgeser.runtime.streams import StreamOptions

    with pytest.raises(InputError, match=f"normalize: got '{normalize}', expected none, run"):
        StreamOptions(normalize=normalize)
