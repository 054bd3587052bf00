"""What one answer came from: the waveform, how much the model attended to each moment of it, and the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeser.figures.style import ATTENTION_MAP, BLUE, GREY, ORANGE, VERMILLION, new_figure, shorten, styled
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.frontends import AudioFrontend, TextFrontend
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import Result, Span, Word
from edgeser.runtime.scoring import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_IN, _LEFT_IN, _RIGHT_IN = 9.0, 1.0, 0.3
_AXES_IN = _WIDTH_IN - _LEFT_IN - _RIGHT_IN
_ENVELOPE = 1600  # columns of the waveform: two per pixel
_BEYOND = 1.25  # of a long recording, a quarter more than the model heard is drawn
_WORD_PT = 11.0
_COLUMN_IN = 0.602 * _WORD_PT / 72.0  # a letter of DejaVu Sans Mono is 0.602 em wide
_COLUMNS = int(_AXES_IN / _COLUMN_IN)
_MAX_LINES = 5
_LINE_IN = 0.46


@dataclass(frozen=True)
class Explanation:
    """One utterance, the answer, and what it came from.

    Attributes:
        name: Names the utterance.
        samples: `(samples,)` float32, mono at 16 kHz, full scale 1.0.
        result: The Runtime's answer.
        emotion: The true emotion, `None` where it is not known.
        importance: `(rows,)` float32, >= 0, of each audio row that comes from the samples; empty where the model has
            no audio or tells no importance.
        times_s: `(rows,)` middle of each row, seconds from the start.
    """

    name: str
    samples: Samples
    result: Result
    emotion: str | None
    importance: NDArray[np.float32]
    times_s: NDArray[np.float64]

    @property
    def headline(self) -> str:
        """The answer beside the truth, in words."""
        probability = self.result.probability
        text = f"recognised: {self.result.label}" + ("" if probability is None else f" ({probability:.0%})")
        return text if self.emotion is None else f"{text}; true: {self.emotion}"


def explain(runtime: Runtime, recordings: Sequence[Recording]) -> list[Explanation]:
    """Recognise recordings and keep what the answers came from.

    Raises:
        InputError: A recording cannot be read.
    """
    return [_explain(runtime, recording) for recording in recordings]


def spread(recordings: Sequence[Recording], labels: Sequence[str], count: int) -> list[Recording]:
    """Choose recordings evenly over the classes, and evenly over each class's list; never by how well they went."""
    groups = [[r for r in recordings if r.emotion == label] for label in labels]
    quotas = [0] * len(groups)
    wanted = min(count, sum(map(len, groups)))
    while sum(quotas) < wanted:
        for i, group in enumerate(groups):
            if quotas[i] < len(group) and sum(quotas) < wanted:
                quotas[i] += 1
    return [
        group[(2 * k + 1) * len(group) // (2 * quota)]
        for group, quota in zip(groups, quotas, strict=True)
        for k in range(quota)
    ]


def explanation_figure(explanation: Explanation) -> Figure:
    """Draw an utterance's waveform with the spans that mattered, the importance of each moment, and its words."""
    lines = _word_lines(explanation.result.words)
    heights_in = {"waveform": 1.7, "importance": 1.15, "words": _LINE_IN * max(1, len(lines))}
    total_in = 0.75 + sum(heights_in.values()) + 0.2 + 0.85 + 0.1
    with styled():
        figure = new_figure(_WIDTH_IN, total_in)
        places: dict[str, Axes] = {}
        top_in = total_in - 0.75
        for name, gap_in in (("waveform", 0.2), ("importance", 0.85), ("words", 0.1)):
            bottom_in = top_in - heights_in[name]
            box = (_LEFT_IN / _WIDTH_IN, bottom_in / total_in, _AXES_IN / _WIDTH_IN, heights_in[name] / total_in)
            places[name] = figure.add_axes(box)
            top_in = bottom_in - gap_in
        figure.text(0.012, 1 - 0.28 / total_in, explanation.headline, fontsize=13, fontweight="bold")
        figure.text(0.012, 1 - 0.52 / total_in, shorten(explanation.name, 100), fontsize=9, color=GREY)
        _draw_waveform(places["waveform"], explanation)
        _draw_importance(places["importance"], explanation)
        _draw_words(places["words"], lines, len(explanation.result.words))
        for name in ("waveform", "importance"):
            places[name].yaxis.set_label_coords(-0.58 / _AXES_IN, 0.5)
    return figure


def _explain(runtime: Runtime, recording: Recording) -> Explanation:
    samples = recording.load()
    (result,) = runtime.recognize_batch([samples], [recording.transcript], [recording.shift])
    importance: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
    times_s: NDArray[np.float64] = np.zeros(0)
    feeds: dict[str, NDArray[np.generic]] = {}
    for name, frontend in runtime.frontends.items():
        if isinstance(frontend, AudioFrontend):
            features = frontend(samples)
            features = features if recording.shift is None else features.without(recording.shift)
            times_s = features.moments.astype(np.float64) * frontend.hop_s + frontend.window_s / 2
        elif isinstance(frontend, TextFrontend):
            features = frontend(result.transcript)
        else:
            continue
        feeds[name] = features.values[None]
        feeds[f"{name}_length"] = np.array([features.valid], dtype=np.int32)
    outputs = runtime.engine.run(feeds)
    if "audio_importance" in outputs:
        importance = outputs["audio_importance"][0, : times_s.size]
    return Explanation(recording.id, samples, result, recording.emotion, importance, times_s[: importance.size])


def _shown_s(explanation: Explanation) -> float:
    return min(explanation.result.duration_s, _BEYOND * explanation.result.heard_s)


def _draw_waveform(axes: Axes, explanation: Explanation) -> None:
    result = explanation.result
    shown_s = _shown_s(explanation)
    shown = explanation.samples[: max(1, round(shown_s * SAMPLE_RATE))]
    starts = np.unique(np.linspace(0, shown.size, _ENVELOPE, endpoint=False).astype(np.int64))
    low, high = np.minimum.reduceat(shown, starts), np.maximum.reduceat(shown, starts)
    axes.fill_between(starts / SAMPLE_RATE, low, high, color=BLUE, linewidth=0.8)
    peak = max(1e-3, float(np.abs(shown).max()))
    axes.set_ylim(-1.1 * peak, 1.5 * peak)  # room for the shares above the waveform
    axes.set_xlim(0, shown_s)
    axes.set_ylabel("amplitude\n(full scale 1)")
    axes.tick_params(labelbottom=False)
    for span in result.spans:
        axes.axvspan(span.start_s, span.end_s, color=ORANGE, alpha=0.3, linewidth=0, zorder=0)
    for span in _labelled(result.spans, 0.045 * shown_s):
        middle_s = (span.start_s + span.end_s) / 2
        axes.text(middle_s, 1.45 * peak, f"{span.importance:.0%}", ha="center", va="top", fontsize=9)
    if shown_s > result.heard_s:
        axes.axvspan(result.heard_s, shown_s, facecolor="white", edgecolor=GREY, alpha=0.75, hatch="//", linewidth=0)
        note = f" not heard, to {result.duration_s:.1f} s"
        axes.text(result.heard_s, 1.45 * peak, note, va="top", fontsize=9, backgroundcolor="white")


def _labelled(spans: Sequence[Span], distance_s: float) -> list[Span]:
    """Choose the spans whose shares can be written without touching one another, the heaviest first."""
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda s: -s.importance):
        middle_s = (span.start_s + span.end_s) / 2
        if all(abs(middle_s - (other.start_s + other.end_s) / 2) >= distance_s for other in chosen):
            chosen.append(span)
    return chosen


