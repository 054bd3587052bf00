"""An evaluation as files: one PNG for each figure, and one page with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeser.figures.charts import answered_figure, confusion_figure, sessions_figure
from edgeser.figures.explanation import Explanation, explanation_figure
from edgeser.figures.page import Picture, page
from edgeser.figures.style import png, styled
from edgeser.runtime.files import check_folder, write_together
from edgeser.runtime.metrics import Metrics

PAGE = "report.html"


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        title: What was evaluated.
        command: The command that did it.
        metrics: Over all utterances together.
        sessions: By session; empty where there are none.
        session_name: What a session is: `held-out session` where training never saw it.
        explanations: Of a few utterances.
        facts: What else a reader should know, for example the corpus, by name.
        answered: Accuracy by the share of utterances that is answered, by what was taken out of rows.
    """

    title: str
    command: str
    metrics: Metrics
    sessions: Mapping[str, Metrics] = field(default_factory=dict)
    session_name: str = "session"
    explanations: Sequence[Explanation] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    answered: Mapping[str, Mapping[float, float]] = field(default_factory=dict)


def check_report(folder: Path) -> None:
    """Find out, before the work is done, whether a report can be drawn into a folder.

    Raises:
        InputError: The path, or something above it, is a file, or may not be written to.
        MissingDependencyError: matplotlib is not installed.
    """
    check_folder(folder, "write figures into")
    with styled():
        pass


def write_report(folder: Path, report: Report) -> list[Path]:
    """Draw every figure, then write them: when one fails, none is written.

    Files of an older report with the same names are replaced; others stay.

    Args:
        folder: Made where it is not there.
        report: What to draw.

    Returns:
        The files: `confusion.png`, `sessions.png` where there are sessions, `answered.png` where that is known,
        `explanation-1.png` and so on, `report.html` last.

    Raises:
        InputError: The path is a file, or not writable.
        MissingDependencyError: matplotlib is not installed.
    """
    check_report(folder)
    pictures = draw(report)
    text = page(report.title, report.command, report.facts, report.metrics, report.sessions, pictures)
    return write_files(folder, pictures, PAGE, text)


def write_files(folder: Path, pictures: Sequence[Picture], page_name: str, text: str) -> list[Path]:
    """Write figures that are drawn and the page that holds them, all or none; return their paths.

    Raises:
        InputError: The folder cannot be written to.
        EdgeSerError: There is no room.
    """
    write_together(folder, {**{picture.name: picture.png for picture in pictures}, page_name: text.encode()})
    return [*(folder / picture.name for picture in pictures), folder / page_name]


def draw(report: Report) -> list[Picture]:
    """Draw a report's figures, with what a reader who cannot see them is told."""
    pictures = [
        Picture(
            "confusion.png",
            png(confusion_figure(report.metrics)),
            "Confusion matrix: each row is a true emotion and adds up to 100%; counts stand below the shares.",
            _confusion_text(report.metrics),
        )
    ]
    if report.sessions:
        pictures.append(
            Picture(
                "sessions.png",
                png(sessions_figure(report.sessions, report.session_name)),
                f"Accuracies by {report.session_name}; lines are the means over the sessions, each weighing the same.",
                "Bars: " + "; ".join(f"{s}: WA {m.wa:.1%}, UA {m.ua:.1%}" for s, m in report.sessions.items()),
            )
        )
    if report.answered:
        pictures.append(
            Picture(
                "answered.png",
                png(answered_figure(report.answered)),
                "How many answers are right when only the surest are given; what was held out apart weighs the same.",
                "; ".join(
                    f"{name}: " + ", ".join(f"of {share:.0%} answered {value:.1%} right" for share, value in c.items())
                    for name, c in report.answered.items()
                ),
            )
        )
    for number, explanation in enumerate(report.explanations, 1):
        pictures.append(
            Picture(
                f"explanation-{number}.png",
                png(explanation_figure(explanation)),
                f"{explanation.name}: {explanation.headline}. {_explanation_caption(explanation)}",
                _explanation_text(explanation),
            )
        )
    return pictures


def _confusion_text(metrics: Metrics) -> str:
    rows = (
        f"of {total} {label}: " + ", ".join(f"{n} as {guess}" for guess, n in zip(metrics.labels, row, strict=True))
        for label, row, total in zip(metrics.labels, metrics.confusion, metrics.per_class, strict=True)
    )
    unanswered = f"; no speech found in {sum(metrics.unanswered)}" if metrics.unanswered else ""
    return "Recognised, " + "; ".join(rows) + unanswered


def _explanation_caption(explanation: Explanation) -> str:
    parts = []
    if explanation.result.spans:
        parts.append("Shaded: the most important fifth of the audio, with its share of the attention to the audio.")
    if explanation.result.words:
        parts.append("Below: the words with their shares of the attention to the words; framed ones mattered.")
    return " ".join(parts)


def _explanation_text(explanation: Explanation) -> str:
    result = explanation.result
    spans = ", ".join(f"{s.start_s:.2f} to {s.end_s:.2f} s ({s.importance:.0%})" for s in result.spans)
    words = ", ".join(f"{word.text} ({word.importance:.0%})" for word in result.words if word.mattered)
    return (
        f"Waveform of {explanation.name}, {result.duration_s:.1f} s. Moments that mattered: {spans or 'none'}. "
        f"Words that mattered: {words or 'none'}. Transcript: {result.transcript or 'none'}"
    )
