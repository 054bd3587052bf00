"""Weighted and unweighted accuracy, weighted F1 and the confusion matrix, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import NO_SPEECH


@dataclass(frozen=True)
class Metrics:
    """How well predictions meet labels.

    Attributes:
        wa: Weighted accuracy: share of the utterances that are right.
        ua: Unweighted accuracy: mean recall of the classes that have utterances.
        wf1: F1 weighted by class frequency, MELD's measure.
        confusion: `confusion[i][j]` utterances of class `i` were taken for `j`.
        labels: Class names, in order.
        unanswered: Utterances of each class in which no speech was found; they count as wrong. Empty stands for none.
    """

    wa: float
    ua: float
    wf1: float
    confusion: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    unanswered: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """Utterances compared."""
        return sum(map(sum, self.confusion)) + sum(self.unanswered)

    @property
    def per_class(self) -> tuple[int, ...]:
        """Utterances of each class."""
        unanswered = self.unanswered or (0,) * len(self.labels)
        return tuple(sum(row) + none for row, none in zip(self.confusion, unanswered, strict=True))

    @property
    def recall(self) -> dict[str, float]:
        """Share of each class's utterances that are right; classes without utterances are left out."""
        return {
            label: self.confusion[i][i] / count
            for i, (label, count) in enumerate(zip(self.labels, self.per_class, strict=True))
            if count
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "utterances": self.count,
            "wa": round(self.wa, 4),
            "ua": round(self.ua, 4),
            "wf1": round(self.wf1, 4),
            "recall": {label: round(value, 4) for label, value in self.recall.items()},
            "confusion": [list(row) for row in self.confusion],
            "labels": list(self.labels),
            **({"unanswered": list(self.unanswered)} if self.unanswered else {}),
        }


def measure(predicted: Sequence[str], actual: Sequence[str], labels: Sequence[str]) -> Metrics:
    """Compare predicted with actual emotions; a prediction may be `NO_SPEECH`, which is never right.

    Raises:
        InputError: Nothing to compare, lengths differ, or a label is not among `labels`.
    """
    if not actual or len(predicted) != len(actual):
        raise InputError(f"metrics: got {len(predicted)} predictions for {len(actual)} labels, expected as many, not 0")
    unknown = sorted({*predicted, *actual} - set(labels) - ({NO_SPEECH} - set(actual)))
    if unknown:
        raise InputError(f"metrics: got {', '.join(unknown)}, the model knows {', '.join(labels)}")
    index = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)  # the last column: unanswered
    for guess, truth in zip(predicted, actual, strict=True):
        counts[index[truth], index.get(guess, -1)] += 1
    wa, ua, wf1 = (float(value) for value in accuracies(counts).values())
    unanswered = counts[:, -1]
    return Metrics(
        wa=wa,
        ua=ua,
        wf1=wf1,
        confusion=tuple(tuple(int(n) for n in row) for row in counts[:, :-1]),
        labels=tuple(labels),
        unanswered=tuple(int(n) for n in unanswered) if unanswered.any() else (),
    )


def accuracies(confusions: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Return `wa`, `ua` and `wf1`, each `(...)`, of confusions `(..., classes, classes + 1)`.

    The last column counts what was not answered. Each confusion counts one utterance at least.
    """
    per_class = confusions.sum(axis=-1)
    right, per_guess = np.diagonal(confusions, axis1=-2, axis2=-1), confusions[..., :-1].sum(axis=-2)
    total, present = per_class.sum(axis=-1), (per_class > 0).sum(axis=-1)
    f1 = 2.0 * right / np.maximum(per_class + per_guess, 1)
    return {
        "wa": right.sum(axis=-1) / total,
        "ua": (right / np.maximum(per_class, 1)).sum(axis=-1) / present,
        "wf1": (f1 * per_class).sum(axis=-1) / total,
    }
