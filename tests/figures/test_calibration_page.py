"""The page of a calibration and its figures, from a report made by hand."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from edgeser.calibration.comparison import Comparison, compare
from edgeser.calibration.report import CalibrationReport, LayerReport
from edgeser.calibration.sensitivity import Damage
from edgeser.corpora import Utterance
from edgeser.figures import calibration
from edgeser.figures.calibration import ranges_figure, sensitivity_figure, write_calibration
from edgeser.figures.style import BLUE, ORANGE, png, shorten_middle
from edgeser.runtime.errors import InputError

SCRIPT = "<script>alert(1)</script>"
LABELS = ("angry", "<b>happy</b>", "neutral", "sad")
SETTINGS: dict[str, Any] = {
    "preset": "tensorrt",
    "method": {"name": "mse", "percentile": 99.99},
    "smoothing": True,
    "sampling": {"utterances": 128, "seed": 0, "exclude_sessions": ["5", "<6>"], "exclude_ids": 1},
    "corpus": {"reader": "manifest", "name": "</td>corpus.csv"},
    "in_float": [],
    "max_drop": None,
}
LAYERS = (
    LayerReport("audio/basis", 160800, "fp32", "reads one <i>raw</i> channel"),
    LayerReport(f"audio/{SCRIPT}", 4096, "int8", "", 0.5, 0, -70.25, 20.0, 0.00125, 0.75),
    LayerReport("text/lstm", 2048, "int8 weights"),
    LayerReport("text/$x_1$", 1024, "int8", "", 0.01, 0, 0.0, 1.5, 0.0, 0.0),
    LayerReport("model/stem", 512, "fp32", "asked for"),
)
RANKING = (
    Damage("model/stem", 512, 0.25, 0.0125, 0.975),
    Damage("text/$x_1$", 1024, 0.05, -0.005, 0.99),
    Damage(f"audio/{SCRIPT}", 4096, 0.001, 0.0, 1.0),
)
FACTS = {"corpus": "<img src=x onerror=alert(1)>", "file \udcff": "not UTF-8: \udcff"}


def compared() -> Comparison:
    """Five utterances; FP32 takes the last for `angry`, INT8 the second for `happy` too."""
    truth = [0, 0, 1, 2, 2]
    reference, quantized = (2.0 * np.eye(4)[guesses] for guesses in ([0, 0, 1, 2, 0], [0, 1, 1, 2, 0]))
    utterances = [Utterance(str(i), Path("x.wav"), LABELS[label]) for i, label in enumerate(truth)]
    return compare(reference, quantized, utterances, LABELS)


@pytest.fixture
def report() -> CalibrationReport:
    return CalibrationReport(
        f'"{SCRIPT}" & co 1.0',
        SETTINGS,
        {"validation": compared(), "<u>others</u>": compared()},
        {"fp32": 40_000_000, "fp32 weights": 64_000_000, "int8": 16_000_000},
        {"fp32": 60.0, "int8": 40.0},
        LAYERS,
        RANKING,
    )


class Page(HTMLParser):
    """Collects what a page holds: the rows of its tables by the heading above them, its pictures, its tags."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.text = ""
        self.tags: set[str] = set()
        self.alts: list[str] = []
        self.sources: list[str] = []
        self._heading = ""
        self._inside = ""
        self.feed(file.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._inside = tag
        if tag in ("h1", "h2"):
            self._heading = ""
        elif tag == "tr":
            self.rows.setdefault(self._heading, []).append([])
        elif tag in ("th", "td"):
            self.rows[self._heading][-1].append("")
        elif tag == "img":
            self.alts.append(dict(attrs)["alt"] or "")
            self.sources.append(dict(attrs)["src"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside in ("h1", "h2"):
            self._heading += data
        elif self._inside in ("th", "td"):
            self.rows[self._heading][-1][-1] += data


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def names_of(figure: Figure) -> list[str]:
    """Return the names beside the rows of all charts, from the top down."""
    return [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]


def bars_of(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def drawn(figure: Figure) -> set[str]:
    """Return the texts of a figure after it was drawn, tick labels among them."""
    png(figure)
    return set(texts(figure))


def tick_labels(axes: Axes) -> list[Text]:
    """Return the labels along a drawn chart that are to be seen, from left to right."""
    low, high = axes.get_xlim()
    shown = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    return sorted(shown, key=lambda label: float(label.get_position()[0]))


def assert_everything_fits(figure: Figure) -> None:
    """Nothing that is written may reach beyond the picture, or into the next tick's label."""
    png(figure)
    for axes in figure.axes:
        ticks = tick_labels(axes)
        for text in (*ticks, *axes.get_yticklabels(), axes.xaxis.label, *axes.texts):
            box = text.get_window_extent()
            assert box.x0 >= 0, text
            assert box.y0 >= 0, text
            assert box.x1 <= figure.bbox.x1, text
            assert box.y1 <= figure.bbox.y1, text
        assert len(ticks) >= 3
        for left, right in itertools.pairwise(ticks):
            assert left.get_window_extent().x1 < right.get_window_extent().x0, (left, right)


def test_the_page_has_fp32_beside_int8(report: CalibrationReport, tmp_path: Path) -> None:
    page = Page(write_calibration(tmp_path / "new" / "figures", report, f'edgeser calibrate "{SCRIPT}"', FACTS))
    assert [["corpus", FACTS["corpus"]], ["file ?", "not UTF-8: ?"]] == page.rows[f"Calibration of {report.bundle}"]
    for name in ("validation", "<u>others</u>"):
        assert page.rows[f"FP32 beside INT8: {name}"] == [
            ["", "WA", "UA", "WF1", "utterances"],
            ["FP32", "80.00%", "83.33%", "78.67%", "5"],
            ["INT8", "60.00%", "66.67%", "60.00%", "5"],
            ["change (points)", "-20.00", "-16.67", "-18.67", ""],
            ["labels agree", "80.00%"],
            ["|logit difference|", "mean 0.2000, largest 2.0000"],
            ["Jensen-Shannon distance", "mean 0.1236, largest 0.6180"],
            ["emotion", "recall FP32", "recall INT8", "change (points)", "utterances"],
            ["angry", "100.00%", "50.00%", "-50.00", "2"],
            ["<b>happy</b>", "100.00%", "100.00%", "+0.00", "1"],
            ["neutral", "50.00%", "50.00%", "+0.00", "2"],
            ["sad", "\u2013", "\u2013", "\u2013", "0"],
        ]
    assert page.rows["Size"][1:] == [
        ["FP32, as given", "40,000,000", "40.00", "40.0%"],
        ["FP32, with every weight as FP32", "64,000,000", "64.00", "25.0%"],
        ["INT8", "16,000,000", "16.00", "100.0%"],
    ]
    assert page.rows["Speed"][1:] == [["FP32", "60.00", "1.00"], ["INT8", "40.00", "1.50"]]
    assert page.text.rstrip().endswith(f'Made by\nedgeser calibrate "{SCRIPT}"')


def test_the_page_has_settings_layers_and_ranking(report: CalibrationReport, tmp_path: Path) -> None:
    page = Page(write_calibration(tmp_path, report, "edgeser calibrate x", {}))
    assert page.rows["Settings"] == [
        ["preset", "tensorrt"],
        ["method: name", "mse"],
        ["smoothing", "yes"],
        ["sampling: utterances", "128"],
        ["sampling: seed", "0"],
        ["sampling: exclude sessions", "5, <6>"],
        ["sampling: exclude ids", "1"],
        ["corpus: reader", "manifest"],
        ["corpus: name", "</td>corpus.csv"],
        ["in float", "none"],
        ["max drop", "none"],
    ]
    dashes = ["\u2013"] * 6
    assert page.rows["Layers"][1:] == [
        ["audio/basis", "160,800", "fp32", "reads one <i>raw</i> channel", *dashes],
        [f"audio/{SCRIPT}", "4,096", "int8", "\u2013", "0.5", "0", "-70.2 to 20", "-64 to 63.5", "0.125%", "0.75"],
        ["text/lstm", "2,048", "int8 weights", "\u2013", *dashes],
        ["text/$x_1$", "1,024", "int8", "\u2013", "0.01", "0", "0 to 1.5", "-1.28 to 1.27", "0.000%", "0"],
        ["model/stem", "512", "fp32", "asked for", *dashes],
    ]
    assert page.rows["Sensitivity"][1:] == [
        ["model/stem", "1", "512", "0.25000", "-1.25", "97.50%", "FP32"],
        ["text/$x_1$", "2", "1,024", "0.05000", "+0.50", "99.00%", "INT8"],
        [f"audio/{SCRIPT}", "3", "4,096", "0.00100", "+0.00", "100.00%", "INT8"],
    ]


def test_a_percentile_is_shown_where_it_was_used(report: CalibrationReport, tmp_path: Path) -> None:
    settings = {**SETTINGS, "method": {"name": "percentile", "percentile": 99.5}}
    page = Page(write_calibration(tmp_path, dataclasses.replace(report, settings=settings), "x", {}))
    assert page.rows["Settings"][1:3] == [["method: name", "percentile"], ["method: percentile", "99.5"]]


def test_the_page_holds_its_pictures_and_nothing_that_runs(report: CalibrationReport, tmp_path: Path) -> None:
    file = write_calibration(tmp_path, report, SCRIPT, FACTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration.html", "ranges.png", "sensitivity.png"]
    assert file == tmp_path / "calibration.html"
    for name in ("ranges.png", "sensitivity.png"):
        image = np.asarray(imread(io.BytesIO((tmp_path / name).read_bytes())))
        assert image.shape[1] == 960
        assert image[..., :3].std() > 0.05, name
    page = Page(file)
    assert not {"script", "link", "iframe", "b", "i", "u"} & page.tags
    assert [source[:22] for source in page.sources] == ["data:image/png;base64,"] * 2
    assert page.alts == [
        "Bars, the longest first: model/stem 0.2500 (left in floating point); text/$x_1$ 0.0500; "
        f"audio/{SCRIPT} 0.0010",
        f"Bars in the order the layers run: audio/{SCRIPT} saw -70.2 to 20, codes -64 to 63.5; "
        "text/$x_1$ saw 0 to 1.5, codes -1.28 to 1.27",
    ]
    text = file.read_text(encoding="utf-8")
    assert "&lt;script&gt;" in text
    assert not any(fetched in text for fetched in ("http:", "https:", "url(", "@import"))


def test_bars_are_in_the_order_of_the_ranking() -> None:
    figure = sensitivity_figure(RANKING, {"model/stem"})
    (axes,) = figure.axes
    assert [bar.get_width() for bar in bars_of(axes)] == [0.25, 0.05, 0.001]
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars_of(axes)] == [ORANGE, BLUE, BLUE]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top
    assert names_of(figure) == ["model/stem  1", "text/$x_1$  2", f"audio/{SCRIPT}  3"]
    assert {"0.2500", "0.0010", "in INT8", "left in floating point", "Each layer quantized alone"} <= set(texts(figure))
    assert "left in floating point" not in texts(sensitivity_figure(RANKING[1:], {"model/stem"}))


def test_of_many_layers_the_worst_are_drawn() -> None:
    ranking = [Damage(f"model/layers.{i}.{'deep.' * 30}out", 1, 1.0 / (i + 1), 0.0, 1.0) for i in range(60)]
    figure = sensitivity_figure(ranking, set())
    assert [bar.get_width() for bar in bars_of(figure.axes[0])] == [damage.divergence for damage in ranking[:40]]
    assert "Each layer quantized alone, the worst 40 of 60" in texts(figure)
    assert names_of(figure)[39] == "model/layers.39.deep\u2026.deep.deep.deep.deep.deep.deep.deep.out  40"
    assert_everything_fits(figure)


def test_ranking_without_any_damage_is_drawn() -> None:
    figure = sensitivity_figure([Damage("model/a", 1, 0.0, 0.0, 1.0)], set())
    assert figure.axes[0].get_xlim()[1] > 0
    assert_everything_fits(figure)


def test_ranges_show_what_was_seen_and_what_codes_cover() -> None:
    layers = [layer for layer in LAYERS if layer.precision == "int8"]
    figure = ranges_figure(layers, unsigned=False)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["audio", "text"]
    assert names_of(figure) == [SCRIPT, "$x_1$"]
    (audio, text) = (
        [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in bars_of(axes)] for axes in figure.axes
    )
    assert audio == [pytest.approx((-64.0, 127.5, 0.72)), pytest.approx((-70.25, 90.25, 0.3))]
    assert text == [pytest.approx((-1.28, 2.55, 0.72)), pytest.approx((0.0, 1.5, 0.3))]
    assert figure.axes[0].get_xscale() == "symlog"
    assert {"the codes cover", "seen", "-10", "10", "1"} <= drawn(figure)


def test_unsigned_codes_reach_around_their_zero_point() -> None:
    layer = LayerReport("model/a", 1, "int8", scale=0.1, zero_point=55, low=-5.0, high=21.0)
    codes, seen = bars_of(ranges_figure([layer], unsigned=True).axes[0])
    assert (codes.get_x(), codes.get_width()) == pytest.approx((-5.5, 25.5))
    assert (seen.get_x(), seen.get_width()) == pytest.approx((-5.0, 26.0))


def test_the_preset_tells_which_codes_there_are(report: CalibrationReport, tmp_path: Path) -> None:
    unsigned = dataclasses.replace(report, settings={**SETTINGS, "preset": "onnxruntime-x86"})
    page = Page(write_calibration(tmp_path, unsigned, "x", {}))
    assert page.rows["Layers"][4][7] == "0 to 2.55"


def test_many_ranges_fit_whatever_their_size() -> None:
    """Ninety layers in three parts, from 1e-30 to 5,000, one that saw zeros alone: no name or tick is cut off."""
    scales = 10.0 ** np.linspace(-32, 1.6, 90)
    layers = [
        LayerReport(f"part {i // 30}/{'deep.' * 30}{i}", 1, "int8", "", scale, 0, -90 * scale, 140 * scale)
        for i, scale in enumerate(scales.tolist())
    ]
    figure = ranges_figure([*layers, LayerReport("nothing", 1, "int8")], unsigned=False)
    assert [len(axes.get_yticklabels()) for axes in figure.axes] == [30, 30, 30, 1]
    assert len(set(names_of(figure))) == 91
    assert_everything_fits(figure)


def test_ticks_do_not_run_into_each_other_at_any_width() -> None:
    for widest in np.geomspace(0.3, 3000, 12).tolist():
        sizes = (0.1, widest)
        layers = [LayerReport(f"m/{'x' * 60}{size}", 1, "int8", "", size / 128, 0, -size, size) for size in sizes]
        assert_everything_fits(ranges_figure(layers, unsigned=False))


def test_without_ranking_or_int8_layers_there_are_no_figures(report: CalibrationReport, tmp_path: Path) -> None:
    bare = dataclasses.replace(report, layers=LAYERS[:1], ranking=(), comparisons={"validation": compared()})
    page = Page(write_calibration(tmp_path, bare, "x", {}))
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.html"]
    assert "img" not in page.tags
    assert "Sensitivity" not in page.rows
    assert len(page.rows["Layers"]) == 2


def test_when_a_figure_fails_nothing_is_written(
    report: CalibrationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> object:
        raise RuntimeError("no more ink")

    write_calibration(tmp_path / "old", report, "old", {})
    before = {file: file.read_bytes() for file in (tmp_path / "old").iterdir()}
    monkeypatch.setattr(calibration, "ranges_figure", failing)
    for folder in ("old", "new"):
        with pytest.raises(RuntimeError, match="no more ink"):
            write_calibration(tmp_path / folder, dataclasses.replace(report, ranking=RANKING[1:]), "new", {})
    assert not (tmp_path / "new").exists()
    assert {file: file.read_bytes() for file in (tmp_path / "old").iterdir()} == before


def test_a_place_that_cannot_hold_figures_is_refused(
    report: CalibrationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="is a file, expected a folder"):
            write_calibration(place, report, "x", {})
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "further")
    with pytest.raises(InputError, match=r"cannot be written \(File exists\)"):
        write_calibration(tmp_path / "link", report, "x", {})
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="may not be written to: name another folder"):
        write_calibration(tmp_path / "new", report, "x", {})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("short", "short"),
        ("exactly twelve"[:12], "exactly twel"),
        ("model.layers.11.out_proj", "mode\u2026ut_proj"),
        ("two\nlines", "two lines"),
    ],
)
def test_names_are_cut_in_the_middle(name: str, expected: str) -> None:
    assert shorten_middle(name, 12) == expected
    assert len(expected) <= 12
