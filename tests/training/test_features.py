from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.inputs import load_utterance
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import LogMel, Statistics
from edgeser.training.features import LineFeatures, RecordingFeatures, play
from edgeser.training.glove import load_word_vectors


def test_cached_features_are_the_frontends_own(clip: Path, tmp_path: Path) -> None:
    frontend = LogMel(40)
    utterance = Utterance("a", clip, start_s=0.5, end_s=2.5)
    cache = RecordingFeatures(frontend, tmp_path)
    expected = frontend.extract(load_utterance(utterance))
    for _ in range(2):
        np.testing.assert_array_equal(cache.rows(utterance), expected)
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def test_key_follows_content_options_speed_and_extent_not_the_name(clip: Path, tmp_path: Path) -> None:
    cache = RecordingFeatures(LogMel(40), tmp_path)
    utterance = Utterance("a", clip)
    twin = tmp_path / "renamed.flac"
    twin.write_bytes(clip.read_bytes())
    for same in (utterance, dataclasses.replace(utterance, id="b"), Utterance("c", twin)):
        cache.rows(same)
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    cache.rows(utterance, speed=1.1)
    cache.rows(dataclasses.replace(utterance, end_s=2.0))
    RecordingFeatures(LogMel(80), tmp_path).rows(utterance)
    assert len(list(tmp_path.rglob("*.npy"))) == 4


def test_faster_is_shorter_and_higher(speech: np.ndarray) -> None:
    assert play(speech, 1.0) is speech
    assert play(speech, 1.25).shape[0] == pytest.approx(speech.shape[0] / 1.25, abs=2)
    tone = np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(play(tone, 1.25)[:12_800]))
    assert spectrum.argmax() * 16_000 / 12_800 == pytest.approx(625, abs=2)


def test_statistics_are_those_of_every_recording_once(clips: list[Path], tmp_path: Path) -> None:
    cache = RecordingFeatures(LogMel(40), tmp_path)
    once = [Utterance(str(i), clip) for i, clip in enumerate(clips)]
    again = [dataclasses.replace(once[0], id=f"again {i}", transcript="other words") for i in range(5)]
    found = cache.statistics([*once, *again])
    together = np.concatenate([cache.rows(u) for u in once]).astype(np.float64)
    np.testing.assert_allclose(found.mean, together.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.std, together.std(axis=0), rtol=1e-5)


def test_statistics_are_not_part_of_the_key(clip: Path, tmp_path: Path) -> None:
    plain = LogMel(40)
    normalised = plain.with_statistics(Statistics(np.full(40, -3.0, np.float32), np.full(40, 2.0, np.float32)))
    for frontend in (plain, normalised):
        RecordingFeatures(frontend, tmp_path).rows(Utterance("a", clip))
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def test_lines_with_and_without_punctuation(clip: Path) -> None:
    frontend = load_word_vectors(words=5000)
    lines = LineFeatures(frontend)
    utterance = Utterance("a", clip, transcript="Don't you -- dare, really?!")
    assert lines.rows(utterance).shape == (7, 50)  # do n't you dare really ? !
    unmarked = lines.rows(utterance, unmarked=True)
    np.testing.assert_array_equal(unmarked, frontend.rows(frontend.tokens("do n't you dare really")))
    assert lines.rows(Utterance("b", clip)).shape == (0, 50)


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.wav: no such file \(utterance a\)"):
        RecordingFeatures(LogMel(40), tmp_path).rows(Utterance("a", tmp_path / "gone.wav"))


def test_corpus_has_two_sessions(corpus: str) -> None:
    assert {u.session for u in read_corpus(corpus)} == {"1", "2"}
