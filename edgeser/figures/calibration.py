"""A calibration as files: which layers suffer, what their codes cover, and one page with FP32 beside INT8."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeser.calibration.comparison import Comparison
from edgeser.calibration.placement import PRESETS
from edgeser.calibration.report import CalibrationReport, LayerReport
from edgeser.calibration.sensitivity import Damage
from edgeser.figures.page import ACCURACIES, Picture, document, element, facts_table, figure_element, table
from edgeser.figures.report import check_report, write_files
from edgeser.figures.style import BLUE, ORANGE, new_figure, png, shorten_middle, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = "calibration.html"

_MOST = 40  # layers that the ranking's figure has room for
_NAME = 60  # characters of a layer; the default bundle's names stay whole
_WIDTH_IN = 9.6  # the page's width
_ROW_IN = 0.19
_SMALL = 8.0  # points
_DECADES = 4  # of magnitudes that the logarithmic axis shows on each side; below, it is linear
_DASH = "\u2013"
_STYLE = """.layers { font-size: 0.75rem; } .layers th { vertical-align: bottom; }
.layers th, .layers td { padding-right: 0.6rem; }
.layers td:first-child { overflow-wrap: anywhere; min-width: 11rem; }
"""
_DISTANCE = "Jensen-Shannon distance: of the probabilities, base 2; 0 for the same, 1 for opposites."
_COLUMNS = (
    *("layer", "parameters", "precision", "why in floating point", "scale", "zero point"),
    *("range seen", "codes cover", "saturated", "evened"),
)
_COMPARED_ON = {
    "validation": "Utterances of other recordings than those that calibrated. Where layers were ranked, or chosen to "
    "stay in floating point, it was on these.",
    "excluded": "Utterances that nothing here was chosen by: neither drawn to calibrate nor to validate.",
}


def write_calibration(folder: Path, report: CalibrationReport, command: str, facts: Mapping[str, str]) -> Path:
    """Draw what a calibration found, then write it: when a figure fails, none is written.

    Files of an older calibration with the same names are replaced; others stay.

    Args:
        folder: Made where it is not there. Gets `sensitivity.png` where layers were ranked, `ranges.png` where
            activations are INT8, and `calibration.html`.
        report: What to draw.
        command: The command that did it.
        facts: What else a reader should know, by name.

    Returns:
        The page.

    Raises:
        InputError: The path is a file, or not writable.
        MissingDependencyError: matplotlib is not installed.
    """
    check_report(folder)
    ranking, ranges = _ranking_picture(report), _ranges_picture(report)
    parts = [
        element("p", f"{ACCURACIES} {_DISTANCE}"),
        *(part for name, compared in report.comparisons.items() for part in _comparison(name, compared)),
        *_words(report),
        *_size_and_speed(report),
        element("h2", "Settings"),
        facts_table(dict(_settings(report.settings))),
        *_ranking(report, ranking),
        *_layers(report, ranges),
    ]
    text = document(f"Calibration of {report.bundle}", command, facts, parts, _STYLE)
    return write_files(folder, [picture for picture in (ranking, ranges) if picture], PAGE, text)[-1]


def sensitivity_figure(ranking: Sequence[Damage], in_float: set[str]) -> Figure:
    """Draw the damage of the worst layers as bars, the worst on top.

    Args:
        ranking: At least one layer, the worst first.
        in_float: Names of the layers that were left in floating point.
    """
    from matplotlib.patches import Patch

    shown = ranking[:_MOST]
    kept = [damage.layer in in_float for damage in shown]
    with styled():
        figure = new_figure(_WIDTH_IN, _ROW_IN * len(shown) + 1.6)
        axes = figure.add_subplot()
        values = [damage.divergence for damage in shown]
        colours = [ORANGE if one else BLUE for one in kept]
        bars = axes.barh(range(len(shown)), values, color=colours, edgecolor="black", linewidth=0.5)
        axes.bar_label(bars, fmt="%.4f", fontsize=_SMALL, padding=3)
        _name_rows(axes, [f"{shorten_middle(d.layer, _NAME)}  {rank}" for rank, d in enumerate(shown, 1)])
        axes.set_xlim(0, 1.12 * max(*values, 1e-4))  # room for the numbers
        axes.set_xlabel("mean Jensen-Shannon distance from floating point (0 to 1)")
        of_all = f", the worst {len(shown)} of {len(ranking)}" if len(shown) < len(ranking) else ""
        axes.set_title(f"Each layer quantized alone{of_all}", pad=26)  # the legend stands below it
        patches = [
            Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=label)
            for label, colour, one in (("in INT8", BLUE, False), ("left in floating point", ORANGE, True))
            if one in kept
        ]
        axes.legend(handles=patches, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, frameon=False)
        figure.set_layout_engine("tight")
    return figure


def ranges_figure(layers: Sequence[LayerReport], unsigned: bool) -> Figure:
    """Draw for each INT8 layer what was seen and what its codes cover, part by part, in the order they run.

    Args:
        layers: Layers whose activations are INT8, at least one.
        unsigned: Codes are U8 instead of S8.
    """
    parts: dict[str, list[LayerReport]] = defaultdict(list)
    for layer in layers:
        parts[layer.layer.partition("/")[0]].append(layer)
    with styled():
        figure = new_figure(_WIDTH_IN, _ROW_IN * len(layers) + 0.5 * len(parts) + 1.2)
        heights = [len(own) + 1 for own in parts.values()]
        rows = figure.subplots(len(parts), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, own) in zip(rows, parts.items(), strict=True):
            _draw_ranges(axes, own, unsigned)
            axes.set_title(shorten_middle(name, _NAME // 2))
        _logarithmic(rows, layers, unsigned)
        rows[-1].set_xlabel("activation (logarithmic on both sides of 0, linear in the middle)")
        handles, labels = rows[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=2, frameon=False)
        figure.set_layout_engine("tight")
    return figure


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Put a name beside each row, the first on top."""
    axes.set_yticks(range(len(names)), names, fontsize=_SMALL)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _draw_ranges(axes: Axes, layers: Sequence[LayerReport], unsigned: bool) -> None:
    rows = range(len(layers))
    covered = [_covered(layer, unsigned) for layer in layers]
    lows = [low for low, _ in covered]
    axes.barh(rows, [high - low for low, high in covered], 0.72, lows, color=BLUE, label="the codes cover")
    lows = [layer.low for layer in layers]
    widths = [layer.high - layer.low for layer in layers]
    axes.barh(rows, widths, 0.3, lows, color=ORANGE, edgecolor="black", linewidth=0.4, label="seen")
    axes.axvline(0.0, color="black", linewidth=0.6)
    _name_rows(axes, [shorten_middle(layer.layer.partition("/")[2] or layer.layer, _NAME) for layer in layers])


