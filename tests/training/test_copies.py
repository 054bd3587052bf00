"""Copies of a corpus: one device a domain, kept apart in the cache, trained on beside the recordings."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.inputs import load_utterance
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import LogMel
from edgeser.training.copies import Copy, WaveAugmentation, copies, copy_of
from edgeser.training.domains import DomainMeans, MeanShift
from edgeser.training.features import RecordingFeatures, audio_key
from edgeser.training.frontends import corpus_copies
from edgeser.training.noises import NoiseBank, read_noises, split_of
from edgeser.training.options import TrainOptions
from edgeser.training.recipe import Recipe
from edgeser.training.train import train
from edgeser.training.waveforms import AcousticCondition, apply

_ALL = WaveAugmentation(noise_share=1.0, babble_share=1.0, room_share=1.0, gain_share=1.0, tilt_share=1.0)


@pytest.fixture
def noises(clips: list[Path], tmp_path: Path) -> Path:
    manifest = tmp_path / "noise.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "audio", "kind"))
        rows.writerows((f"n{i}", clips[i % 4], "rain" if i % 3 else "room") for i in range(30))
    return manifest


def test_noises_that_train_never_test(noises: Path) -> None:
    names = [f"noise-{i}" for i in range(3000)]
    assert sum(split_of(name) == "train" for name in names) == pytest.approx(2000, abs=100)
    train_bank, test_bank = read_noises(noises, "train"), read_noises(f"manifest:{noises}", "test")
    assert len(train_bank.noises) + len(test_bank.noises) == 20
    assert len(train_bank.rooms) + len(test_bank.rooms) == 10
    assert len(train_bank.noises) > len(test_bank.noises) > 0


def test_a_domain_has_one_device_and_each_recording_its_own_moment(corpus: str, noises: Path) -> None:
    utterances = read_corpus(corpus)
    made = copies(utterances, 2, _ALL, read_noises(noises, "train"), seed=3)
    assert len(made) == 2 * len(utterances)
    assert len({copy.id for copy in made}) == len(made)
    assert made == copies(utterances, 2, _ALL, read_noises(noises, "train"), seed=3)
    assert made != copies(utterances, 2, _ALL, read_noises(noises, "train"), seed=4)
    devices: dict[tuple[str, str, int], set[tuple[object, ...]]] = {}
    for copy in made:
        one = copy.condition
        device = (one.room, one.noise, one.noise_snr_db, one.tilt_db, one.gain_db, one.speed, one.telephone)
        devices.setdefault((copy.corpus, copy.speaker, copy.copy), set()).add(device)
    assert all(len(found) == 1 for found in devices.values())
    assert len({next(iter(found)) for found in devices.values()}) == len(devices)
    assert len({copy.condition.noise_offset for copy in made}) == len({audio_key(copy) for copy in made})


def test_babble_stays_within_corpus_and_session_and_is_never_the_speaker(corpus: str) -> None:
    utterances = read_corpus(corpus)
    sessions = {str(u.audio): {v.session for v in utterances if v.audio == u.audio} for u in utterances}
    made = copies(utterances, 1, _ALL, NoiseBank())
    assert any(copy.condition.babble for copy in made)
    for copy in made:
        assert str(copy.audio) not in copy.condition.babble
        assert all(copy.session in sessions[file] for file in copy.condition.babble)


def test_a_copy_is_heard_through_its_condition_and_kept_apart(clip: Path, clips: list[Path], tmp_path: Path) -> None:
    utterance = Utterance("a", clip, end_s=2.0)
    condition = AcousticCondition(noise=str(clips[1]), noise_snr_db=5.0)
    cache = RecordingFeatures(LogMel(40), tmp_path)
    expected = cache.frontend.extract(apply(load_utterance(utterance), condition))
    clean = cache.rows(utterance)
    for _ in range(2):
        np.testing.assert_array_equal(cache.rows(copy_of(utterance, condition)), expected)
        np.testing.assert_array_equal(cache.rows(utterance), clean)
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    moved = tmp_path / "moved.flac"
    moved.write_bytes(clips[1].read_bytes())
    cache.rows(copy_of(utterance, AcousticCondition(noise=str(moved), noise_snr_db=5.0)))  # the same noise
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    cache.rows(copy_of(utterance, AcousticCondition(noise=str(moved), noise_snr_db=6.0)))
    assert len(list(tmp_path.rglob("*.npy"))) == 3
    assert not np.array_equal(cache.mean(utterance), cache.mean(copy_of(utterance, condition)))


def test_the_mean_of_a_copys_domain_is_of_its_copy(clips: list[Path]) -> None:
    originals = [Utterance(str(i), clip, "happy", speaker="a", corpus="c") for i, clip in enumerate(clips)]
    made = copies(originals, 1, WaveAugmentation(), NoiseBank())
    means = {audio_key(u): np.full(2, 7.0 if isinstance(u, Copy) else 1.0, np.float32) for u in (*originals, *made)}
    drawn = DomainMeans([*originals, *made], means, MeanShift(prior=1e-9, cold_share=0.0))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        np.testing.assert_allclose(drawn.draw(made[0], rng), 7.0, rtol=1e-5)
        np.testing.assert_allclose(drawn.draw(originals[0], rng), 1.0, rtol=1e-5)


def test_a_run_trains_on_copies_and_tests_on_none(corpus: str, noises: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_dict({"epochs": 1, "copies": 2, "wave": {"room_share": 0.0, "noise_share": 1.0}})
    options = TrainOptions(corpus, tmp_path / "run", folds=("1",), noise=str(noises), recipe=recipe)
    (result,) = train(options)
    assert result.metrics is not None
    tested = (tmp_path / "run" / "fold-1" / "predictions.csv").read_text().splitlines()[1:]
    assert tested
    assert not any("#" in row.split(",")[0] for row in tested)


def test_what_may_only_test_is_neither_copied_nor_heard_as_babble(voices: str, tmp_path: Path) -> None:
    utterances = read_corpus(voices)
    kept = {u.id for u in utterances if u.is_test_only}
    recipe = Recipe.from_dict({"copies": 2, "wave": {"babble_share": 1.0}})
    options = TrainOptions(voices, tmp_path, modalities=("audio",), recipe=recipe)
    made = corpus_copies(options, utterances)
    assert len(made) == 2 * (len(utterances) - len(kept)) > 0
    assert kept
    assert not kept & {copy.original for copy in made}


@pytest.mark.parametrize(
    ("text", "message"),
    [("id,audio\n", "no column kind"), ("id,audio,kind\n", "no noise"), ("id,audio,kind\nn0,gone.wav,rain\n", "gone")],
)
def test_bad_manifests_of_noises_are_refused(tmp_path: Path, text: str, message: str) -> None:
    manifest = tmp_path / "noise.csv"
    manifest.write_text(text)
    with pytest.raises(InputError, match=message):
        read_noises(manifest, split_of("n0"))
    with pytest.raises(InputError, match="expected a manifest"):
        read_noises(tmp_path / "none.csv", "train")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"copies": -1}, "-1 copies"),
        ({"wave": {"noise_share": 2.0}}, "noise_share 2.0"),
        ({"wave": {"cut_share": -1.0}}, "cut_share -1.0"),
        ({"wave": {"cut_s": [0.0, 1.0]}}, "expected more than 0 s"),
        ({"wave": {"cut_s": [2.0, 1.0]}}, "the lower one first"),
        ({"wave": {"gain_db": [3.0, -3.0]}}, "lower one first"),
        ({"wave": {"speeds": [0.5, 1.0]}}, "speeds"),
    ],
)
def test_impossible_recipes_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.from_dict(values)


def test_noise_without_copies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--copies"):
        TrainOptions("manifest:x.csv", tmp_path, noise="manifest:noise.csv")