def _draw_importance(axes: Axes, explanation: Explanation) -> None:
    rows = explanation.importance.astype(np.float64)
    axes.set_xlim(0, _shown_s(explanation))
    axes.set_xlabel("time (s)")
    axes.set_ylabel("audio importance\n(mean 1)")
    if rows.sum() <= 0:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "the model tells none", transform=axes.transAxes, ha="center", va="center")
        return
    relative = rows / rows.mean()
    for span in explanation.result.spans:
        axes.axvspan(span.start_s, span.end_s, color=ORANGE, alpha=0.3, linewidth=0, zorder=0)
    axes.stairs(relative, _edges_s(explanation.times_s), color=VERMILLION, alpha=0.55, fill=True)
    axes.stairs(relative, _edges_s(explanation.times_s), color=VERMILLION, linewidth=1.0)
    axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_ylim(0, 1.08 * relative.max())


def _edges_s(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where rows meet, `(rows + 1,)`, seconds: half-way between their middles."""
    half_s = (times_s[1] - times_s[0]) / 2 if times_s.size > 1 else times_s[0]
    return np.append(times_s - half_s, times_s[-1] + half_s)


def _word_lines(words: Sequence[Word]) -> list[list[tuple[float, float, Word]]]:
    """Set words in lines of `_COLUMNS` letters: for each its left edge and width in letters; later lines are cut."""
    lines: list[list[tuple[float, float, Word]]] = []
    left = float(_COLUMNS)
    for word in words:
        width = max(3, min(len(word.text), _COLUMNS // 2)) + 1.0
        if left + width > _COLUMNS:
            if len(lines) == _MAX_LINES:
                break
            lines.append([])
            left = 0.0
        lines[-1].append((left, width, word))
        left += width + 0.5
    return lines


def _draw_words(axes: Axes, lines: Sequence[Sequence[tuple[float, float, Word]]], total: int) -> None:
    """Draw words in boxes, shaded by their share of the model's attention to the words, the share below each."""
    import matplotlib
    from matplotlib.patches import Rectangle

    axes.set_xlim(0, _AXES_IN / _COLUMN_IN)
    axes.set_ylim(max(1, len(lines)), 0)
    axes.axis("off")
    drawn = sum(map(len, lines))
    which = "words" if drawn == total else f"the first {drawn} of {total} words"
    axes.set_title(f"{which}, with their shares of the attention to the words", fontsize=10)
    if not lines:
        axes.text(0, 0.5, "none", va="center", color=GREY)
    heaviest = max((word.importance for line in lines for _, _, word in line), default=0.0) or 1.0
    shades = matplotlib.colormaps[ATTENTION_MAP]
    for row, line in enumerate(lines):
        for left, width, word in line:
            shade = shades(0.6 * word.importance / heaviest)
            edge, line_width = ("black", 1.4) if word.mattered else (GREY, 0.5)
            axes.add_patch(Rectangle((left, row + 0.06), width, 0.5, facecolor=shade, edgecolor=edge, lw=line_width))
            axes.text(
                left + width / 2,
                row + 0.31,
                shorten(word.text, _COLUMNS // 2),
                ha="center",
                va="center",
                fontfamily="DejaVu Sans Mono",
                fontsize=_WORD_PT,
                fontweight="bold" if word.mattered else "normal",
            )
            share = f"{word.importance:.0%}" if word.importance > 0 else "\u2013"
            axes.text(left + width / 2, row + 0.76, share, ha="center", va="center", fontsize=8)
