"""How far answers can be trusted: temperature, calibration error, and what a bundle states of both.

All of it is measured on what was held out. Where several corpora or sessions were, each weighs the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.corpora.splits import ALL, CORPORA, UNSEEN
from edgeser.runtime.confidence import COLD, RUN, SHOWN_SHARES, Confidence, ConfidenceCurve
from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.training.evaluation import PREDICTIONS, RUN_PREDICTIONS, parts_of, protocol_of, read_folds

Array = NDArray[np.float64]

BINS = 15
_TABLE_SHARES = tuple(round(0.05 * i, 2) for i in range(1, 21))
_KNOTS = 10
_LEAST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class Answers:
    """A model's answers to utterances whose emotions are known.

    Attributes:
        logs: `(n, classes)`, logarithms of the probabilities.
        truth: `(n,)`, the class that is right.
        right: `(n,)` bool, whether the answer is.
        weights: `(n,)`, what each counts; they sum to 1.
    """

    logs: Array
    truth: NDArray[np.intp]
    right: NDArray[np.bool_]
    weights: Array

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]]) -> Answers:
        """Take the rows of `read_predictions`."""
        labels = [name for name in rows[0] if name.startswith("p_")]
        logs = np.log(np.clip([[float(row[label]) for label in labels] for row in rows], _LEAST_PROBABILITY, 1.0))
        truth = np.array([labels.index(f"p_{row['emotion']}") for row in rows], np.intp)
        right = np.array([row["label"] == row["emotion"] for row in rows])
        return cls(logs, truth, right, np.full(len(rows), 1.0 / len(rows)))

    @classmethod
    def together(cls, parts: Sequence[Answers]) -> Answers:
        """Put parts together, each of which weighs the same."""
        logs, truth, right = (np.concatenate([getattr(p, n) for p in parts]) for n in ("logs", "truth", "right"))
        return cls(logs, truth, right, np.concatenate([part.weights for part in parts]) / len(parts))

    def temperature(self) -> float:
        """Return what logits are best divided by, for probabilities that mean what they say.

        The value that makes the true emotions likeliest (temperature scaling, Guo et al. 2017, section 4.2). It changes
        no label.
        """

        def cost(value: float) -> float:
            scaled = self.logs / value
            normal = np.log(np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)) + scaled.max(axis=1)
            return float(self.weights @ (normal - scaled[np.arange(len(self.truth)), self.truth]))

        return float(min(np.geomspace(0.25, 8.0, 201), key=cost))

    def top(self, temperature: float = 1.0) -> Array:
        """Return the probability of each likeliest emotion, `(n,)`, its logits divided by a temperature."""
        scaled = self.logs / temperature
        highest: Array = 1.0 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)
        return highest


@dataclass(frozen=True)
class Judged:
    """Answers, and how far each was to be trusted.

    Attributes:
        right: `(n,)` bool, at least one.
        probability: `(n,)`, of the likeliest emotion, as the model gives it.
        confidence: `(n,)`, what was made of it without knowing these answers; `None` where nothing was.
        order: `(n,)`, by what the surest come first; `None` for the probability.
    """

    right: NDArray[np.bool_]
    probability: Array
    confidence: Array | None = None
    order: Array | None = None


@dataclass(frozen=True)
class Reliability:
    """Whether it can be known which answers to trust.

    Attributes:
        before: Expected calibration error of the model's probability, by what was held out.
        after: That of the confidence, by what was held out; fewer, or none, where there was nothing to fit it on.
        accuracy: By the share of utterances that is answered, the surest, how many of those are right; every part
            weighs the same, and one threshold holds for all.
    """

    before: Mapping[str, float]
    after: Mapping[str, float] = field(default_factory=dict)
    accuracy: Mapping[float, float] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Mapping[str, Judged]) -> Reliability:
        """Measure answers by what was held out, at least one part."""
        weights = np.concatenate([np.full(p.right.size, 1.0 / (p.right.size * len(parts))) for p in parts.values()])
        order = np.concatenate([p.probability if p.order is None else p.order for p in parts.values()])
        right = np.concatenate([p.right for p in parts.values()])
        _, accuracy = thresholds(order, right, weights, SHOWN_SHARES)
        return cls(
            {name: calibration_error(p.probability, p.right) for name, p in parts.items()},
            {n: calibration_error(p.confidence, p.right) for n, p in parts.items() if p.confidence is not None},
            dict(zip(SHOWN_SHARES, accuracy.tolist(), strict=True)),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        errors = {"before": self.before, "after": self.after}
        return {
            "calibration_error": {
                when: {**{name: round(value, 4) for name, value in found.items()}, "mean": round(mean_of(found), 4)}
                for when, found in errors.items()
                if found
            },
            "accuracy_by_share_answered": {f"{share:g}": round(value, 4) for share, value in self.accuracy.items()},
        }


def calibration_error(confidence: Array, right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error over `BINS` bins of one width (Guo et al. 2017, equation 3), 0 to 1.

    Args:
        confidence: `(n,)`, 0 to 1, how probable each answer is said to be right.
        right: `(n,)`, whether it is; at least one.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)  # (0, 1/15], (1/15, 2/15], ...
    return float(np.abs(np.bincount(bins, confidence - right, BINS)).sum() / right.size)


def thresholds(
    probability: Array, right: NDArray[np.bool_], weights: Array, shares: Sequence[float]
) -> tuple[Array, Array]:
    """Return from which probability on a share of the utterances is answered, and how many of those are right.

    At least the share is answered, and less than one utterance more, but for those with the very same probability.

    Args:
        probability: `(n,)`.
        right: `(n,)`.
        weights: `(n,)`, above 0: what each utterance counts.
        shares: Above 0, at most 1.
    """
    order = np.argsort(-probability, kind="stable")
    reached = np.cumsum(weights[order])
    last = np.searchsorted(reached, np.asarray(shares) * reached[-1] * (1.0 - 1e-9))
    found = probability[order][last]
    accuracy = [np.average(right[probability >= least], weights=weights[probability >= least]) for least in found]
    return found, np.array(accuracy)


def fit_curve(probability: Array, right: NDArray[np.bool_], weights: Array) -> ConfidenceCurve:
    """Fit what probabilities were worth: the share that is right over ten equal parts of the answers, made to rise.

    Isotonic regression (Zadrozny and Elkan 2002) over the parts; a knot stands at the mean of each part, or of those
    that it has put together, and between knots the curve is straight.

    Args:
        probability: `(n,)`, of the likeliest emotion.
        right: `(n,)`, whether it is right.
        weights: `(n,)`, above 0: what each utterance counts.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "train", "isotonic regression") from error
    edges = np.unique(thresholds(probability, right, weights, [i / _KNOTS for i in range(1, _KNOTS)])[0])
    part = np.searchsorted(edges, probability, side="right")
    part = np.unique(part, return_inverse=True)[1]
    total = np.bincount(part, weights)
    place, share = np.bincount(part, weights * probability) / total, np.bincount(part, weights * right) / total
    rising = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(place, share, sample_weight=total)
    levels, level = np.unique(rising, return_inverse=True)
    knots = np.bincount(level, total * place) / np.bincount(level, total)
    least, accuracy = thresholds(probability, right, weights, _TABLE_SHARES)
    columns = (knots, levels, np.array(_TABLE_SHARES), least, accuracy)
    return ConfidenceCurve(*(tuple(np.clip(column, 0.0, 1.0).tolist()) for column in columns))


