"""An experiment's table, as Markdown to read and as CSV to compute with."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeser.corpora import spec_list
from edgeser.corpora.splits import CORPORA, UNSEEN
from edgeser.experiments.baselines import NAME
from edgeser.experiments.results import RowResult, accuracy
from edgeser.experiments.spec import ACCURACIES, Experiment, Published
from edgeser.training.intervals import DRAWS, LEVEL, Interval

_DASH = "\u2013"
_DECIMALS = {"ONNX MB": 2, "p50 ms": 2}


@dataclass(frozen=True)
class Table:
    """What an experiment has reached, ready to be written.

    Attributes:
        experiment: What was asked for.
        rows: One for each row of the experiment, in its order.
        facts: What a reader should know of how the figures came about, by name.
    """

    experiment: Experiment
    rows: Sequence[RowResult]
    facts: Mapping[str, str]

    @property
    def missing(self) -> int:
        """How many folds are not there."""
        return sum(result.wanted - result.done for result in self.rows)

    @property
    def is_complete(self) -> bool:
        """Whether every fold is there and every cost was measured."""
        columns = [column for column in self.experiment.columns if column not in ACCURACIES]
        return not self.missing and all(
            column in result.costs for result in self.rows if result.row.is_trained for column in columns
        )

    @property
    def speakers(self) -> int:
        """How many speakers the intervals are over; 0 where there are none."""
        known = [one for result in self.rows for c in self.experiment.columns if (one := result.interval(c))]
        return max((one.speakers for one in known), default=0)

    @property
    def published(self) -> list[str]:
        """The columns of which a paper states figures."""
        return [c for c in self.experiment.columns if any(c in result.row.published for result in self.rows)]

    def heading(self, column: str) -> str:
        """Return what stands above a paper's figures."""
        return f"{column} (paper, {self.experiment.published_on})"

    @property
    def is_other_corpus(self) -> bool:
        """Whether the papers' figures are on another corpus than ours."""
        readers = {spec.partition(":")[0].lower() for spec in spec_list(self.experiment.corpus)}
        return bool(self.published) and readers != {self.experiment.published_on.lower()}


def markdown(table: Table) -> str:
    """Return a table with what made it above and how to read it below."""
    experiment = table.experiment
    lines = [f"# {experiment.title}", ""]
    if not table.is_complete:
        lines += [f"**Incomplete**: {table.missing} of {sum(r.wanted for r in table.rows)} folds are missing.", ""]
    lines += [experiment.note, ""] if experiment.note else []
    lines += [f"- {name}: {value}" for name, value in table.facts.items()]
    lines += ["", *_grid(table), "", *_corpora(table), "\n\n".join(_footnotes(table)), ""]
    return "\n".join(lines)


def comma_separated(table: Table) -> str:
    """Return one line for each row's means (fold `mean`), and one for each of its folds."""
    columns = [column for column in table.experiment.columns if column in ACCURACIES]
    costs = [column for column in table.experiment.columns if column not in ACCURACIES]
    deviations = [f"{column} deviation" for column in columns] if table.experiment.repeats > 1 else []
    edges = [name for column in columns for name in _edges(column)] if table.speakers else []
    paper = [
        name for column in table.published for name in (table.heading(column), f"{table.heading(column)} deviation")
    ]
    file = io.StringIO()
    fields = ["row", "seed", "fold", "folds", "utterances", *columns, *deviations, *edges, *costs, *paper]
    writer = csv.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    for result in table.rows:
        writer.writerow({"row": result.row.name, **_means(table, result)})
        for seed, folds in result.runs.items():
            for name, part in folds.items():
                fold = {"row": result.row.name, "seed": seed, "fold": name, "utterances": part.metrics.count}
                writer.writerow({**fold, **{column: _exact(accuracy(part.metrics, column)) for column in columns}})
    return file.getvalue()


def plain(table: Table) -> dict[str, object]:
    """Return JSON values: every row with its means, its folds and the paper's figures."""
    return {
        "title": table.experiment.title,
        "complete": table.is_complete,
        "facts": dict(table.facts),
        "published_on": table.experiment.published_on,
        "rows": [
            {
                "name": result.row.name,
                "folds_done": result.done,
                "folds_wanted": result.wanted,
                **{column: _round(result.value(column)) for column in table.experiment.columns},
                "deviations": {c: _round(result.deviation(c)) for c in table.experiment.columns if c in ACCURACIES},
                "intervals": {c: known.as_dict() for c in ACCURACIES if (known := result.interval(c)) is not None},
                "published": {c: [known.mean, known.deviation] for c, known in result.row.published.items()},
                "folds": [
                    {"seed": seed, "fold": name, **part.as_dict()}
                    for seed, folds in result.runs.items()
                    for name, part in folds.items()
                ],
            }
            for result in table.rows
        ],
    }