def _logarithmic(rows: Iterable[Axes], layers: Sequence[LayerReport], unsigned: bool) -> None:
    """Make the shared axis logarithmic on both sides, down to the narrowest layer where that is not decades away."""
    from matplotlib.ticker import FuncFormatter, SymmetricalLogLocator

    reach = [max(map(abs, (*_covered(layer, unsigned), layer.low, layer.high))) for layer in layers]
    largest = max(reach) or 1.0
    linear = 10.0 ** math.floor(math.log10(max(min(reach), largest / 10.0**_DECADES)))
    steps = (1, 2, 5) if largest / linear <= 200 else (1,)  # more would run into each other
    for axes in rows:
        axes.set_xscale("symlog", linthresh=linear, linscale=0.5)
        axes.set_xlim(-1.15 * largest, 1.15 * largest)
        axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear, subs=steps))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.tick_params(axis="x", labelbottom=True, labelsize=_SMALL)


def _covered(layer: LayerReport, unsigned: bool) -> tuple[float, float]:
    """Return what a layer's codes reach from and to: -128 to 127, or 0 to 255 around the zero point."""
    first, last = (0, 255) if unsigned else (-128, 127)
    return (first - layer.zero_point) * layer.scale, (last - layer.zero_point) * layer.scale


def _is_unsigned(report: CalibrationReport) -> bool:
    return PRESETS[report.settings["preset"]].unsigned


def _in_float(report: CalibrationReport) -> set[str]:
    return {layer.layer for layer in report.layers if layer.precision == "fp32"}


def _ranking_picture(report: CalibrationReport) -> Picture | None:
    if not report.ranking:
        return None
    kept = _in_float(report)
    shown = (
        f"{damage.layer} {damage.divergence:.4f}{' (left in floating point)' if damage.layer in kept else ''}"
        for damage in report.ranking[:_MOST]
    )
    return Picture(
        "sensitivity.png",
        png(sensitivity_figure(report.ranking, kept)),
        "How far the probabilities move when one layer alone is quantized, all others in floating point.",
        f"Bars, the longest first: {'; '.join(shown)}",
    )


def _ranges_picture(report: CalibrationReport) -> Picture | None:
    layers = [layer for layer in report.layers if layer.precision == "int8"]
    if not layers:
        return None
    unsigned = _is_unsigned(report)
    shown = (
        f"{layer.layer} saw {_span(layer.low, layer.high)}, codes {_span(*_covered(layer, unsigned))}"
        for layer in layers
    )
    return Picture(
        "ranges.png",
        png(ranges_figure(layers, unsigned)),
        "Activations of each INT8 layer: thick, what its codes cover; thin, what was seen. Where the thin bar "
        "stands out, activations saturate.",
        f"Bars in the order the layers run: {'; '.join(shown)}",
    )


