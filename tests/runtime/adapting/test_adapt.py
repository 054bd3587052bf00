"""Adapting through the Runtime, with real clips and the default bundle's graph."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.adapting import Clips, Naming, Observations, Observer, adapt, clips_of, write_adapted
from edgeser.runtime.audio import SAMPLE_RATE, load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import AudioFrontend
from edgeser.runtime.pipeline import softmax
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import Result
from edgeser.runtime.scoring import Recording

TURNED = {"angry": "happy", "happy": "neutral", "neutral": "sad", "sad": "angry"}


@pytest.fixture(scope="module")
def recordings(
    own_voice: Callable[[Path, Mapping[str, str]], str], tmp_path_factory: pytest.TempPathFactory
) -> list[Recording]:
    manifest = own_voice(tmp_path_factory.mktemp("mine"), TURNED).partition(":")[2]
    with Path(manifest).open(encoding="utf-8", newline="") as file:
        return [Recording(row["id"], Path(row["audio"]), None, row["emotion"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def observed(centered: Path, recordings: Sequence[Recording]) -> tuple[Observations, Observations]:
    """The recordings cold, and with their own mean taken out, by a bundle with a `mean_prior`."""
    with Runtime.load(centered, engine="onnxruntime", asr="none") as runtime, Observer(runtime) as observer:
        cold = observer.observe(recordings)
        return cold, observer.centered(cold)


@pytest.fixture(scope="module")
def mine(centered: Path, observed: tuple[Observations, Observations], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That bundle, adapted with the running mean."""
    with Runtime.load(centered, engine="onnxruntime", asr="none") as runtime:
        clips = clips_of(observed[1], runtime.labels, runtime.labels)
        place = tmp_path_factory.mktemp("adapted") / "mine.edgeser"
        return write_adapted(runtime.bundle, adapt(runtime.bundle, clips), Naming(), place).path


def chances(result: Result) -> list[float]:
    return list(result.probabilities.values())


def test_what_is_observed_is_what_the_model_gets(
    centered: Path, recordings: Sequence[Recording], observed: tuple[Observations, Observations]
) -> None:
    cold, warm = observed
    with Runtime.load(centered, engine="onnxruntime", asr="none") as runtime:
        state = runtime.open_state()
        for one, again in zip(cold.observed, warm.observed, strict=True):
            samples = load_audio(one.recording.path)
            mean = runtime.mean_of(samples)
            assert mean is not None
            np.testing.assert_allclose(one.mean, mean, atol=1e-6)
            np.testing.assert_array_equal(again.cold, one.logits)
            answer = runtime.recognize(samples, SAMPLE_RATE)
            np.testing.assert_allclose(softmax(one.logits[None])[0], chances(answer), atol=1e-5)
            state.add(mean)
        shift = runtime.normalization.shift(state)
        for one, again in zip(cold.observed, warm.observed, strict=True):
            np.testing.assert_allclose(again.mean, one.mean - shift, atol=1e-5)
    assert warm.heard is not None
    assert warm.heard.count == len(recordings)
    np.testing.assert_allclose(warm.heard.mean, state.mean, atol=1e-6)


def test_the_users_mean_is_where_every_answer_begins(mine: Path, clips: Sequence[Path]) -> None:
    with Runtime.load(mine, engine="onnxruntime", asr="none") as runtime:
        adaptation = runtime.bundle.adaptation()
        assert adaptation is not None
        state = runtime.open_state()
        assert state.count == 20
        audio = runtime.frontends["audio"]
        assert isinstance(audio, AudioFrontend)
        for clip in clips:
            # Cold, with a state that has heard no more than the clips, and by hand.
            cold = runtime.recognize(clip)
            assert chances(runtime.recognize(clip, state=runtime.open_state())) == chances(cold)
            features = audio(load_audio(clip)).without(state.shift(2.0))
            feeds = {
                "audio": features.values[None],
                "audio_length": np.array([features.valid], np.int32),
                "text": np.zeros((1, 20, 384), np.float32),
                "text_length": np.zeros(1, np.int32),
            }
            mean = features.values[: features.valid].astype(np.float64).mean(axis=0)
            corrected = adaptation.apply(runtime.engine.run(feeds)["logits"], mean[None])
            np.testing.assert_allclose(softmax(corrected)[0], chances(cold), atol=1e-6)
        # From there a running mean goes on.
        runtime.recognize(clips[0], state=state)
        assert state.count == 21
        assert chances(runtime.recognize(clips[1], state=state)) != chances(runtime.recognize(clips[1]))


def test_it_is_right_where_it_was_wrong(mine: Path, recordings: Sequence[Recording]) -> None:
    with Runtime.load(mine, engine="onnxruntime", asr="none") as runtime:
        assert np.mean([runtime.recognize(one.path).label == one.emotion for one in recordings]) >= 0.9


def test_observing_does_not_hear_an_earlier_adaptation(
    mine: Path, recordings: Sequence[Recording], observed: tuple[Observations, Observations]
) -> None:
    with Runtime.load(mine, engine="onnxruntime", asr="none") as runtime, Observer(runtime) as observer:
        again = observer.observe(recordings[:3])
        for one, first in zip(again.observed, observed[0].observed, strict=False):
            np.testing.assert_array_equal(one.mean, first.mean)
            np.testing.assert_array_equal(one.logits, first.logits)


def test_pieces_of_one_file_are_one_recording_where_they_overlap(
    centered: Path, recordings: Sequence[Recording]
) -> None:
    path = recordings[0].path
    extents = [(0.0, 1.2), (2.0, 3.0), (1.0, 1.9), (1.9, 2.0 + 1e-9)]
    pieces = [Recording(str(i), path, None, "happy", *extent) for i, extent in enumerate(extents)]
    others = [Recording(f"other {i}", one.path, None, "sad") for i, one in enumerate(recordings[:5])]
    with Runtime.load(centered, engine="onnxruntime", asr="none") as runtime, Observer(runtime) as observer:
        found = observer.observe(pieces[:3])
        alone = observer.observe(others)
    together = Observations([*found.observed, *alone.observed[1:]], {})
    clips = clips_of(together, runtime.labels, ("happy", "sad"))
    assert clips.groups[0] == clips.groups[2]
    assert len(set(clips.groups)) == 2 + 4
    with pytest.raises(InputError, match="got 1 of happy"):
        clips_of(Observations([*found.observed[::2], *alone.observed[1:]], {}), runtime.labels, ("happy", "sad"))


def test_the_same_voice_in_another_order_is_answered_alike(
    centered: Path, observed: tuple[Observations, Observations]
) -> None:
    with Runtime.load(centered, engine="onnxruntime", asr="none") as runtime:
        both = []
        for order in (slice(None), slice(None, None, -1)):
            found = Observations(observed[0].observed[order], {})
            clips: Clips = clips_of(found, runtime.labels, runtime.labels)
            both.append(adapt(runtime.bundle, clips))
    logits, means = np.zeros((1, 4)), observed[0].observed[0].mean[None]
    first, second = (softmax(one.adaptation.apply(logits, means)) for one in both)
    assert both[0].strength == both[1].strength
    np.testing.assert_allclose(first, second, atol=1e-4)
