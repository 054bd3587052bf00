from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgeser.corpora import Utterance, read_corpus
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import LogMel
from edgeser.training.features import FeatureCache, load_utterance, play, statistics


def test_cached_features_are_the_frontends_own(clip: Path, tmp_path: Path) -> None:
    frontend = LogMel(40)
    utterance = Utterance("a", clip, start_s=0.5, end_s=2.5)
    cache = FeatureCache(frontend, tmp_path)
    expected = frontend.energies(load_utterance(utterance))
    for _ in range(2):
        np.testing.assert_array_equal(cache.energies(utterance), expected)
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def test_key_follows_content_options_speed_and_extent_not_the_name(clip: Path, tmp_path: Path) -> None:
    cache = FeatureCache(LogMel(40), tmp_path)
    utterance = Utterance("a", clip)
    twin = tmp_path / "renamed.flac"
    twin.write_bytes(clip.read_bytes())
    for same in (utterance, dataclasses.replace(utterance, id="b"), Utterance("c", twin)):
        cache.energies(same)
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    cache.energies(utterance, speed=1.1)
    cache.energies(dataclasses.replace(utterance, end_s=2.0))
    FeatureCache(LogMel(80), tmp_path).energies(utterance)
    assert len(list(tmp_path.rglob("*.npy"))) == 4


def test_faster_is_shorter_and_higher(speech: np.ndarray) -> None:
    assert play(speech, 1.0) is speech
    assert play(speech, 1.25).shape[0] == pytest.approx(speech.shape[0] / 1.25, abs=2)
    tone = np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(play(tone, 1.25)[:12_800]))
    assert spectrum.argmax() * 16_000 / 12_800 == pytest.approx(625, abs=2)


def test_statistics_are_those_of_all_rows_together() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(3.0, 2.0, (n, 4)).astype(np.float32) for n in (5, 50, 1)]
    mean, std = statistics(parts)
    together = np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(mean, together.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, together.std(axis=0), rtol=1e-6)


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.wav: no such file \(utterance a\)"):
        FeatureCache(LogMel(40), tmp_path).energies(Utterance("a", tmp_path / "gone.wav"))


def test_corpus_has_two_sessions(corpus: str) -> None:
    assert {u.session for u in read_corpus(corpus)} == {"1", "2"}
