"""Tables and figures, from accuracies that were worked out by hand."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pytest
from matplotlib.image import imread

from edgeser.experiments.results import RowResult
from edgeser.experiments.spec import Experiment, FigureSpec, Published, Row
from edgeser.experiments.table import Table, comma_separated, markdown, plain
from edgeser.figures.experiment import bars_figure, lines_figure, table_figure
from edgeser.figures.style import BLUE, png
from edgeser.runtime.errors import InputError
from edgeser.runtime.metrics import Metrics
from edgeser.training.evaluation import HeldOut
from edgeser.training.intervals import Counts

OURS = Row("ours | new", published={"WA": Published(0.7529, None, 4), "UA": Published(0.741, 0.001)}, at={"k": 0.5})
OTHER = Row("other", at={"k": 0.25})
QUOTED = Row("quoted", published={"UA": Published(0.71)}, is_trained=False)


def reached(right: int, fold: str = "1", speakers: Counts | None = None) -> HeldOut:
    """Two classes of 10, of which the first is always right: WA and UA are (10 + right) / 20."""
    confusion = ((10, 0), (10 - right, right))
    return HeldOut(fold, Metrics((10 + right) / 20, (10 + right) / 20, 0.5, confusion, ("angry", "sad")), speakers)


def table(**changes: object) -> Table:
    experiment = Experiment(
        "T", "manifest:m.csv", (OURS, OTHER, QUOTED), columns=("WA", "UA", "parameters"), published_on="IEMOCAP"
    )
    experiment = dataclasses.replace(experiment, repeats=2, **changes)  # type: ignore[arg-type]
    runs = {1: {"1": reached(2), "2": reached(4, "2")}, 2: {"1": reached(6), "2": reached(8, "2")}}
    rows = [
        RowResult(OURS, runs, 4, {"parameters": 1234567.0}),
        RowResult(OTHER, {1: {"1": reached(10)}, 2: {}}, 4),
        RowResult(QUOTED, {}, 0),
    ]
    return Table(experiment, rows, {"corpus": "m.csv"})


def test_means_are_over_folds_then_seeds() -> None:
    ours, other, quoted = table().rows
    assert ours.value("WA") == pytest.approx((0.65 + 0.85) / 2)
    assert ours.deviation("WA") == pytest.approx(np.std([0.65, 0.85], ddof=1))
    assert (other.value("UA"), other.deviation("UA"), other.is_complete) == (1.0, None, False)
    assert (quoted.value("UA"), quoted.is_complete) == (None, True)


def test_markdown_sets_the_papers_figures_beside_ours() -> None:
    text = markdown(table())
    assert "**Incomplete**: 3 of 8 folds are missing." in text
    assert "- corpus: m.csv" in text
    assert "|  | WA | WA (paper, IEMOCAP) | UA | UA (paper, IEMOCAP) | parameters |" in text
    assert "| ours \\| new | 0.750 ± 0.141 | 0.7529 | 0.750 ± 0.141 | 0.741 ± 0.001 | 1,234,567 |" in text
    assert "| other (1 of 4 folds) | 1.000 | \u2013 | 1.000 | \u2013 | \u2013 |" in text
    assert "| quoted | \u2013 | \u2013 | \u2013 | 0.710 | \u2013 |" in text
    assert "on IEMOCAP: another corpus than ours here, so the two sides are not comparable." in text
    assert "not comparable" not in markdown(table(corpus="iemocap:IEMOCAP_full_release"))


def test_intervals_over_speakers_stand_in_every_form() -> None:
    """Of two speakers one is always right and one always says angry: half of the draws have both."""
    always, angry = np.array([[5, 0, 0], [0, 5, 0]]), np.array([[5, 0, 0], [5, 0, 0]])
    runs = {1: {"tess": reached(5, "test-only", {"tess/a": always, "tess/b": angry})}}
    experiment = dataclasses.replace(table().experiment, repeats=1, rows=(OTHER,), protocol="leave-one-corpus-out")
    found = Table(dataclasses.replace(experiment, columns=("WA", "UA")), [RowResult(OTHER, runs, 1)], {})
    text = markdown(found)
    assert "| other | 0.750 (0.500\u20131.000) | 0.750 (0.500\u20131.000) |" in text
    assert "| UA on | tess (test only), 2 speakers |" in text
    assert "| other | 0.750 (0.500\u20131.000) |\n" in text
    assert "In brackets the 95% interval over 2 speakers" in text
    mean, _ = csv.DictReader(io.StringIO(comma_separated(found)))
    assert (mean["UA low"], mean["UA high"]) == ("0.5", "1")
    (row,) = plain(found)["rows"]  # type: ignore[misc]
    assert row["intervals"]["UA"] == {"low": 0.5, "high": 1.0, "speakers": 2, "of": "mean"}
    assert row["folds"][0]["intervals"]["ua"]["speakers"] == 2


def test_the_csv_has_means_and_every_fold() -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(table()))))
    assert len(rows) == 3 + 5
    mean = rows[0]
    assert (mean["row"], mean["fold"], mean["folds"]) == ("ours | new", "mean", "4")
    assert float(mean["UA"]) == pytest.approx(np.mean([float(row["UA"]) for row in rows[1:5]]))
    assert float(mean["UA deviation"]) == pytest.approx(0.141421, abs=1e-6)
    assert (mean["UA (paper, IEMOCAP)"], mean["UA (paper, IEMOCAP) deviation"]) == ("0.741", "0.001")
    assert (rows[1]["seed"], rows[1]["fold"], rows[1]["utterances"], rows[1]["WA"]) == ("1", "1", "20", "0.6")
    assert rows[-1]["row"] == "quoted"
    assert rows[-1]["WA"] == ""


def test_json_says_what_is_missing() -> None:
    ours, other, _ = plain(table())["rows"]  # type: ignore[misc]
    assert (other["folds_done"], other["folds_wanted"], other["parameters"]) == (1, 4, None)
    assert ours["published"]["UA"] == [0.741, 0.001]
    assert [fold["fold"] for fold in ours["folds"]] == ["1", "2", "1", "2"]


def test_bars_are_as_long_as_the_figures_and_diamonds_stand_at_the_papers() -> None:
    axes = table_figure(table()).axes[0]
    blue = axes.containers[0]
    assert [bar.get_width() for bar in blue] == pytest.approx([75.0, 100.0, 0.0])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ours | new", "other", "quoted"]
    diamonds = [line for line in axes.lines if line.get_marker() == "D"]
    assert [list(line.get_xdata()) for line in diamonds] == [[75.29], [pytest.approx(74.1), 71.0]]
    assert [text.get_text() for text in axes.get_legend().get_texts()].count("paper, IEMOCAP") == 1


def test_lines_run_along_what_was_varied() -> None:
    spec = FigureSpec("lines", "k", "WA", x_label="keys that are kept")
    axes = table_figure(table(figure=spec)).axes[0]
    line = next(one for one in axes.lines if one.get_color() == BLUE and one.get_marker() == "o")
    assert list(line.get_xdata()) == [0.25, 0.5]
    assert list(line.get_ydata()) == pytest.approx([100.0, 75.0])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("keys that are kept", "WA (%)")


def test_lines_are_told_apart_by_their_series() -> None:
    spec = FigureSpec("lines", "k", "UA", series="k")
    axes = table_figure(table(figure=spec)).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["paper, IEMOCAP", "k 0.5", "k 0.25"]


@pytest.mark.parametrize("spec", [FigureSpec(), FigureSpec("lines", "k")])
def test_a_figure_is_drawn_before_anything_was_reached(spec: FigureSpec) -> None:
    nothing = table(figure=spec)
    rows = [RowResult(result.row, {}, result.wanted) for result in nothing.rows]
    picture = imread(io.BytesIO(png(table_figure(dataclasses.replace(nothing, rows=rows)))))
    assert 300 < picture.shape[0] < 800
    assert 600 < picture.shape[1] < 1200


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(InputError, match="figure: got no rows"):
        bars_figure("t", {}, "paper")
    with pytest.raises(InputError, match="figure: got no points"):
        lines_figure("t", {"a": []}, "x", "UA", "paper")
