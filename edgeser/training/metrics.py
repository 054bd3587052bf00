"""Weighted and unweighted accuracy, weighted F1 and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
)

from edgeser.runtime.errors import InputError


@dataclass(frozen=True)
class Metrics:
    """How well predictions meet labels.

    Attributes:
        wa: Weighted accuracy: share of utterances that are right.
        ua: Unweighted accuracy: mean recall of the classes.
        wf1: F1 weighted by class frequency, MELD's measure.
        confusion: `confusion[i][j]` utterances of class `i` taken for `j`.
        labels: Class names, in order.
    """

    wa: float
    ua: float
    wf1: float
    confusion: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]

    @property
    def recall(self) -> dict[str, float]:
        """Share of each class's utterances that are right; NaN for a class without utterances."""
        return {
            label: row[i] / sum(row) if sum(row) else float("nan")
            for i, (label, row) in enumerate(zip(self.labels, self.confusion, strict=True))
        }

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "wa": round(self.wa, 4),
            "ua": round(self.ua, 4),
            "wf1": round(self.wf1, 4),
            "recall": {label: round(value, 4) for label, value in self.recall.items()},
            "confusion": [list(row) for row in self.confusion],
            "labels": list(self.labels),
        }


def measure(predicted: Sequence[str], actual: Sequence[str], labels: Sequence[str]) -> Metrics:
    """Compare predicted with actual emotions.

    Raises:
        InputError: Nothing to compare, lengths differ, or a label is not among `labels`.
    """
    if not actual or len(predicted) != len(actual):
        raise InputError(f"metrics: got {len(predicted)} predictions for {len(actual)} labels")
    unknown = sorted({*predicted, *actual} - set(labels))
    if unknown:
        raise InputError(f"metrics: got {', '.join(unknown)}, the model knows {', '.join(labels)}")
    classes = len(labels)
    prediction = torch.tensor([labels.index(label) for label in predicted])
    target = torch.tensor([labels.index(label) for label in actual])
    recall = multiclass_accuracy(prediction, target, classes, average="none")
    present = target.bincount(minlength=classes) > 0  # a class without utterances has no recall to average
    return Metrics(
        wa=multiclass_accuracy(prediction, target, classes, average="micro").item(),
        ua=recall[present].mean().item(),
        wf1=multiclass_f1_score(prediction, target, classes, average="weighted").item(),
        confusion=tuple(tuple(row) for row in multiclass_confusion_matrix(prediction, target, classes).tolist()),
        labels=tuple(labels),
    )
