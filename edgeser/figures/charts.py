"""How well a model does, in charts: the confusion matrix, each session's accuracies, and what sureness buys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeser.figures.style import BLUE, COUNTS_MAP, ORANGE, new_figure, shorten, styled
from edgeser.runtime.errors import InputError
from edgeser.runtime.metrics import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DARK_CELL = 0.55  # from this share on, white letters read better than black ones
_NAME = 16  # characters of a label or a session
_LETTER_IN = 0.09  # about what one takes
_VALUES_UP_TO = 12  # sessions whose bars have room for a number


def confusion_figure(metrics: Metrics) -> Figure:
    """Draw a confusion matrix: a row for each true emotion, shaded by the share of the row, with the counts."""
    counts = np.array(metrics.confusion, dtype=np.int64)
    totals = np.array(metrics.per_class, dtype=np.int64)
    shares = counts / np.maximum(totals, 1)[:, None]
    names = [shorten(label, _NAME) for label in metrics.labels]
    classes = range(len(names))
    with styled():
        side = max(3.2, 0.85 * len(names))
        figure = new_figure(side + 2.8, side + 1.2)
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap=COUNTS_MAP, vmin=0.0, vmax=1.0)
        for i in classes:
            for j in classes:
                share = f"{shares[i, j]:.0%}" if totals[i] else "\u2013"
                ink = "white" if shares[i, j] > _DARK_CELL else "black"
                axes.text(j, i, f"{share}\n{counts[i, j]}", ha="center", va="center", color=ink)
        axes.set_xticks(classes, names, rotation=30 if len(names) > 6 else 0)
        axes.set_yticks(classes, [f"{name}\n({total})" for name, total in zip(names, totals, strict=True)])
        axes.set_xlabel("recognised emotion")
        axes.set_ylabel("true emotion (utterances)")
        axes.set_title(f"WA {metrics.wa:.1%}   UA {metrics.ua:.1%}   {metrics.count} utterances")
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.04, format="{x:.0%}")
        bar.set_label("share of the true emotion's utterances (%)")
        bar.outline.set_visible(False)
        figure.set_layout_engine("tight")
    return figure


def sessions_figure(sessions: Mapping[str, Metrics], session_name: str = "session") -> Figure:
    """Draw weighted and unweighted accuracy of each session as bars, their means as lines.

    Args:
        sessions: Accuracies by session, at least one.
        session_name: What a session is, for the axis: `held-out session` where training never saw it.

    Raises:
        InputError: No session.
    """
    if not sessions:
        raise InputError("sessions: got none, expected at least one to draw")
    names = [shorten(session, _NAME) for session in sessions]
    with styled():
        width_in = min(24.0, max(6.4, 0.95 * len(sessions) + 2.2))
        upright = max(map(len, names)) * _LETTER_IN > (width_in - 1.2) / len(names)
        figure = new_figure(width_in, 5.2 if upright else 4.2)
        axes = figure.add_subplot()
        _bars(axes, "WA, weighted", [m.wa for m in sessions.values()], -1, BLUE, "--")
        _bars(axes, "UA, unweighted", [m.ua for m in sessions.values()], 1, ORANGE, ":")
        ticks = [f"{name}\n({m.count})" for name, m in zip(names, sessions.values(), strict=True)]
        axes.set_xticks(range(len(ticks)), ticks, rotation=90 if upright else 0)
        axes.set_xlim(-0.6, len(ticks) - 0.4)
        axes.set_ylim(0, 100)
        axes.set_xlabel(f"{session_name} (utterances)")
        axes.set_ylabel("accuracy (%)")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
        figure.set_layout_engine("tight")
    return figure


def answered_figure(curves: Mapping[str, Mapping[float, float]]) -> Figure:
    """Draw the accuracy over the share of utterances that is answered, the surest.

    Args:
        curves: By name, accuracy by share, both 0 to 1; two names at most.

    Raises:
        InputError: No curve.
    """
    if not curves:
        raise InputError("answered: got no curve, expected at least one to draw")
    with styled():
        figure = new_figure(6.4, 4.2)
        axes = figure.add_subplot()
        for (name, curve), colour, mark in zip(curves.items(), (BLUE, ORANGE), ("o-", "s--"), strict=False):
            shares, values = (100.0 * np.array(list(column)) for column in (curve.keys(), curve.values()))
            axes.plot(shares, values, mark, color=colour, label=shorten(name, _NAME))
        axes.invert_xaxis()
        axes.set_ylim(0, 100)
        axes.set_xlabel("answered, the surest (% of the utterances)")
        axes.set_ylabel("of those right (%)")
        if len(curves) > 1:
            axes.legend(loc="lower right", frameon=False)
        figure.set_layout_engine("tight")
    return figure


def _bars(axes: Axes, label: str, values: list[float], side: int, colour: str, line: str) -> None:
    """Draw one measure's bars, left (-1) or right (1) of each session's place, and its mean over the sessions."""
    width = 0.38
    percent = 100.0 * np.array(values)
    mean = float(percent.mean())
    bars = axes.bar(
        np.arange(len(values)) + side * width / 2, percent, width, color=colour, edgecolor="black", linewidth=0.6
    )
    bars.set_label(label)
    axes.axhline(
        mean, color="black", linestyle=line, linewidth=1.3, label=f"mean {label.partition(',')[0]} {mean:.1f}%"
    )
    if len(values) <= _VALUES_UP_TO:
        axes.bar_label(bars, fmt="%.1f", fontsize=9, label_type="center", color="white" if side < 0 else "black")
