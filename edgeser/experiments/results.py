"""What the rows of an experiment have reached so far."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeser.experiments.spec import ACCURACIES, Row
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import read_json
from edgeser.runtime.metrics import Metrics
from edgeser.training.evaluation import PREDICTIONS, HeldOut, measure_parts, read_predictions
from edgeser.training.intervals import Interval, speaker_interval
from edgeser.training.options import TrainOptions, differing
from edgeser.training.run_folder import read_run

COSTS_FILE = "costs.json"
"""What was measured of a fold's model, beside it."""


@dataclass(frozen=True)
class RowResult:
    """What one row has reached.

    Attributes:
        row: The row.
        runs: What the folds that are done have reached, by seed and what was held out.
        wanted: How many folds it is to have, over all seeds.
        costs: By column, of the exported model of its first fold; empty before it was measured.
    """

    row: Row
    runs: Mapping[int, Mapping[str, HeldOut]]
    wanted: int
    costs: Mapping[str, float] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """How many folds it has."""
        return sum(len({part.fold for part in parts.values()}) for parts in self.runs.values())

    @property
    def is_complete(self) -> bool:
        """Whether every fold of every seed is there."""
        return self.done == self.wanted

    def value(self, column: str) -> float | None:
        """Return a column: an accuracy as the mean over the seeds of each one's mean over its folds, or a cost."""
        if column not in ACCURACIES:
            return self.costs.get(column)
        means = list(self._means(column))
        return statistics.fmean(means) if means else None

    def deviation(self, column: str) -> float | None:
        """Return the sample standard deviation over the seeds; `None` for one, for costs, and before all are there."""
        means = list(self._means(column)) if column in ACCURACIES and self.is_complete else []
        return statistics.stdev(means) if len(means) > 1 else None

    def interval(self, column: str) -> Interval | None:
        """Return the interval over speakers of an accuracy; `None` for costs, and before all folds are there."""
        if column not in ACCURACIES or not self.is_complete:
            return None
        runs = [[part.speakers for part in parts.values()] for parts in self.runs.values()]
        return speaker_interval(runs, column.lower()) if runs else None

    def part(self, name: str, column: str) -> float | None:
        """Return an accuracy on one thing that was held out, the mean over the seeds that have it."""
        found = [accuracy(parts[name].metrics, column) for parts in self.runs.values() if name in parts]
        return statistics.fmean(found) if found else None

    def part_interval(self, name: str, column: str) -> Interval | None:
        """Return its interval over speakers."""
        return speaker_interval(
            [[parts[name].speakers] for parts in self.runs.values() if name in parts], column.lower()
        )

    def _means(self, column: str) -> Iterator[float]:
        for parts in self.runs.values():
            if parts:
                yield statistics.fmean(accuracy(part.metrics, column) for part in parts.values())


def accuracy(metrics: Metrics, column: str) -> float:
    """Return one of `ACCURACIES`."""
    value: float = getattr(metrics, column.lower())
    return value


def read_folds(options: TrainOptions, names: tuple[str, ...], predictions: str = PREDICTIONS) -> dict[str, HeldOut]:
    """Return what a run's finished folds reached, in the order of `names`; nothing of a run with other options."""
    run = read_run(options.out)
    if run is None or differing(run.options, options):
        return {}
    folds = {name: options.out / f"fold-{name}" for name in names}
    done = {name: folder / predictions for name, folder in folds.items() if is_done(folder)}
    return measure_parts({name: read_predictions(file) for name, file in done.items() if file.is_file()})


def read_costs(fold: Path) -> tuple[str, dict[str, float]]:
    """Return the device and what was measured on it of a fold's model; nothing where it was not."""
    file = fold / COSTS_FILE
    if not file.is_file():
        return "", {}
    todo = "delete it, and it is measured again"
    found = read_json(file, todo)
    try:
        return str(found["device"]), {str(name): float(value) for name, value in found["costs"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: is damaged, expected a device and its costs: {todo}") from error


def is_done(fold: Path) -> bool:
    """Whether a fold is trained and its predictions are there."""
    return (fold / "model.json").is_file() and (fold / PREDICTIONS).is_file()
