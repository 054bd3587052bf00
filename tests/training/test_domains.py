"""The mean of a domain that training takes out of a sample's rows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeser.cli.main import main
from edgeser.corpora import Utterance, read_corpus
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import LogMel, Rows, Statistics
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.training.copies import copy_of
from edgeser.training.dataset import EmotionDataset
from edgeser.training.domains import (
    DomainMeans,
    MeanShift,
    run_shifts,
    shift_of_means,
    shifted,
    standardised_means,
)
from edgeser.training.evaluation import RUN_PREDICTIONS, cross_validation, read_predictions
from edgeser.training.features import RecordingFeatures, audio_key
from edgeser.training.options import TrainOptions, differing
from edgeser.training.recipe import Recipe
from edgeser.training.train import train
from edgeser.training.waveforms import AcousticCondition

SPEAKERS = {"proxy": ("R01", "R02"), "nemo": ("N1",), "phones": ("P1", "P2", "P3")}
COUNT = 6  # recordings of each speaker, one after the other of each emotion


def utterances() -> list[Utterance]:
    return [
        Utterance(f"{s}{n}", Path(f"{s}{n}.wav"), FOUR_EMOTIONS[n % 4], speaker=s, corpus=c)
        for c, speakers in SPEAKERS.items()
        for s in speakers
        for n in range(COUNT)
    ]


def one_hot(everything: list[Utterance]) -> dict[str, Rows]:
    """Means by which a shift tells what it is made of: column n is 1 for recording n alone."""
    eye = np.eye(len(everything), dtype=np.float32)
    return {audio_key(u): eye[n] for n, u in enumerate(everything)}


def drawn(everything: list[Utterance], index: int, options: MeanShift, count: int = 300) -> list[set[int]]:
    """Return, draw by draw, the recordings that a shift was made of."""
    means = DomainMeans(everything, one_hot(everything), options)
    found = []
    for seed in range(count):
        shift = means.draw(everything[index], np.random.default_rng(seed))
        places = set() if shift is None else set(np.flatnonzero(shift).tolist())
        if shift is not None:
            expected = 1 / len(places) * len(places) / (len(places) + options.prior)
            np.testing.assert_allclose(shift[sorted(places)], expected, rtol=1e-5)
        found.append(places)
    return found


@pytest.mark.parametrize(("domain", "size"), [("corpus", 12), ("speaker", 6)])
@pytest.mark.parametrize("skewed", [0.0, 1.0])
def test_a_mean_is_of_other_recordings_of_the_domain(domain: str, size: int, skewed: float) -> None:
    found = drawn(utterances(), 0, MeanShift(5.0, 0.0, domain, skewed_share=skewed))
    assert set.union(*found) == set(range(1, size))
    assert all(found)
    # From one of them to all of them.
    assert {1, 2} <= {len(places) for places in found}
    assert max(map(len, found)) == size - 1 or skewed


def test_either_domain_is_drawn() -> None:
    found = drawn(utterances(), 0, MeanShift(5.0, 0.0, "both", recordings=10_000, skewed_share=0.0))
    assert sum(places == set(range(1, 6)) for places in found) > 50
    assert sum(places == set(range(1, 12)) for places in found) > 50


def test_a_share_of_the_samples_is_cold() -> None:
    found = drawn(utterances(), 20, MeanShift(5.0, 0.3), 500)
    assert 100 < sum(not places for places in found) < 200


def test_some_means_hear_one_emotion_most_of_the_time() -> None:
    everything = [
        Utterance(str(n), Path(f"{n}.wav"), FOUR_EMOTIONS[n % 4], speaker="s", corpus="c") for n in range(200)
    ]

    def largest_share(skewed: float) -> float:
        found = drawn(everything, 0, MeanShift(5.0, 0.0, "corpus", 40, skewed), 200)
        shares = [max(np.bincount([n % 4 for n in places])) / len(places) for places in found if len(places) > 15]
        return float(np.mean(shares))

    assert largest_share(0.0) < 0.42
    assert largest_share(1.0) > 0.6


def test_the_number_of_recordings_is_bounded_and_few_come_as_often_as_many() -> None:
    everything = [Utterance(str(n), Path(f"{n}.wav"), "sad", corpus="c") for n in range(300)]
    sizes = [len(places) for places in drawn(everything, 0, MeanShift(5.0, 0.0, "speaker", 64, 0.0), 600)]
    assert max(sizes) <= 64
    for low, high in ((1, 4), (4, 16), (16, 65)):
        assert 130 < sum(low <= size < high for size in sizes) < 290


def test_the_mean_of_a_copy_is_of_copies_under_its_condition() -> None:
    """Each speaker's copies of one number are of one room and device, those of another speaker are not."""
    originals = utterances()
    everything = [*originals, *(copy_of(u, AcousticCondition(), n) for n in (1, 2) for u in originals)]
    count = len(originals)
    for domain in ("corpus", "speaker", "both"):
        options = MeanShift(5.0, 0.0, domain)
        assert set.union(*drawn(everything, count, options)) == set(range(count + 1, count + 6))
        assert set.union(*drawn(everything, 2 * count + 7, options)) == set(range(2 * count + 6, 2 * count + 12)) - {
            2 * count + 7
        }
        assert max(set.union(*drawn(everything, 0, options))) < count


