"""Temperatures, calibration errors and confidence tables: laws, references, and runs whose confidence is known."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeser.cli.run_report import report_run, run_values
from edgeser.runtime.confidence import COLD, RUN
from edgeser.runtime.errors import InputError
from edgeser.training.confidence import (
    BINS,
    Answers,
    Judged,
    Reliability,
    calibration_error,
    fit_curve,
    reliability_of_run,
    temperature,
    thresholds,
    unseen_confidence,
)
from edgeser.training.evaluation import PREDICTIONS, RUN_PREDICTIONS

LABELS = ("angry", "happy", "sad")
Array = NDArray[np.float64]


def write_run(
    folder: Path, sharpness: float, folds: Sequence[str] = ("0", "1"), protocol: str = "", name: str = PREDICTIONS
) -> Path:
    """Write predictions whose logits are `sharpness` times those that the emotions were drawn by."""
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.standard_normal((4000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    said = np.exp(sharpness * logits) / np.exp(sharpness * logits).sum(axis=1, keepdims=True)
    for fold, part in zip(folds, np.array_split(np.arange(4000), len(folds)), strict=True):
        place = folder / f"fold-{fold}"
        place.mkdir(parents=True, exist_ok=True)
        with (place / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "corpus", "session", "emotion", "label", *(f"p_{label}" for label in LABELS)])
            for i in part:
                emotion = LABELS[rng.choice(3, p=chances[i])]
                writer.writerow([i, fold, fold, emotion, LABELS[said[i].argmax()], *(f"{p:.6f}" for p in said[i])])
    if protocol:
        (folder / "run.json").write_text(json.dumps({"options": {"protocol": protocol}}))
    return folder


def judged(most: int = 60) -> st.SearchStrategy[tuple[Array, NDArray[np.bool_], Array]]:
    """Different probabilities, whether each was right, and weights that all weigh the same."""
    one = st.tuples(st.integers(0, 10**6), st.booleans())
    return st.lists(one, min_size=1, max_size=most, unique_by=lambda pair: pair[0]).map(
        lambda pairs: (
            np.array([p for p, _ in pairs]) / 1e6,
            np.array([right for _, right in pairs]),
            np.full(len(pairs), 1.0 / len(pairs)),
        )
    )


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_temperature_undoes_over_and_under_confidence(tmp_path: Path, sharpness: float) -> None:
    assert temperature(write_run(tmp_path / "run", sharpness)) == pytest.approx(sharpness, rel=0.1)


def test_a_run_without_predictions_has_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no fold with predictions"):
        temperature(tmp_path)


@pytest.mark.parametrize("name", ["test-only", "all"])
def test_what_may_only_be_tested_on_chooses_no_temperature(tmp_path: Path, name: str) -> None:
    run, other = write_run(tmp_path / "run", 1.0), write_run(tmp_path / "other", 4.0)
    (other / "fold-0").rename(run / f"fold-{name}")
    assert temperature(run) == pytest.approx(1.0, rel=0.1)
    for fold in ("fold-0", "fold-1"):
        shutil.rmtree(run / fold)
    with pytest.raises(InputError, match="held out some of its own"):
        temperature(run)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_calibration_error_is_that_of_the_paper(pairs: list[tuple[float, bool]]) -> None:
    """Guo et al. 2017, equation 3, bin by bin."""
    confidence, right = (np.array(column) for column in zip(*pairs, strict=True))
    expected = 0.0
    for m in range(BINS):
        inside = (confidence > m / BINS) & (confidence <= (m + 1) / BINS) | ((m == 0) & (confidence == 0.0))
        if inside.any():
            expected += inside.sum() / len(pairs) * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(confidence.astype(float), right.astype(bool)) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(judged(), st.floats(0.01, 1.0))
def test_as_many_are_answered_as_were_asked_for(answers: tuple[Array, NDArray[np.bool_], Array], share: float) -> None:
    probability, right, weights = answers
    (least,), (accuracy,) = thresholds(probability, right, weights, [share])
    answered = probability >= least
    assert share - 1e-6 <= answered.mean() < share + 1.0 / right.size
    assert accuracy == pytest.approx(right[answered].mean())


@settings(deadline=None)
@given(judged())
def test_a_curve_rises_from_0_to_1_and_means_what_it_says(answers: tuple[Array, NDArray[np.bool_], Array]) -> None:
    probability, right, weights = answers
    curve = fit_curve(probability, right, weights)
    values = [curve.of(p) for p in np.linspace(0.0, 1.0, 50)]
    assert (np.diff(values) >= 0).all()
    assert values[0] >= 0.0
    assert values[-1] <= 1.0
    assert len(curve.probability) <= 10
    for share in (0.05, 0.5, 0.95, 1.0):
        unsure = np.array([curve.is_unsure(p, share) for p in probability])
        assert abs((1.0 - unsure.mean()) - share) <= 1.0 / right.size + 1e-6


def test_a_curve_is_the_share_that_is_right() -> None:
    rng = np.random.default_rng(1)
    probability = rng.uniform(0.25, 1.0, 20_000)
    right = rng.uniform(size=probability.size) < probability**2
    curve = fit_curve(probability, right, np.full(probability.size, 1.0 / probability.size))
    for p in (0.4, 0.6, 0.8, 0.95):
        assert curve.of(p) == pytest.approx(p**2, abs=0.04)


@pytest.fixture
def corpora(tmp_path: Path) -> Callable[[], Path]:
    """Write a run that held out two corpora, too sure of itself by half, also with means taken out."""

    def write() -> Path:
        run = write_run(tmp_path / "run", 1.5, ("EMOVO", "nEMO"), "leave-one-corpus-out")
        return write_run(run, 1.5, ("EMOVO", "nEMO"), name=RUN_PREDICTIONS)

    return write


def test_a_table_is_measured_on_unseen_corpora(corpora: Callable[[], Path], tmp_path: Path) -> None:
    run = corpora()
    value, confidence = unseen_confidence(run, LABELS, has_mean=True)
    assert value == pytest.approx(1.5, rel=0.1)
    assert confidence.corpora == {"EMOVO": 2000, "nEMO": 2000}
    assert set(confidence.states) == {COLD, RUN}
    assert set(unseen_confidence(run, LABELS, has_mean=False)[1].states) == {COLD}
    cold = confidence.states[COLD]
    assert cold.of(0.6) == pytest.approx(0.6, abs=0.05)  # once the temperature is taken out, what it says is so
    assert cold.accuracy[0] > cold.accuracy[-1] + 0.2

    write_run(tmp_path / "other", 6.0, ("EMOVO", "nEMO"))
    (tmp_path / "other" / "fold-nEMO").rename(run / "fold-test-only")
    assert unseen_confidence(run, LABELS, has_mean=False)[1].states == {COLD: cold}


def test_each_corpus_weighs_the_same(corpora: Callable[[], Path]) -> None:
    run = corpora()
    before, table = unseen_confidence(run, LABELS, has_mean=False)
    file = run / "fold-nEMO" / PREDICTIONS
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *(row for row in rows for _ in range(3)), ""]))
    after, other = unseen_confidence(run, LABELS, has_mean=False)
    assert after == before
    assert other.states[COLD].confidence == pytest.approx(table.states[COLD].confidence, abs=0.02)
    assert other.states[COLD].threshold == pytest.approx(table.states[COLD].threshold, abs=1e-3)


def test_what_is_no_such_run_is_refused(corpora: Callable[[], Path], tmp_path: Path) -> None:
    run = corpora()
    with pytest.raises(InputError, match="is of angry, happy, sad, expected the model's angry, sad"):
        unseen_confidence(run, ("angry", "sad"), has_mean=False)
    (run / "fold-nEMO" / RUN_PREDICTIONS).unlink()
    with pytest.raises(InputError, match="expected a recipe with mean_prior"):
        unseen_confidence(run, LABELS, has_mean=True)
    with pytest.raises(InputError, match="leave-one-session-out, expected leave-one-corpus-out"):
        unseen_confidence(write_run(tmp_path / "sessions", 1.0), LABELS, has_mean=False)


def test_a_run_says_how_far_to_trust_it(corpora: Callable[[], Path]) -> None:
    """What is too sure is so no more, calibrated on the other corpus, and the surest are right more often."""
    run = corpora()
    found = reliability_of_run(run)
    for name in ("EMOVO", "nEMO"):
        assert found.after[name] < 0.04 < found.before[name]
    assert list(found.accuracy) == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    assert found.accuracy[0.6] > found.accuracy[1.0] + 0.1
    assert "answered, the surest" in report_run(run)
    error = run_values(run)["confidence"]["calibration_error"]
    assert set(error["after"]) == {"EMOVO", "nEMO", "mean"}


def test_one_fold_alone_is_not_calibrated(tmp_path: Path) -> None:
    found = reliability_of_run(write_run(tmp_path / "run", 1.0, ("1",)))
    assert found.after == {}
    assert set(found.as_dict()["calibration_error"]) == {"before"}


def test_parts_of_unequal_size_weigh_the_same() -> None:
    large = Judged(np.ones(90, bool), np.full(90, 0.9))
    small = Judged(np.zeros(10, bool), np.full(10, 0.8))
    found = Reliability.of({"large": large, "small": small})
    assert found.accuracy[1.0] == pytest.approx(0.5)
    assert found.before == {"large": pytest.approx(0.1), "small": pytest.approx(0.8)}


def test_the_top_probability_is_that_of_the_softmax() -> None:
    rows = [{"emotion": "sad", "label": "angry", "p_angry": "0.7", "p_happy": "0.1", "p_sad": "0.2"}]
    answers = Answers.of(rows)
    assert answers.top() == pytest.approx([0.7])
    scaled = np.array([0.7, 0.1, 0.2]) ** 0.5
    assert answers.top(2.0) == pytest.approx([scaled.max() / scaled.sum()])
    assert not answers.right.any()
