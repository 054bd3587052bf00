"""Logistic regression on mean rows: its weights, its shift, and the run that it stands beside."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from edgeser.cli.main import main
from edgeser.corpora import Fold, read_corpus
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import LogMel
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.training.baseline import BaselineOptions, balanced_sample_weights, predict_baseline
from edgeser.training.baseline_run import baseline_of_run
from edgeser.training.evaluation import PREDICTIONS, RUN_PREDICTIONS, cross_validation, read_predictions
from edgeser.training.features import RecordingFeatures


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(FOUR_EMOTIONS)), min_size=1, max_size=60))
def test_weights_balance_corpora_and_have_the_mean_one(groups: list[tuple[str, str]]) -> None:
    weights = balanced_sample_weights(groups)
    assert (weights > 0).all()
    assert weights.mean() == pytest.approx(1.0)


def test_every_corpus_and_every_class_weighs_the_same() -> None:
    """One corpus is ten times the other, and has no sad."""
    groups = [("a", e) for e in ("angry", "happy", "neutral") for _ in range(20 if e == "angry" else 5)]
    groups += [("b", e) for e in FOUR_EMOTIONS]
    weights = balanced_sample_weights(groups)
    for side in (0, 1):
        sums: dict[str, float] = defaultdict(float)
        for group, weight in zip(groups, weights, strict=True):
            sums[group[side]] += weight
        np.testing.assert_allclose(list(sums.values()), len(groups) / len(sums), rtol=0.02)


@pytest.mark.parametrize("prior", [None, 2.0])
def test_it_is_scikit_learns_on_the_means_of_what_a_model_hears(
    wide_corpus: str, tmp_path: Path, prior: float | None
) -> None:
    everything = read_corpus(wide_corpus)
    train = tuple(u for u in everything if u.start_s < 0.5)
    test = tuple(u for u in everything if u.start_s > 0.5)
    source = RecordingFeatures(LogMel(40, 100), tmp_path)
    found = predict_baseline(Fold("f", train, test), {"audio": source}, FOUR_EMOTIONS, BaselineOptions(0.1, prior))

    def means(utterances: tuple) -> np.ndarray:
        return np.array([source.rows(u)[:100].mean(axis=0, dtype=np.float64) for u in utterances])

    once = list({(u.audio, u.start_s): u for u in train}.values())
    ours, theirs = means(tuple(once)), means(test)
    if prior is not None:
        center, recordings = ours.mean(axis=0), len({(u.audio, u.start_s) for u in test})
        theirs = theirs - center
        theirs = theirs - recordings / (recordings + prior) * theirs.mean(axis=0)
        ours = ours - center
    scaler = StandardScaler().fit(ours)
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    model.fit(scaler.transform(ours), [FOUR_EMOTIONS.index(u.emotion or "") for u in once])
    np.testing.assert_allclose(found, model.predict_proba(scaler.transform(theirs)), atol=2e-3)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-9)


def test_a_corpus_recorded_elsewhere_is_brought_back_by_its_own_mean(wide_corpus: str, tmp_path: Path) -> None:
    """The same recordings, moved by a constant: with the prior at 0 it makes no difference at all."""
    everything = tuple(read_corpus(wide_corpus))
    fold = Fold("f", everything, everything)
    options = BaselineOptions(mean_prior=0.0)
    source = RecordingFeatures(LogMel(40, 100), tmp_path)
    plain = predict_baseline(fold, {"audio": source}, FOUR_EMOTIONS, options)

    class Moved(RecordingFeatures):
        def mean(self, utterance):  # type: ignore[no-untyped-def]
            return super().mean(utterance) + np.float32(3.0)

    moved = predict_baseline(fold, {"audio": Moved(LogMel(40, 100), tmp_path)}, FOUR_EMOTIONS, options)
    np.testing.assert_allclose(moved, plain, atol=1e-4)


def test_a_training_split_of_one_emotion_says_that_one(corpus: str, tmp_path: Path) -> None:
    everything = read_corpus(corpus)
    sad = tuple(u for u in everything if u.emotion == "sad")
    source = RecordingFeatures(LogMel(40), tmp_path)
    found = predict_baseline(Fold("f", sad, tuple(everything)), {"audio": source}, FOUR_EMOTIONS)
    assert set(found.argmax(axis=1)) == {FOUR_EMOTIONS.index("sad")}


@pytest.mark.parametrize("options", [{"c": 0.0}, {"mean_prior": -1.0}, {"c": float("nan")}])
def test_options_that_mean_nothing(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"baseline: got c .* expected c above 0, a prior of 0 or more"):
        BaselineOptions(**options)


def test_a_run_on_corpora_stands_beside_its_baseline(
    corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two corpora train, two may only be tested on and share a fold; speakers are known, so there are intervals."""
    manifests = _four_corpora(corpus, tmp_path)
    run = tmp_path / "run"
    command = ["train", "--corpus", manifests[0], "--test-corpus", manifests[1], "--out", str(run), "--epochs", "1"]
    command += ["--modalities", "audio", "--protocol", "leave-one-corpus-out", "--recipe", "mean_prior=5"]
    assert main([*command, "--family", "dropformer", "--threads", "1"]) == 0
    capsys.readouterr()
    assert {folder.name for folder in run.glob("fold-*")} == {"fold-c0", "fold-c1", "fold-test-only"}
    rows = read_predictions(run / "fold-test-only" / PREDICTIONS)
    assert Counter(row["corpus"] for row in rows) == {"c2": 4, "c3": 4}
    assert {row["speaker"] for row in rows} == {"one", "two"}
    assert main(["evaluate", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["folds"]) == {"c0", "c1", "c2", "c3"}
    assert found["folds"]["c2"]["intervals"]["ua"]["speakers"] == 2
    for values, predictions in ((found, PREDICTIONS), (found["run"], RUN_PREDICTIONS)):
        theirs = cross_validation(baseline_of_run(run, ["c0", "c1", "test-only"]), predictions)
        assert values["baseline"]["ua"] == round(theirs.mean("ua"), 4)
        assert values["beats_baseline"] == (cross_validation(run, predictions).mean("ua") > theirs.mean("ua"))
    assert main(["evaluate", str(run)]) == 0
    text = capsys.readouterr().out
    assert "\nlogistic regression, test only  " in text
    sides = (found, found["run"])
    assert text.count("does not beat logistic regression") == sum(not side["beats_baseline"] for side in sides)


def test_a_baseline_that_cannot_be_had_is_said_in_one_line(
    corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    source = tmp_path / "manifest.csv"
    source.write_bytes(Path(corpus.removeprefix("manifest:")).read_bytes())
    command = ["train", "--corpus", f"manifest:{source}", "--out", str(run), "--epochs", "1", "--modalities", "text"]
    assert main([*command, "--threads", "1"]) == 0
    assert "\nlogistic regression" in capsys.readouterr().out
    source.unlink()
    assert main(["evaluate", str(run)]) == 0, "it was fitted, and is kept"
    assert "\nlogistic regression  0." in capsys.readouterr().out
    (run / "baseline" / "baseline.json").unlink()
    assert main(["evaluate", str(run)]) == 0
    assert f"\nlogistic regression: not measured: {source}: no such manifest\n" in capsys.readouterr().out


def _four_corpora(corpus: str, folder: Path) -> tuple[str, str]:
    """Return two corpora to train on and two more to test on, of two speakers each, as two manifests."""
    rows = [(u, n) for n in range(4) for u in read_corpus(corpus) if (u.session == "1") == (n % 2 == 0)]
    for name, wanted in (("ours", (0, 1)), ("theirs", (2, 3))):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "audio", "emotion", "speaker", "corpus", "end_s", "start_s"])
            for place, (u, n) in enumerate(rows):
                if n in wanted:
                    who = "one" if place % 2 else "two"
                    writer.writerow([f"{n}-{place}", u.audio, u.emotion, who, f"c{n}", u.end_s or "", 0.1 * n])
    return f"manifest:{folder / 'ours.csv'}", f"manifest:{folder / 'theirs.csv'}"