def test_alone_in_its_domain_a_sample_is_cold() -> None:
    everything = [*utterances(), Utterance("x", Path("x.wav"), "sad", speaker="X", corpus="alone")]
    for skewed in (0.0, 1.0):
        assert set(map(len, drawn(everything, len(everything) - 1, MeanShift(5.0, 0.0, skewed_share=skewed), 9))) == {0}


@given(st.integers(1, 50), st.floats(0.0, 100.0), st.integers(0, 9))
def test_the_prior_stands_for_utterances_at_the_training_mean(count: int, prior: float, seed: int) -> None:
    means = np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)
    expected = means.sum(axis=0, dtype=np.float64) / (count + prior)
    np.testing.assert_allclose(shift_of_means(means, prior), expected, atol=1e-5)


@given(st.integers(0, 9))
def test_shifted_statistics_take_the_shift_out_of_the_standardised_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, shift = rng.standard_normal((7, 4)).astype(np.float32) * 3 + 5, rng.standard_normal(4).astype(np.float32)
    statistics = Statistics(rows.mean(axis=0), rows.std(axis=0))
    np.testing.assert_allclose(
        shifted(statistics, shift).normalise(rows), statistics.normalise(rows) - shift, atol=2e-6
    )
    assert shifted(statistics, None) is statistics


def test_means_are_of_what_the_model_hears(corpus: str, tmp_path: Path) -> None:
    everything = read_corpus(corpus)
    source = RecordingFeatures(LogMel(40, 100), tmp_path)
    frontend = source.frontend.with_statistics(source.statistics(everything))
    means = standardised_means(everything, source, frontend)
    assert len(means) == 8
    plain = EmotionDataset(everything, {"audio": frontend}, {"audio": source}, FOUR_EMOTIONS)
    for index, utterance in enumerate(everything):
        sample = plain[index]
        valid = sample["audio"][: int(sample["audio_length"])]
        assert valid.shape[0] == 100
        np.testing.assert_allclose(means[audio_key(utterance)], valid.mean(dim=0).numpy(), atol=1e-4)
    shifts = run_shifts(everything, source, frontend, 2.0)
    ((_, shift),) = shifts.rows.items()
    np.testing.assert_allclose(shift, sum(means.values()) / (8 + 2), atol=1e-5)
    heard = EmotionDataset(everything, {"audio": frontend}, {"audio": source}, FOUR_EMOTIONS, shifts=shifts)
    torch.testing.assert_close(heard[0]["audio"], plain[0]["audio"] - torch.from_numpy(shift), atol=1e-4, rtol=0)


