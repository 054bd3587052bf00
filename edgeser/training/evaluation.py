"""Accuracies of a run fold by fold and together, and of a run that was repeated."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.corpora.splits import SESSIONS
from edgeser.runtime.errors import InputError
from edgeser.runtime.metrics import Metrics, measure
from edgeser.training.run_folder import read_run

ACCURACIES = ("wa", "ua", "wf1")
PREDICTIONS = "predictions.csv"
"""A fold's, each utterance answered as if it were the first that is heard."""
RUN_PREDICTIONS = "predictions-run.csv"
"""The same with the mean of all that the fold holds out taken out, where the recipe has a `mean_prior`."""


@dataclass(frozen=True)
class CrossValidation:
    """What a run reached on what it held out.

    Attributes:
        folds: By fold, for example the session that was held out.
        pooled: Over all folds' test utterances together; random splits count some of them more than once.
        protocol: What the folds were made by.
    """

    folds: dict[str, Metrics]
    pooled: Metrics
    protocol: str = SESSIONS

    @property
    def mean_ua(self) -> float:
        """Mean over the folds, each weighing the same: the figure the papers report."""
        return self.mean("ua")

    @property
    def mean_wa(self) -> float:
        """Mean over the folds, each weighing the same."""
        return self.mean("wa")

    def mean(self, name: str) -> float:
        """Return the mean over the folds, each weighing the same, of `wa`, `ua` or `wf1`."""
        return float(np.mean([getattr(fold, name) for fold in self.folds.values()]))

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the folds' mean beside the pooled recalls and confusion."""
        means = {name: round(self.mean(name), 4) for name in ACCURACIES}
        return {**self.pooled.as_dict(), **means, "folds": {n: fold.as_dict() for n, fold in self.folds.items()}}


@dataclass(frozen=True)
class Repetition:
    """What several runs of one experiment reached, for example with different seeds.

    Attributes:
        runs: By run, in the order they were given.
    """

    runs: dict[str, CrossValidation]

    def mean(self, name: str) -> float:
        """Return the mean over the runs of their folds' mean `wa`, `ua` or `wf1`."""
        return float(np.mean([run.mean(name) for run in self.runs.values()]))

    def deviation(self, name: str) -> float:
        """Return the sample standard deviation over the runs of their folds' mean."""
        return float(np.std([run.mean(name) for run in self.runs.values()], ddof=1))

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "mean": {name: round(self.mean(name), 4) for name in ACCURACIES},
            "deviation": {name: round(self.deviation(name), 4) for name in ACCURACIES},
            "runs": {name: run.as_dict() for name, run in self.runs.items()},
        }


def repeated(runs: Sequence[Path]) -> Repetition:
    """Read several runs of one experiment.

    Raises:
        InputError: There are fewer than two, one stands twice, or they do not have the same folds and emotions.
    """
    if len({run.resolve() for run in runs}) != len(runs) or len(runs) < 2:
        raise InputError(f"runs: got {', '.join(map(str, runs))}, expected two or more different ones")
    found = {str(run): cross_validation(run) for run in runs}
    (first, expected), *others = found.items()
    for name, run in others:
        for what, theirs, ours in (
            ("protocol", [run.protocol], [expected.protocol]),
            ("folds", list(run.folds), list(expected.folds)),
            ("emotions", list(run.pooled.labels), list(expected.pooled.labels)),
        ):
            if theirs != ours:
                raise InputError(
                    f"runs: {name} has {what} {', '.join(theirs)}, {first} has {', '.join(ours)}: compare runs of one "
                    "experiment, each of them finished"
                )
    return Repetition(found)


def cross_validation(run: Path, predictions: str = PREDICTIONS) -> CrossValidation:
    """Read a run's predictions on what it held out.

    Args:
        run: The run's folder.
        predictions: Which of them, `PREDICTIONS` or `RUN_PREDICTIONS`.

    Raises:
        InputError: The folder holds no finished fold.
    """
    folds: dict[str, Metrics] = {}
    everything: list[dict[str, str]] = []
    labels: tuple[str, ...] = ()
    for file in _predictions(run, predictions):
        rows = read_predictions(file)
        labels = tuple(name.removeprefix("p_") for name in rows[0] if name.startswith("p_"))
        folds[file.parent.name.removeprefix("fold-")] = _measure(rows, labels)
        everything += rows
    if not folds:
        raise InputError(f"{run}: holds no fold with predictions: run `edgeser train --out {run}` first")
    return CrossValidation(folds, _measure(everything, labels), _protocol(run))


def _protocol(run: Path) -> str:
    found = read_run(run)
    return SESSIONS if found is None else str(found.options.get("protocol", SESSIONS))


def temperature(run: Path) -> float:
    """Return what a run's logits are best divided by, for probabilities that mean what they say.

    The value that makes the emotions of all held-out utterances likeliest (temperature scaling, Guo et al. 2017).
    It changes no label.

    Raises:
        InputError: The folder holds no finished fold.
    """
    cross_validation(run)
    rows = [row for file in _predictions(run) for row in read_predictions(file)]
    labels = [name for name in rows[0] if name.startswith("p_")]
    logs = np.log(np.clip([[float(row[label]) for label in labels] for row in rows], 1e-7, 1.0))
    truth = np.array([labels.index(f"p_{row['emotion']}") for row in rows])

    def cost(value: float) -> float:
        scaled = logs / value
        normal = np.log(np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)) + scaled.max(axis=1)
        return float((normal - scaled[np.arange(len(truth)), truth]).mean())

    return float(min(np.geomspace(0.25, 8.0, 201), key=cost))


def read_predictions(path: Path) -> list[dict[str, str]]:
    """Read a fold's predictions, one row per utterance.

    Raises:
        InputError: The file is damaged.
    """
    damaged = f"{path}: is damaged: delete its folder, and the command that trained it does so again"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns, rows = reader.fieldnames or (), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(damaged) from error
    known = [name.removeprefix("p_") for name in columns if name.startswith("p_")]
    if not rows or any(None in row or None in row.values() for row in rows):
        raise InputError(damaged)
    if any(row.get("label") not in known or row.get("emotion") not in known for row in rows):
        raise InputError(damaged)
    return rows


def has_run_predictions(run: Path) -> bool:
    """Whether every fold of a run was also answered with the mean of what it holds out taken out."""
    files = _predictions(run)
    return bool(files) and len(_predictions(run, RUN_PREDICTIONS)) == len(files)


def _predictions(run: Path, name: str = PREDICTIONS) -> list[Path]:
    """Return the files of a run's folds, 2 before 10."""
    return sorted(run.glob(f"fold-*/{name}"), key=lambda file: (len(file.parent.name), file.parent.name))


def _measure(rows: list[dict[str, str]], labels: tuple[str, ...]) -> Metrics:
    return measure([row["label"] for row in rows], [row["emotion"] for row in rows], labels)
