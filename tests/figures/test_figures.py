"""Figures and the page, from the default bundle's answers to real clips."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from edgeser.figures import (
    Explanation,
    Report,
    check_report,
    confusion_figure,
    explain,
    explanation_figure,
    report,
    sessions_figure,
    write_report,
)
from edgeser.figures.explanation import spread
from edgeser.figures.style import png
from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.runtime.metrics import Metrics, measure
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import explain_audio
from edgeser.runtime.scoring import Recording

LABELS = ("angry", "happy", "neutral", "sad")
NASTY = "<b>I & \"you\"</b> $\\frac{1}$ </figcaption><script src='x'>alert(1)</script> 你好 " + "so " * 120
WIDTH = 900


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime.load(asr="none", self_test=False)


@pytest.fixture(scope="module")
def explained(runtime: Runtime, clips: list[Path]) -> list[Explanation]:
    recordings = [
        Recording("plain", clips[0], "Dogs are sitting by the door", "neutral"),
        Recording("<i>nasty</i>\n$x_", clips[1], NASTY, "happy"),
        Recording("no words", clips[2], "", None),
    ]
    return explain(runtime, recordings)


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return measure(["angry", "happy", "happy", "neutral"], ["angry", "happy", "angry", "neutral"], LABELS)


def pixels(content: bytes) -> NDArray[np.float32]:
    return np.asarray(imread(io.BytesIO(content)))[..., :3]


def share_of(image: NDArray[np.float32], colour: tuple[float, float, float], tolerance: float = 0.12) -> float:
    return float((np.abs(image - np.array(colour)).max(axis=-1) < tolerance).mean())


def texts(figure: object) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]  # type: ignore[attr-defined]


class Tags(HTMLParser):
    """Collects tags and attributes; void tags aside, every tag must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_confusion_matrix_shows_shares_counts_and_empty_classes(metrics: Metrics) -> None:
    figure = confusion_figure(metrics)
    assert {"50%\n1", "100%\n1", "0%\n0", "\u2013\n0", "angry\n(2)", "sad\n(0)"} <= set(texts(figure))
    assert texts(figure).count("50%\n1") == 2
    assert {"true emotion (utterances)", "recognised emotion"} <= set(texts(figure))
    image = pixels(png(figure))
    assert share_of(image, (0.03, 0.19, 0.42)) > 0.05  # the full cells, in the darkest blue


def test_sessions_are_bars_with_their_means_as_lines(metrics: Metrics) -> None:
    other = measure(["angry", "sad"], ["angry", "angry"], LABELS)
    figure = sessions_figure({"1": metrics, "$2_": other}, "held-out session")
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == pytest.approx([75.0, 50.0, 100 * metrics.ua, 50.0])
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == pytest.approx([62.5, (100 * metrics.ua + 50) / 2])
    assert {"mean WA 62.5%", "$2_\n(2)", "accuracy (%)", "held-out session (utterances)"} <= set(texts(figure))
    image = pixels(png(figure))
    assert share_of(image, (0.0, 0.45, 0.70)) > 0.05
    assert share_of(image, (0.90, 0.62, 0.0)) > 0.05


def test_many_sessions_still_fit(metrics: Metrics) -> None:
    image = pixels(png(sessions_figure({f"speaker number {i}": metrics for i in range(30)})))
    assert image.shape[1] == 2400
    with pytest.raises(InputError, match="sessions: got none"):
        sessions_figure({})


def test_importance_is_what_the_spans_came_from(runtime: Runtime, explained: list[Explanation]) -> None:
    frontend = runtime.bundle.frontend("audio")
    for explanation in explained:
        rows = explanation.importance
        assert rows.shape == explanation.times_s.shape
        assert 0 < explanation.times_s[0] < explanation.times_s[-1] < explanation.result.heard_s
        moments = np.round(explanation.times_s / 0.02 - 0.5).astype(int)  # rows of 20 ms, those of pauses left out
        spans = explain_audio(rows, moments, frontend)  # type: ignore[arg-type]
        assert [(s.start_s, s.end_s) for s in spans] == [(s.start_s, s.end_s) for s in explanation.result.spans]
        assert [s.importance for s in spans] == pytest.approx([s.importance for s in explanation.result.spans])


