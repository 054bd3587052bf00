"""An experiment's table as a figure: bars of its rows, or lines over what was varied, the papers' figures beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeser.experiments.results import RowResult
from edgeser.experiments.spec import ACCURACIES
from edgeser.experiments.table import Table
from edgeser.figures.style import BLUE, GREY, ORANGE, VERMILLION, new_figure, shorten_middle, styled
from edgeser.runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, VERMILLION, GREY, "#009E73", "#CC79A7", "#56B4E9", "black")
_MARKERS = "osD^vPX*"
_NAME = 44  # characters of a row's name
_ROW_IN = 0.27
_PERCENT = 100.0


@dataclass(frozen=True)
class Point:
    """One figure of ours, with the paper's where there is one; all 0 to 1, or a cost's unit.

    Attributes:
        value: Ours; `None` where it was not measured.
        deviation: Over the seeds; `None` for one seed.
        published: The paper's; `None` where it states none.
    """

    value: float | None
    deviation: float | None = None
    published: float | None = None


def table_figure(table: Table) -> Figure:
    """Draw an experiment's table as its file says: bars of the accuracies, or lines."""
    spec, experiment = table.experiment.figure, table.experiment
    paper = f"paper, {experiment.published_on}"
    if spec.kind == "bars":
        columns = [column for column in experiment.columns if column in ACCURACIES]
        rows = {result.row.name: {c: _point(result, c) for c in columns} for result in table.rows}
        return bars_figure(experiment.title, rows, paper)
    series: dict[str, list[tuple[float, Point]]] = {}
    for result in table.rows:
        if result.row.is_trained:
            name = f"{_words(spec.series)} {result.row.at[spec.series]}" if spec.series else ""
            series.setdefault(name, []).append((float(result.row.at[spec.x]), _point(result, spec.y)))
    return lines_figure(experiment.title, series, spec.x_label or _words(spec.x), spec.y, paper)


def _words(name: str) -> str:
    return name.replace("_", " ").removeprefix("recipe.")


def _point(result: RowResult, column: str) -> Point:
    known = result.row.published.get(column)
    return Point(result.value(column), result.deviation(column), None if known is None else known.mean)


def bars_figure(title: str, rows: Mapping[str, Mapping[str, Point]], paper: str) -> Figure:
    """Draw each row's accuracies as bars from 0, the first row on top, with the paper's figures as diamonds.

    Args:
        title: What stands above.
        rows: By name, then by measure (`WA`); every row has the same measures, at most three.
        paper: What the diamonds are, for the legend: `paper, IEMOCAP`.

    Raises:
        InputError: No row.
    """
    if not rows:
        raise InputError("figure: got no rows, expected at least one to draw")
    measures = list(next(iter(rows.values())))
    with styled():
        figure = new_figure(10.4, _ROW_IN * len(rows) * (len(measures) + 0.6) + 1.7)
        axes = figure.add_subplot()
        for place, measure in enumerate(measures):
            _bars(axes, measure, [row[measure] for row in rows.values()], place, len(measures), paper)
        axes.set_yticks(range(len(rows)), [shorten_middle(name, _NAME) for name in rows])
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy (%)")
        _finish(figure, axes, title)
    return figure


def lines_figure(
    title: str, series: Mapping[str, Sequence[tuple[float, Point]]], x_label: str, y_label: str, paper: str
) -> Figure:
    """Draw a measure over what was varied, a line for each series, with the paper's figures as hollow diamonds.

    Args:
        title: What stands above.
        series: By name, points along the axis; the name is empty where there is one line only.
        x_label: What was varied.
        y_label: The measure: accuracies (`WA`, `UA`, `WF1`) are drawn in percent, others as they are.
        paper: What the diamonds are, for the legend.

    Raises:
        InputError: No point.
    """
    if not any(series.values()):
        raise InputError("figure: got no points, expected at least one to draw")
    is_share = y_label in ("WA", "UA", "WF1")
    with styled():
        figure = new_figure(8.4, 4.4)
        axes = figure.add_subplot()
        for number, (name, points) in enumerate(series.items()):
            _line(
                axes, name or y_label, sorted(points, key=lambda p: p[0]), number, _PERCENT if is_share else 1.0, paper
            )
        axes.set_xticks(sorted({x for points in series.values() for x, _ in points}))
        axes.set_xlabel(x_label)
        axes.set_ylabel(f"{y_label} (%)" if is_share else y_label)
        _finish(figure, axes, title)
    return figure


def _bars(axes: Axes, measure: str, points: Sequence[Point], place: int, count: int, paper: str) -> None:
    """Draw one measure of every row, `place` of `count` bars from above within its row."""
    height = 0.82 / count
    y = [row + (place - (count - 1) / 2) * height for row in range(len(points))]
    values = [_PERCENT * (p.value or 0.0) for p in points]
    errors = [_PERCENT * (p.deviation or 0.0) for p in points]
    colour = _COLOURS[place]
    axes.barh(y, values, 0.92 * height, color=colour, edgecolor="black", linewidth=0.5, label=measure)
    for where, value, point in zip(y, values, points, strict=True):
        if point.value is not None:  # at the foot, where neither the diamonds nor the errors stand
            axes.text(1.0, where, f"{value:.1f}", va="center", fontsize=8, color="white" if colour == BLUE else "black")
    spread = [(v, where, e) for v, where, e in zip(values, y, errors, strict=True) if e]
    if spread:
        ends, places, widths = zip(*spread, strict=True)
        axes.errorbar(ends, places, xerr=widths, fmt="none", ecolor="black", elinewidth=1, capsize=2)
    known = [(p.published, where) for p, where in zip(points, y, strict=True) if p.published is not None]
    if known:
        axes.plot(
            [_PERCENT * value for value, _ in known],
            [where for _, where in known],
            "D",
            color="white",
            markeredgecolor="black",
            markersize=5,
            label=None if paper in axes.get_legend_handles_labels()[1] else paper,
        )


def _line(axes: Axes, name: str, points: Sequence[tuple[float, Point]], number: int, scale: float, paper: str) -> None:
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
    ours = [(x, point) for x, point in points if point.value is not None]
    axes.errorbar(
        [x for x, _ in ours],
        [scale * (point.value or 0.0) for _, point in ours],
        yerr=[scale * (point.deviation or 0.0) for _, point in ours] if any(p.deviation for _, p in ours) else None,
        color=colour,
        marker=marker,
        capsize=3,
        label=name,
    )
    known = [(x, scale * point.published) for x, point in points if point.published is not None]
    if known:
        axes.plot(
            *zip(*known, strict=True),
            "D",
            color="none",
            markeredgecolor=colour,
            markersize=8,
            label=None if paper in axes.get_legend_handles_labels()[1] else paper,
        )


def _finish(figure: Figure, axes: Axes, title: str) -> None:
    axes.grid(axis="both" if axes.get_ylabel() else "x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(title)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    figure.set_layout_engine("tight")
