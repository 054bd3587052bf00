"""Accuracies of a run fold by fold and together, and of a run that was repeated."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.corpora import Utterance
from edgeser.corpora.splits import SESSIONS, UNSEEN
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import replacing
from edgeser.runtime.metrics import Metrics, measure
from edgeser.training.intervals import Counts, Interval, count_by_speaker, speaker_interval
from edgeser.training.run_folder import read_run

ACCURACIES = ("wa", "ua", "wf1")
PREDICTIONS = "predictions.csv"
"""A fold's, each utterance answered as if it were the first that is heard."""
RUN_PREDICTIONS = "predictions-run.csv"
"""The same with the mean of what is held out of its corpus taken out, where the recipe has a `mean_prior`."""


@dataclass(frozen=True)
class HeldOut:
    """What a run reached on a fold, or on one corpus of the fold of what may only be tested on.

    Attributes:
        fold: The fold's name.
        metrics: Over its test utterances.
        speakers: Counts by speaker; `None` where a speaker is not known.
    """

    fold: str
    metrics: Metrics
    speakers: Counts | None = None

    @classmethod
    def of(cls, fold: str, rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> HeldOut:
        """Measure predictions: rows with `emotion`, `label` and, where they are known, `corpus` and `speaker`."""
        return cls(fold, _measure(rows, labels), count_by_speaker(rows, labels))

    @classmethod
    def of_answers(cls, utterances: Sequence[Utterance], answers: Sequence[str], labels: Sequence[str]) -> HeldOut:
        """Measure a bundle's answers to utterances whose emotions are known."""
        rows = [
            {"emotion": str(u.emotion), "label": answer, "corpus": u.corpus, "speaker": u.speaker}
            for u, answer in zip(utterances, answers, strict=True)
        ]
        return cls.of("", rows, labels)

    def interval(self, name: str) -> Interval | None:
        """Return the interval over its speakers of `wa`, `ua` or `wf1`; `None` where it has fewer than two."""
        return speaker_interval([[self.speakers]], name)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.metrics.as_dict(), **_intervals(self.interval)}


@dataclass(frozen=True)
class CrossValidation:
    """What a run reached on what it held out.

    Attributes:
        parts: By what was held out, for example a session; of what may only be tested on, by corpus.
        pooled: Over all folds' test utterances together; random splits count some of them more than once.
        protocol: What the folds were made by.
    """

    parts: dict[str, HeldOut]
    pooled: Metrics
    protocol: str = SESSIONS

    @property
    def folds(self) -> dict[str, Metrics]:
        """The accuracies of each part."""
        return {name: part.metrics for name, part in self.parts.items()}

    @property
    def unseen(self) -> dict[str, HeldOut]:
        """The corpora that may only be tested on."""
        return {name: part for name, part in self.parts.items() if part.fold == UNSEEN}

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

    def interval(self, name: str) -> Interval | None:
        """Return the interval over speakers of that mean; `None` where the speakers are not known."""
        return speaker_interval([self.speakers], name)

    @property
    def speakers(self) -> list[Counts | None]:
        """Counts by speaker of each part."""
        return [part.speakers for part in self.parts.values()]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the folds' mean beside the pooled recalls and confusion."""
        means = {name: round(self.mean(name), 4) for name in ACCURACIES}
        folds = {name: part.as_dict() for name, part in self.parts.items()}
        return {**self.pooled.as_dict(), **means, **_intervals(self.interval), "folds": folds}


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

    def interval(self, name: str) -> Interval | None:
        """Return the interval over speakers of that mean; `None` where the speakers are not known."""
        return speaker_interval([run.speakers for run in self.runs.values()], name)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "mean": {name: round(self.mean(name), 4) for name in ACCURACIES},
            "deviation": {name: round(self.deviation(name), 4) for name in ACCURACIES},
            **_intervals(self.interval),
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
    folds = read_folds(run, predictions)
    everything = [row for rows in folds.values() for row in rows]
    return CrossValidation(measure_parts(folds), _measure(everything, _labels(everything)), protocol_of(run))


def read_folds(run: Path, predictions: str = PREDICTIONS) -> dict[str, list[dict[str, str]]]:
    """Return a run's predictions by fold; see `cross_validation` for the arguments and errors."""
    files = _predictions(run, predictions)
    if not files:
        raise InputError(f"{run}: holds no fold with predictions: run `edgeser train --out {run}` first")
    return {file.parent.name.removeprefix("fold-"): read_predictions(file) for file in files}


def measure_parts(folds: Mapping[str, Sequence[Mapping[str, str]]]) -> dict[str, HeldOut]:
    """Measure the parts of folds, see `parts_of`, by their predictions."""
    return {name: HeldOut.of(fold, rows, _labels(rows)) for name, (fold, rows) in parts_of(folds).items()}


def parts_of(
    folds: Mapping[str, Sequence[Mapping[str, str]]],
) -> dict[str, tuple[str, Sequence[Mapping[str, str]]]]:
    """Return folds by name, and their rows; the one of what may only be tested on gives a part for each corpus."""
    parts: dict[str, tuple[str, Sequence[Mapping[str, str]]]] = {}
    for fold, rows in folds.items():
        groups: dict[str, list[Mapping[str, str]]] = {}
        for row in rows:
            groups.setdefault(row.get("corpus", "") if fold == UNSEEN else "", []).append(row)
        for corpus, some in groups.items():
            # A corpus may be held out in part and be tested on only for the rest.
            name = f"{corpus} ({fold})" if corpus in parts else corpus or fold
            parts[name] = (fold, some)
    return parts


def _labels(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(name.removeprefix("p_") for name in rows[0] if name.startswith("p_"))


def _intervals(interval: Callable[[str], Interval | None]) -> dict[str, Any]:
    """Return the intervals of all accuracies as JSON values; nothing where there is none."""
    found = {name: interval(name) for name in ACCURACIES}
    return {"intervals": {name: one.as_dict() for name, one in found.items() if one}} if any(found.values()) else {}


def protocol_of(run: Path) -> str:
    """Return what a run's folds were made by."""
    found = read_run(run)
    return SESSIONS if found is None else str(found.options.get("protocol", SESSIONS))


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


def write_predictions(
    path: Path, utterances: Sequence[Utterance], probabilities: NDArray[np.floating[Any]], labels: Sequence[str]
) -> None:
    """Write one row per utterance: id, corpus, speaker, session, emotion, label and every class's probability.

    Args:
        path: The file, written whole or not at all.
        utterances: Those that were answered.
        probabilities: `(utterances, classes)`.
        labels: Emotions in the order of the classes.
    """
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "corpus", "speaker", "session", "emotion", "label", *(f"p_{label}" for label in labels)])
        for utterance, row in zip(utterances, probabilities.tolist(), strict=True):
            label = labels[max(range(len(labels)), key=row.__getitem__)]
            who = [utterance.id, utterance.corpus, utterance.speaker, utterance.session, utterance.emotion]
            writer.writerow([*who, label, *(f"{p:.6f}" for p in row)])


def has_run_predictions(run: Path) -> bool:
    """Whether every fold of a run was also answered with the mean of what it holds out taken out."""
    files = _predictions(run)
    return bool(files) and len(_predictions(run, RUN_PREDICTIONS)) == len(files)


def _predictions(run: Path, name: str = PREDICTIONS) -> list[Path]:
    """Return the files of a run's folds, 2 before 10."""
    return sorted(run.glob(f"fold-*/{name}"), key=lambda file: (len(file.parent.name), file.parent.name))


def _measure(rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> Metrics:
    return measure([row["label"] for row in rows], [row["emotion"] for row in rows], labels)