def test_each_corpus_that_is_tested_on_has_its_own_mean_taken_out(corpus: str, tmp_path: Path) -> None:
    """What may only be tested on is several corpora in one fold: their common mean is nobody's."""
    everything = [dataclasses.replace(u, corpus=f"c{u.session}") for u in read_corpus(corpus)]
    source = RecordingFeatures(LogMel(40, 100), tmp_path)
    shifts = run_shifts(everything, source, source.frontend, 2.0)
    assert set(shifts.rows) == {"c1", "c2"}
    for name in shifts.rows:
        ours = [u for u in everything if u.corpus == name]
        alone = run_shifts(ours, source, source.frontend, 2.0)
        np.testing.assert_array_equal(shifts.draw(ours[0], np.random.default_rng(0)), alone.rows[name])


def test_shift_is_of_valid_rows_alone_and_the_same_for_the_same_draw(corpus: str, tmp_path: Path) -> None:
    everything = read_corpus(corpus)
    source = RecordingFeatures(LogMel(40), tmp_path)
    recipe = Recipe(mean_prior=1.0, cold_share=0.0)
    means = standardised_means(everything, source, source.frontend)
    shifts = DomainMeans(everything, means, recipe.mean_shift)
    for how in (recipe, None):
        sets = [
            EmotionDataset(everything, {"audio": source.frontend}, {"audio": source}, FOUR_EMOTIONS, how, one)
            for one in (shifts, shifts, None)
        ]
        one, again, without = (data[3] for data in sets)
        valid = int(one["audio_length"])
        torch.testing.assert_close(one["audio"], again["audio"], rtol=0, atol=0)
        assert not one["audio"][valid:].any()
        if how is None:
            difference = (without["audio"] - one["audio"])[:valid]
            assert float(difference.abs().max()) > 0.01
            torch.testing.assert_close(difference, difference[:1].expand_as(difference), atol=1e-4, rtol=0)


def test_a_run_is_measured_cold_and_having_heard_all(
    corpus: str, voices: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    recipe = Recipe(epochs=2, batch_size=4, mean_prior=3.0)
    options = TrainOptions(
        (corpus, f"{voices}?role=train"), tmp_path / "run", modalities=("audio",), recipe=recipe, folds=("1", "2")
    )
    train(options)
    for fold in "12":
        folder = tmp_path / "run" / f"fold-{fold}"
        cold, heard = read_predictions(folder / "predictions.csv"), read_predictions(folder / RUN_PREDICTIONS)
        assert [row["id"] for row in cold] == [row["id"] for row in heard]
        assert [row["p_sad"] for row in cold] != [row["p_sad"] for row in heard]
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    text = capsys.readouterr().out
    assert text.count("all folds together") == 2
    assert "with the mean of what is held out of each corpus taken out (--normalize run)" in text
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = json.loads(json.dumps(cross_validation(tmp_path / "run", RUN_PREDICTIONS).as_dict()))
    assert {name: found["run"][name] for name in expected} == expected
    assert found["run"]["utterances"] == found["utterances"] == 8


def test_without_it_nothing_changes(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = TrainOptions(corpus, tmp_path / "run", modalities=("audio",), recipe=Recipe(epochs=1), folds=("1",))
    (result,) = train(options)
    assert sorted(file.name for file in result.folder.glob("*.csv")) == ["predictions.csv"]
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--json"]) == 0
    assert "run" not in json.loads(capsys.readouterr().out)
    # A run that knew nothing of it goes on.
    then = options.as_dict()
    for name in ("mean_prior", "cold_share", "mean_domain", "mean_recordings", "skewed_share", "balance", "borrow"):
        del then["recipe"][name]
    assert differing(then, options) == []
    other = dataclasses.replace(options, recipe=dataclasses.replace(options.recipe, mean_prior=1.0))
    assert differing(then, other) == ["recipe.mean_prior"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean_prior": -1.0}, "mean_prior -1.0, expected 0 or more"),
        ({"mean_domain": "room"}, "mean_domain 'room', expected one of corpus, speaker, both"),
        ({"mean_recordings": 0}, "mean_recordings 0, expected 1 or more"),
        ({"cold_share": 1.1}, "cold_share 1.1, expected 0 to 1"),
        ({"skewed_share": -0.1}, "skewed_share -0.1, expected 0 to 1"),
    ],
)
def test_a_recipe_that_cannot_be_drawn_by(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.from_dict(values)
