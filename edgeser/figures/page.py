"""Pages: one HTML file with everything in it, no scripts, nothing fetched from anywhere.

Whatever comes from data is escaped, by the few functions here that make tags.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeser.runtime.metrics import Metrics

_CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 0.5rem 0; }
th, td { padding: 0.2rem 0.9rem 0.2rem 0; border-bottom: 1px solid #ccc; text-align: right;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child, .facts td { text-align: left; }
.facts td { overflow-wrap: anywhere; }
tr.mean td { font-weight: bold; border-top: 2px solid #1a1a1a; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: 0.9rem; overflow-wrap: anywhere; }
pre { background: #f3f3f3; padding: 0.6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
"""

ACCURACIES = (
    "WA: weighted accuracy, the share that is right. UA: unweighted accuracy, the mean recall of the classes. "
    "WF1: F1 weighted by class frequency."
)
"""What the measures mean, for readers of a page."""


@dataclass(frozen=True)
class Picture:
    """A figure on the page.

    Attributes:
        name: Its file name.
        png: Content of the PNG.
        caption: What is to be seen.
        text: The same for those who cannot see it.
    """

    name: str
    png: bytes
    caption: str
    text: str


def page(
    title: str,
    command: str,
    facts: Mapping[str, str],
    metrics: Metrics,
    sessions: Mapping[str, Metrics],
    pictures: Sequence[Picture],
) -> str:
    """Return the page of an evaluation."""
    parts = [
        element("h2", "All utterances together"),
        table(("WA", "UA", "WF1", "utterances"), [_accuracies(metrics)]),
        element("p", ACCURACIES),
        element("h2", "Recall of each emotion"),
        table(("emotion", "recall", "utterances"), _recalls(metrics)),
    ]
    if sessions:
        parts += [element("h2", "Sessions"), _session_table(sessions)]
    parts += [element("h2", "Figures"), *map(figure_element, pictures)]
    return document(title, command, facts, parts)


def document(title: str, command: str, facts: Mapping[str, str], parts: Iterable[str], style: str = "") -> str:
    """Return a whole page: the title and the facts, the parts, and last the command that made it.

    Args:
        title: Of the page.
        command: What made it.
        facts: What a reader should know first, by name.
        parts: HTML, made by the functions below.
        style: CSS rules that this page needs besides those of every page.
    """
    made_by = [element("h2", "Made by"), element("pre", command)]
    body = "\n".join(part for part in (element("h1", title), facts_table(facts), *parts, *made_by) if part)
    text = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{element('title', title)}\n<style>{_CSS}{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    return text.encode("utf-8", "replace").decode("utf-8")  # file names may hold bytes that are no text


def element(tag: str, text: str, attributes: str = "") -> str:
    """Return a tag with escaped text in it; `attributes` stand as they are, with a space before."""
    return f"<{tag}{attributes}>{html.escape(text)}</{tag}>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], last: Sequence[str] = (), kind: str = "") -> str:
    """Return a table; `last` is set apart from the rows above it, `kind` is its class for a page's style."""
    lines = ["<tr>" + "".join(element("th", cell, ' scope="col"') for cell in header) + "</tr>"]
    lines += ["<tr>" + "".join(element("td", cell) for cell in row) + "</tr>" for row in rows]
    if last:
        lines.append('<tr class="mean">' + "".join(element("td", cell) for cell in last) + "</tr>")
    tag = f'<table class="{kind}">' if kind else "<table>"
    return f"{tag}\n" + "\n".join(lines) + "\n</table>"


def facts_table(facts: Mapping[str, str]) -> str:
    """Return a table of names and values; nothing where there are none."""
    head = ' scope="row"'
    rows = (f"<tr>{element('th', name, head)}{element('td', value)}</tr>" for name, value in facts.items())
    return '<table class="facts">\n' + "\n".join(rows) + "\n</table>" if facts else ""


def _accuracies(metrics: Metrics) -> tuple[str, ...]:
    return (f"{metrics.wa:.1%}", f"{metrics.ua:.1%}", f"{metrics.wf1:.1%}", str(metrics.count))


def _recalls(metrics: Metrics) -> Iterable[tuple[str, str, str]]:
    for label, count in zip(metrics.labels, metrics.per_class, strict=True):
        recall = metrics.recall.get(label)
        yield label, "\u2013" if recall is None else f"{recall:.1%}", str(count)


def _session_table(sessions: Mapping[str, Metrics]) -> str:
    count = len(sessions)
    mean = [sum(getattr(m, name) for m in sessions.values()) / count for name in ("wa", "ua", "wf1")]
    total = sum(m.count for m in sessions.values())
    return table(
        ("session", "WA", "UA", "WF1", "utterances"),
        [(name, *_accuracies(metrics)) for name, metrics in sessions.items()],
        ("mean", *(f"{value:.1%}" for value in mean), str(total)),
    )


def figure_element(picture: Picture) -> str:
    """Return a picture with its caption; its bytes are part of the page."""
    data = base64.b64encode(picture.png).decode("ascii")
    image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(picture.text)}">'
    return f"<figure>\n{image}\n{element('figcaption', picture.caption)}\n</figure>"
