"""What a run has reached, as text and as JSON values, with logistic regression on the same rows beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.cli.options import metrics_text
from edgeser.runtime.errors import EdgeSerError
from edgeser.training.baseline_run import baseline_of_run
from edgeser.training.confidence import Reliability, mean_of, reliability_of_run
from edgeser.training.evaluation import (
    ACCURACIES,
    PREDICTIONS,
    RUN_PREDICTIONS,
    CrossValidation,
    HeldOut,
    Repetition,
    cross_validation,
    has_run_predictions,
)
from edgeser.training.intervals import LEVEL, Interval, speaker_interval

NOT_BEATEN = "does not beat logistic regression on the same rows"
_BASELINE = "logistic regression"

Row = tuple[Sequence[float], Interval | None]
"""Accuracies, and the interval of the unweighted one."""


def report_run(run: Path) -> str:
    """Return a run's table of folds, their mean beside the baseline's, and the confusion matrix over all."""
    text = _folds_text(run, PREDICTIONS)
    if has_run_predictions(run):
        heard = _folds_text(run, RUN_PREDICTIONS)
        text += f"\n\nwith the mean of what is held out of each corpus taken out (--normalize run)\n\n{heard}"
    return text


def report_runs(result: Repetition) -> str:
    """Return a table of runs, each one's mean over its folds, with their mean and standard deviation."""
    rows: dict[str, Row] = {
        name: ([run.mean(one) for one in ACCURACIES], run.interval("ua")) for name, run in result.runs.items()
    }
    rows["mean"] = [result.mean(one) for one in ACCURACIES], result.interval("ua")
    rows["deviation"] = [result.deviation(one) for one in ACCURACIES], None
    lines = _table("run", rows)
    first = Path(next(iter(result.runs)))
    baseline = _baseline(first, next(iter(result.runs.values())), PREDICTIONS)
    return "\n".join([*lines, *_verdict(result.mean("ua"), baseline)])


def run_values(run: Path) -> dict[str, Any]:
    """Return plain JSON values: of each utterance alone and, as `run`, of those with the corpus' mean taken out."""
    values = _values(run, PREDICTIONS)
    return {**values, "run": _values(run, RUN_PREDICTIONS)} if has_run_predictions(run) else values


def answered_of_run(run: Path) -> dict[str, Mapping[float, float]]:
    """Return how many are right by the share that is answered: of each utterance alone, and without the mean."""
    kinds = {"each alone": PREDICTIONS, **({"mean taken out": RUN_PREDICTIONS} if has_run_predictions(run) else {})}
    return {name: reliability_of_run(run, kind).accuracy for name, kind in kinds.items()}


def interval_text(held_out: HeldOut) -> str:
    """Return a line with the interval over speakers, empty where there is none."""
    interval = held_out.interval("ua")
    return f"UA, {LEVEL:.0%} interval over {interval.speakers} speakers: {interval}" if interval else ""


def reliability_text(found: Reliability) -> str:
    """Return how far answers can be trusted as two small tables: what probabilities mean, and what sureness buys."""
    width = max(9, *(len(name) + 2 for name in found.before))
    head = f"{'held out':<{width}}as given" + ("  calibrated on the others" if found.after else "")
    lines = ["expected calibration error of the probabilities", head]
    for name, before in [*found.before.items(), ("mean", mean_of(found.before))]:
        after = found.after.get(name, mean_of(found.after) if name == "mean" and found.after else None)
        lines.append(f"{name:<{width}}{before:8.3f}" + ("" if after is None else f"  {after:.3f}"))
    shares = " ".join(f"{share:>6.0%}" for share in found.accuracy)
    values = " ".join(f"{value:6.3f}" for value in found.accuracy.values())
    lines += ["", f"{'answered, the surest':<{width}} {shares}", f"{'of those right':<20} {values}"]
    return "\n".join(lines)


def _values(run: Path, predictions: str) -> dict[str, Any]:
    result = cross_validation(run, predictions)
    values = {**result.as_dict(), "confidence": reliability_of_run(run, predictions).as_dict()}
    baseline = _baseline(run, result, predictions)
    if isinstance(baseline, str):
        return {**values, "baseline": None}
    beaten = result.mean("ua") > baseline.mean("ua")
    return {**values, "baseline": baseline.as_dict(), "beats_baseline": beaten}


def _baseline(run: Path, result: CrossValidation, predictions: str) -> CrossValidation | str:
    """Return what logistic regression reaches on a run's folds, or why that is not known."""
    try:
        folder = baseline_of_run(run, [part.fold for part in result.parts.values()])
        return cross_validation(folder, predictions)
    except EdgeSerError as error:
        return str(error)


def _folds_text(run: Path, predictions: str) -> str:
    result = cross_validation(run, predictions)
    baseline = _baseline(run, result, predictions)
    rows: dict[str, Row] = {name: _part_row(part) for name, part in result.parts.items()}
    rows |= _means("mean", result)
    if isinstance(baseline, CrossValidation):
        rows |= _means(_BASELINE, baseline)
    lines = [*_table("held out", rows), *_verdict(result.mean("ua"), baseline)]
    lines += ["", "all folds together", metrics_text(result.pooled)]
    return "\n".join([*lines, "", reliability_text(reliability_of_run(run, predictions))])


def _verdict(mean: float, baseline: CrossValidation | str) -> list[str]:
    if isinstance(baseline, str):
        return [f"{_BASELINE}: not measured: {baseline}"]
    return [] if mean > baseline.mean("ua") else [NOT_BEATEN]


def _means(name: str, result: CrossValidation) -> dict[str, Row]:
    """Return the mean over all that was held out, and that over what may only be tested on where there is both."""
    rows: dict[str, Row] = {name: ([result.mean(one) for one in ACCURACIES], result.interval("ua"))}
    unseen = list(result.unseen.values())
    if 0 < len(unseen) < len(result.parts):
        means = [float(np.mean([getattr(part.metrics, one) for part in unseen])) for one in ACCURACIES]
        rows[f"{name}, test only"] = means, speaker_interval([[part.speakers for part in unseen]], "ua")
    return rows


def _part_row(part: HeldOut) -> Row:
    return [getattr(part.metrics, one) for one in ACCURACIES], part.interval("ua")


def _table(what: str, rows: Mapping[str, Row]) -> list[str]:
    width = max(9, *(len(name) + 2 for name in rows))
    has_intervals = any(interval for _, interval in rows.values())
    heads = "  ".join(f"{name:>5}" for name in ("WA", "UA", "WF1"))
    lines = [f"{what:<{width}}{heads}" + (f"  UA, {LEVEL:.0%} over speakers" if has_intervals else "")]
    for name, (values, interval) in rows.items():
        line = f"{name:<{width}}{'  '.join(f'{value:.3f}' for value in values)}"
        pooled = ", all together" if interval and interval.is_pooled else ""
        lines.append(f"{line}  {interval} ({interval.speakers}{pooled})" if interval else line)
    return lines