def _means(table: Table, result: RowResult) -> dict[str, object]:
    """Return a row's line of means in the CSV."""
    line: dict[str, object] = {"fold": "mean", "folds": result.done if result.wanted else ""}
    for column in table.experiment.columns:
        line[column] = _exact(result.value(column))
        if column in ACCURACIES and table.experiment.repeats > 1:
            line[f"{column} deviation"] = _exact(result.deviation(column))
        interval = result.interval(column)
        if interval is not None:
            line |= dict(zip(_edges(column), map(_exact, (interval.low, interval.high)), strict=True))
    for column in table.published:
        known = result.row.published.get(column)
        line[table.heading(column)] = "" if known is None else known.mean
        line[f"{table.heading(column)} deviation"] = "" if known is None or known.deviation is None else known.deviation
    return line


def _grid(table: Table) -> Iterator[str]:
    heads = ["", *_heads(table)]
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for result in table.rows:
        name = _name(result)
        if 0 < result.done < result.wanted:
            name += f" ({result.done} of {result.wanted} folds)"
        yield f"| {' | '.join([name, *_cells(table, result)])} |"


def _heads(table: Table) -> Iterator[str]:
    for column in table.experiment.columns:
        yield column
        if column in table.published:
            yield table.heading(column)


def _cells(table: Table, result: RowResult) -> Iterator[str]:
    for column in table.experiment.columns:
        yield _cell(column, result.value(column), result.deviation(column), result.interval(column))
        if column in table.published:
            yield published_text(result.row.published.get(column))


def _corpora(table: Table) -> Iterator[str]:
    """Yield a second grid, of each corpus that was held out, where that is the protocol."""
    if table.experiment.protocol != CORPORA:
        return
    column = next(column for column in ("UA", *ACCURACIES) if column in table.experiment.columns)
    found = {name: part for result in table.rows for parts in result.runs.values() for name, part in parts.items()}
    names = [
        f"{name}{' (test only)' if part.fold == UNSEEN else ''}, {len(part.speakers or ())} speakers"
        for name, part in found.items()
    ]
    yield f"| {column} on | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for result in table.rows:
        if result.wanted:
            cells = (_cell(column, result.part(one, column), None, result.part_interval(one, column)) for one in found)
            yield f"| {_name(result)} | {' | '.join(cells)} |"
    yield ""


def _name(result: RowResult) -> str:
    return result.row.name.replace("|", "\\|")


def _edges(column: str) -> tuple[str, str]:
    """Return the names of an interval's columns in the CSV."""
    return f"{column} low", f"{column} high"


def _cell(column: str, value: float | None, deviation: float | None, interval: Interval | None = None) -> str:
    if value is None:
        return _DASH
    if column == "parameters":
        return f"{value:,.0f}"
    text = f"{value:.{_DECIMALS.get(column, 3)}f}"
    text += "" if deviation is None else f" \u00b1 {deviation:.3f}"
    return text if interval is None else f"{text} ({interval})"


def published_text(known: Published | None) -> str:
    """Return a paper's figure with the digits that it states: 0.753, 0.7529, 0.741 \u00b1 0.001."""
    if known is None:
        return _DASH
    text = f"{known.mean:.{known.decimals}f}"
    return text if known.deviation is None else f"{text} \u00b1 {known.deviation:.{known.decimals}f}"


def _footnotes(table: Table) -> Iterator[str]:
    repeats = table.experiment.repeats
    over_seeds = f"the mean over {repeats} seeds (\u00b1 the standard deviation over them) of " if repeats > 1 else ""
    yield (
        "WA is weighted accuracy (the share that is right), UA unweighted (the mean recall of the emotions), WF1 the "
        f"F1 weighted by class; each is {over_seeds}the mean over the folds, each weighing the same."
    )
    if any(result.row.name.startswith(NAME) for result in table.rows):
        yield (
            "Logistic regression reads the mean of the rows that the models get, on the same folds; all corpora weigh "
            "the same, and all emotions. Mean taken out: that of the corpus that is tested on, without its labels, was "
            "taken out of its rows, as a device can once it has heard enough. All else answers each utterance alone."
        )
    if table.speakers:
        yield (
            f"In brackets the {LEVEL:.0%} interval over {table.speakers} speakers: they are drawn anew, with "
            f"replacement, {DRAWS:,} times within each fold, for all seeds alike. Where a fold has one speaker or a "
            "speaker is in several folds, they are drawn from all, and the interval is of all utterances together."
        )
    if any(column in ("ONNX MB", "p50 ms") for column in table.experiment.columns):
        yield (
            "ONNX MB is the exported portable graph, p50 ms its median time for one utterance of full length in ONNX "
            "Runtime on one thread, without the frontends; both of the first fold's model."
        )
    if table.published:
        where = f"figures are its authors' own, on {table.experiment.published_on}"
        other = ": another corpus than ours here, so the two sides are not comparable" if table.is_other_corpus else ""
        yield f"The paper's {where}{other}."


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
