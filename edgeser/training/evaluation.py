"""Accuracies of a cross-validated run, fold by fold and together."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.runtime.errors import InputError
from edgeser.runtime.metrics import Metrics, measure


@dataclass(frozen=True)
class CrossValidation:
    """What a run reached on the sessions it held out.

    Attributes:
        folds: By held-out session.
        pooled: Over all held-out utterances together.
    """

    folds: dict[str, Metrics]
    pooled: Metrics

    @property
    def mean_ua(self) -> float:
        """Mean over the folds, each weighing the same: the figure the papers report."""
        return sum(fold.ua for fold in self.folds.values()) / len(self.folds)

    @property
    def mean_wa(self) -> float:
        """Mean over the folds, each weighing the same."""
        return sum(fold.wa for fold in self.folds.values()) / len(self.folds)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the folds' mean beside the pooled recalls and confusion."""
        mean_wf1 = sum(fold.wf1 for fold in self.folds.values()) / len(self.folds)
        means = {"wa": round(self.mean_wa, 4), "ua": round(self.mean_ua, 4), "wf1": round(mean_wf1, 4)}
        return {**self.pooled.as_dict(), **means, "folds": {n: fold.as_dict() for n, fold in self.folds.items()}}


def cross_validation(run: Path) -> CrossValidation:
    """Read a run's predictions on its held-out sessions.

    Raises:
        InputError: The folder holds no finished fold.
    """
    folds: dict[str, Metrics] = {}
    everything: list[dict[str, str]] = []
    labels: tuple[str, ...] = ()
    for file in sorted(run.glob("fold-*/predictions.csv")):
        rows = read_predictions(file)
        labels = tuple(name.removeprefix("p_") for name in rows[0] if name.startswith("p_"))
        folds[file.parent.name.removeprefix("fold-")] = _measure(rows, labels)
        everything += rows
    if not folds:
        raise InputError(f"{run}: holds no fold with predictions: run `edgeser train --out {run}` first")
    return CrossValidation(folds, _measure(everything, labels))


def temperature(run: Path) -> float:
    """Return what a run's logits are best divided by, for probabilities that mean what they say.

    The value that makes the emotions of all held-out utterances likeliest (temperature scaling, Guo et al. 2017).
    It changes no label.

    Raises:
        InputError: The folder holds no finished fold.
    """
    cross_validation(run)
    rows = [row for file in sorted(run.glob("fold-*/predictions.csv")) for row in read_predictions(file)]
    labels = [name for name in rows[0] if name.startswith("p_")]
    logs = np.log(np.clip([[float(row[label]) for label in labels] for row in rows], 1e-7, 1.0))
    truth = np.array([labels.index(f"p_{row['emotion']}") for row in rows])

    def cost(value: float) -> float:
        scaled = logs / value
        normal = np.log(np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)) + scaled.max(axis=1)
        return float((normal - scaled[np.arange(len(truth)), truth]).mean())

    return float(min(np.geomspace(0.25, 8.0, 201), key=cost))


def read_predictions(path: Path) -> list[dict[str, str]]:
    """Read a fold's predictions, one row per utterance."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _measure(rows: list[dict[str, str]], labels: tuple[str, ...]) -> Metrics:
    return measure([row["label"] for row in rows], [row["emotion"] for row in rows], labels)