def test_an_explanation_shows_audio_moments_and_words(explained: list[Explanation]) -> None:
    figure = explanation_figure(explained[0])
    shown = texts(figure)
    result = explained[0].result
    assert f"recognised: {result.label} ({result.probabilities[result.label]:.0%}); true: neutral" in shown
    assert {"Dogs", "sitting", "door", "plain", "time (s)", "amplitude\n(full scale 1)"} <= set(shown)
    assert f"{max(span.importance for span in result.spans):.0%}" in shown
    image = pixels(png(figure))
    assert image.shape[1] == WIDTH
    assert share_of(image, (0.0, 0.45, 0.70)) > 0.004  # the waveform
    assert share_of(image, (0.97, 0.89, 0.70)) > 0.01  # the spans behind it
    assert share_of(image, (0.92, 0.66, 0.5)) > 0.001  # the importance


def test_odd_utterances_are_drawn(explained: list[Explanation], recwarn: pytest.WarningsRecorder) -> None:
    """Markup, dollar signs, letters that the font lacks, too many words, none, no importance: no error, no warning."""
    nasty, silent = explained[1], explained[2]
    assert any(text.startswith("the first ") and " of 127 words" in text for text in texts(explanation_figure(nasty)))
    assert "none" in texts(explanation_figure(silent))
    assert "true" not in silent.headline
    bare = dataclasses.replace(
        silent,
        importance=silent.importance[:0],
        times_s=silent.times_s[:0],
        result=dataclasses.replace(silent.result, spans=()),
    )
    assert "the model tells none" in texts(explanation_figure(bare))
    short = dataclasses.replace(
        silent,
        samples=silent.samples[:410],
        importance=silent.importance[:1],
        times_s=silent.times_s[:1],
        result=dataclasses.replace(silent.result, duration_s=410 / 16000, heard_s=410 / 16000),
    )
    for explanation in (nasty, bare, short):
        assert pixels(png(explanation_figure(explanation))).std() > 0.05
    assert [str(warning.message) for warning in recwarn] == []


def test_of_a_long_recording_the_part_not_heard_is_marked(runtime: Runtime, clips: list[Path], tmp_path: Path) -> None:
    import soundfile

    samples = np.concatenate([soundfile.read(clip, dtype="float32")[0] for clip in clips])
    soundfile.write(tmp_path / "long.wav", samples, 16000)
    (long,) = explain(runtime, [Recording("long", tmp_path / "long.wav", "")])
    figure = explanation_figure(long)
    assert f" not heard, to {samples.size / 16000:.1f} s" in texts(figure)
    assert figure.axes[0].get_xlim() == pytest.approx((0, 1.25 * long.result.heard_s))