def _comparison(name: str, compared: Comparison) -> Iterator[str]:
    reference, quantized = compared.reference, compared.quantized
    yield element("h2", f"FP32 beside INT8: {name}")
    if name in _COMPARED_ON:
        yield element("p", _COMPARED_ON[name])
    both = [(getattr(reference, measure), getattr(quantized, measure)) for measure in ("wa", "ua", "wf1")]
    yield table(
        ("", "WA", "UA", "WF1", "utterances"),
        [
            ("FP32", *(f"{before:.2%}" for before, _ in both), str(reference.count)),
            ("INT8", *(f"{after:.2%}" for _, after in both), str(quantized.count)),
        ],
        ("change (points)", *(_points(after - before) for before, after in both), ""),
    )
    yield facts_table(
        {
            "labels agree": f"{compared.agreement:.2%}",
            "|logit difference|": f"mean {compared.mean_logit_difference:.4f}, "
            f"largest {compared.max_logit_difference:.4f}",
            "Jensen-Shannon distance": f"mean {compared.divergence:.4f}, largest {compared.max_divergence:.4f}",
        }
    )
    yield table(("emotion", "recall FP32", "recall INT8", "change (points)", "utterances"), _recalls(compared))


def _words(report: CalibrationReport) -> Iterator[str]:
    if report.words:
        yield element("h2", "What the recogniser hears")
        yield facts_table({name: compared.text() for name, compared in report.words.items()})


def _recalls(compared: Comparison) -> Iterator[tuple[str, ...]]:
    before, after = compared.reference.recall, compared.quantized.recall
    for label, row in zip(compared.reference.labels, compared.reference.confusion, strict=True):
        if label in before:
            change = _points(after[label] - before[label])
            yield label, f"{before[label]:.2%}", f"{after[label]:.2%}", change, str(sum(row))
        else:
            yield label, _DASH, _DASH, _DASH, "0"


def _points(change: float) -> str:
    return f"{round(100.0 * change, 2) + 0.0:+.2f}"  # adding 0 makes the sign of -0.00 a plus


def _size_and_speed(report: CalibrationReport) -> Iterator[str]:
    names = {"fp32": "FP32, as given", "fp32 weights": "FP32, with every weight as FP32", "int8": "INT8"}
    yield element("h2", "Size")
    yield table(
        ("bundle", "bytes", "MB", "share that INT8 takes"),
        [
            (names[key], f"{size:,}", f"{size / 1e6:.2f}", f"{report.bytes['int8'] / size:.1%}")
            for key, size in report.bytes.items()
        ],
    )
    speeds = report.p50_ms
    yield element("h2", "Speed")
    yield table(
        ("bundle", "p50 (ms)", "times as fast as FP32"),
        [
            (key.replace("fp", "FP").replace("int", "INT"), f"{p50:.2f}", f"{speeds[f'fp32{key[4:]}'] / p50:.2f}")
            for key, p50 in speeds.items()
        ],
    )
    yield element(
        "p",
        "The whole path with the transcript given, one thread of ONNX Runtime, both bundles in turn: the median; where "
        "the bundle brings a recogniser, that alone too (words).",
    )


def _settings(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting by its path, and its value as readers write it."""
    for name, value in settings.items():
        path = f"{above}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _settings(value, f"{path}: ")
        elif name == "percentile" and settings.get("name") != "percentile":
            continue  # other methods keep the field, and do not use it
        elif isinstance(value, bool):
            yield path, "yes" if value else "no"
        elif isinstance(value, list | tuple):
            yield path, ", ".join(map(str, value)) or "none"
        else:
            yield path, "none" if value is None else str(value)


def _ranking(report: CalibrationReport, picture: Picture | None) -> Iterator[str]:
    if picture is None:
        return
    kept = _in_float(report)
    yield element("h2", "Sensitivity")
    yield figure_element(picture)
    yield table(
        ("layer", "rank", "parameters", "Jensen-Shannon distance", "UA change (points)", "labels agree", "kept in"),
        [
            (
                damage.layer,
                str(rank),
                f"{damage.parameters:,}",
                f"{damage.divergence:.5f}",
                _points(-damage.drop),
                f"{damage.agreement:.2%}",
                "FP32" if damage.layer in kept else "INT8",
            )
            for rank, damage in enumerate(report.ranking, 1)
        ],
        kind="layers",
    )


def _layers(report: CalibrationReport, picture: Picture | None) -> Iterator[str]:
    yield element("h2", "Layers")
    if picture is not None:
        yield figure_element(picture)
    unsigned = _is_unsigned(report)
    yield table(_COLUMNS, [_layer_row(layer, unsigned) for layer in report.layers], kind="layers")
    yield element(
        "p",
        "Range seen: of the activation, after it was evened out. Saturated: share of the activations beyond the codes. "
        "Evened: how much of an activation's spread over its channels was moved into the weights, 0 to 1.",
    )


def _layer_row(layer: LayerReport, unsigned: bool) -> tuple[str, ...]:
    described = (layer.layer, f"{layer.parameters:,}", layer.precision, layer.reason or _DASH)
    if layer.precision != "int8":
        return (*described, *[_DASH] * 6)
    return (
        *described,
        f"{layer.scale:.4g}",
        str(layer.zero_point),
        _span(layer.low, layer.high),
        _span(*_covered(layer, unsigned)),
        f"{layer.saturated:.3%}",
        f"{layer.evened:g}",
    )


def _span(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g}"