def temperature(run: Path) -> float:
    """Return the temperature of a run on all utterances that it held out, each weighing the same.

    What may only be tested on has no say.

    Raises:
        InputError: The folder holds no finished fold, or only some that may not choose.
    """
    rows = [row for some in _choosing(read_folds(run), run).values() for row in some]
    return Answers.of(rows).temperature()


def unseen_confidence(run: Path, labels: Sequence[str], has_mean: bool) -> tuple[float, Confidence]:
    """Return a temperature, and what a bundle states of how far its answers can be trusted, from unseen corpora.

    Args:
        run: A run that held out each corpus in turn; what may only be tested on has no say.
        labels: The model's emotions, in the order of its classes.
        has_mean: Whether the model was trained for rows without the mean of what was heard.

    Raises:
        InputError: It is another kind of run, of other emotions, or lacks what is needed.
        MissingDependencyError: scikit-learn is not installed.
    """
    protocol = protocol_of(run)
    if protocol != CORPORA:
        raise InputError(f"unseen: {run} is a run of {protocol}, expected {CORPORA}: train one")
    parts = {name: Answers.of(rows) for name, rows in _choosing(_of_labels(run, PREDICTIONS, labels), run).items()}
    cold = Answers.together(list(parts.values()))
    value = round(cold.temperature(), 3)
    states = {COLD: fit_curve(cold.top(value), cold.right, cold.weights)}
    if has_mean:
        heard = _choosing(_of_labels(run, RUN_PREDICTIONS, labels), run)
        if set(heard) != set(parts):
            raise InputError(f"unseen: {run} was not answered with means taken out, expected a recipe with mean_prior")
        warm = Answers.together([Answers.of(rows) for rows in heard.values()])
        states[RUN] = fit_curve(warm.top(value), warm.right, warm.weights)
    return value, Confidence({name: int(part.truth.size) for name, part in parts.items()}, states)


def reliability_of_run(run: Path, predictions: str = PREDICTIONS) -> Reliability:
    """Measure a run on what it held out; each part is calibrated on all others but those that may only be tested on.

    Raises:
        InputError: The folder holds no finished fold.
        MissingDependencyError: scikit-learn is not installed.
    """
    parts = {name: (fold, Answers.of(rows)) for name, (fold, rows) in parts_of(read_folds(run, predictions)).items()}
    judged = {}
    for name, (_, answers) in parts.items():
        others = [part for other, (fold, part) in parts.items() if other != name and fold not in (UNSEEN, ALL)]
        judged[name] = _judged(answers, others)
    return Reliability.of(judged)


def mean_of(values: Mapping[str, float]) -> float:
    """Return the mean over what was held out."""
    return float(np.mean(list(values.values())))


def _judged(answers: Answers, others: Sequence[Answers]) -> Judged:
    """Say how far answers can be trusted, by what others were worth."""
    if not others:
        return Judged(answers.right, answers.top())
    known = Answers.together(others)
    value = known.temperature()
    curve = fit_curve(known.top(value), known.right, known.weights)
    order = answers.top(value)
    return Judged(answers.right, answers.top(), np.interp(order, curve.probability, curve.confidence), order)


Folds = Mapping[str, Sequence[Mapping[str, str]]]


def _choosing(folds: Folds, run: Path) -> Folds:
    """Return the folds that may choose something."""
    found = {name: rows for name, rows in folds.items() if name not in (UNSEEN, ALL)}
    if not found:
        raise InputError(f"{run}: was tested on what may only be tested on: give a run that held out some of its own")
    return found


def _of_labels(run: Path, predictions: str, labels: Sequence[str]) -> Folds:
    folds = read_folds(run, predictions)
    for rows in folds.values():
        theirs = [name.removeprefix("p_") for name in rows[0] if name.startswith("p_")]
        if theirs != list(labels):
            raise InputError(f"unseen: {run} is of {', '.join(theirs)}, expected the model's {', '.join(labels)}")
    return folds