def test_a_report_is_pngs_and_one_page_with_everything_in_it(
    metrics: Metrics, explained: list[Explanation], tmp_path: Path
) -> None:
    facts = {"corpus": "<img src=x onerror=alert(1)>", "file \udcff": "not UTF-8: \udcff"}
    what = Report(
        "Evaluation of <a>", 'edgeser evaluate "<a>"', metrics, {"</td>1": metrics}, "session", explained[:2], facts
    )
    files = write_report(tmp_path / "new" / "figures", what)
    names = ["confusion.png", "sessions.png", *(f"explanation-{n}.png" for n in (1, 2)), "report.html"]
    assert [file.name for file in files] == names
    assert sorted(tmp_path.glob("new/figures/*")) == sorted(files)
    for file in files[:-1]:
        assert pixels(file.read_bytes()).std() > 0.05, file
    text = files[-1].read_text(encoding="utf-8")
    page = Tags(text)
    assert text.count('src="data:image/png;base64,') == page.tags["img"] == 4
    assert page.tags["figure"] == page.tags["figcaption"] == 4
    assert all(len(value) > 20 for name, value in page.attributes if name == "alt")
    assert sum(name == "alt" for name, _ in page.attributes) == 4
    assert not {"script", "link", "iframe", "b", "a", "i"} & set(page.tags)
    assert {name for name, _ in page.attributes} <= {
        "lang",
        "charset",
        "name",
        "content",
        "class",
        "scope",
        "src",
        "alt",
    }
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    for shown in (
        "Evaluation of <a>",
        'edgeser evaluate "<a>"',
        "<i>nasty</i>",
        "WF1",
        "50.0%",
        "</td>1",
        facts["corpus"],
    ):
        assert shown in page.text
    assert "&lt;script src=&#x27;x&#x27;&gt;" in text
    assert any(NASTY.strip() in value for name, value in page.attributes if name == "alt")


def test_without_sessions_there_is_no_session_figure(metrics: Metrics, tmp_path: Path) -> None:
    files = write_report(tmp_path, Report("x", "edgeser evaluate x", metrics))
    assert [file.name for file in files] == ["confusion.png", "report.html"]
    assert "<h2>Sessions</h2>" not in files[-1].read_text(encoding="utf-8")


def test_when_a_figure_fails_nothing_is_written(
    metrics: Metrics, explained: list[Explanation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Explanation) -> object:
        raise RuntimeError("no more ink")

    old = write_report(tmp_path / "old", Report("x", "edgeser evaluate x", metrics))
    before = {file: file.read_bytes() for file in old}
    monkeypatch.setattr(report, "explanation_figure", failing)
    what = Report("y", "edgeser evaluate y", metrics, explanations=explained)
    for folder in ("old", "new"):
        with pytest.raises(RuntimeError, match="no more ink"):
            write_report(tmp_path / folder, what)
    assert not (tmp_path / "new").exists()
    assert {file: file.read_bytes() for file in (tmp_path / "old").iterdir()} == before


def test_a_place_that_cannot_hold_figures_is_refused(
    metrics: Metrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="is a file, expected a folder"):
            write_report(place, Report("x", "edgeser evaluate x", metrics))
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "further")
    with pytest.raises(InputError, match=r"cannot be written \(File exists\)"):
        write_report(tmp_path / "link", Report("x", "edgeser evaluate x", metrics))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="may not be written to"):
        check_report(tmp_path / "new")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"edgeser\[train\]"):
        check_report(tmp_path)


def test_drawing_needs_no_display_and_no_pyplot() -> None:
    code = (
        "import sys; from edgeser.figures import confusion_figure\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from edgeser.figures.style import png; from edgeser.runtime.metrics import measure\n"
        "assert png(confusion_figure(measure(['a'], ['a'], ['a', 'b']))).startswith(b'\\x89PNG')\n"
        "assert not {'matplotlib.pyplot', 'torch', 'lightning'} & set(sys.modules), 'loaded'"
    )
    settings = {**os.environ, "MPLBACKEND": "module://nothing", "DISPLAY": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=settings
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("count", "expected"), [(1, "a5"), (4, "a2 a7 h0 s1"), (5, "a2 a7 h0 s0 s2"), (99, "all")])
def test_explained_utterances_are_spread_over_classes_and_corpus(count: int, expected: str) -> None:
    sizes = {"angry": 10, "happy": 1, "sad": 3}
    recordings = [Recording(f"{e[0]}{i}", Path("x.wav"), "", e) for e, size in sizes.items() for i in range(size)]
    names = [recording.id for recording in spread(recordings, LABELS, count)]
    if expected == "all":
        assert names == [recording.id for recording in recordings]
    else:
        assert names == expected.split()
