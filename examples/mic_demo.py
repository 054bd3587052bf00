"""Live emotion in the terminal: level, voice, words with the important ones highlighted, emotions, latency.

pip install 'edgeser[mic,asr,demo]'
python examples/mic_demo.py                                     the default microphone
python examples/mic_demo.py --device USB --record session       and keep audio and Events in a folder
python examples/mic_demo.py --wav edgeser/clips/03-01-04-01-01-02-19.flac    without a microphone
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

import edgeser
from edgeser.runtime.results import Result
from edgeser.runtime.sources import FileSource, Microphone, Recorded, Source
from edgeser.runtime.streams import event_row

COLOURS = {"angry": "red", "happy": "yellow", "neutral": "white", "sad": "blue"}
QUIETEST_DBFS = -70.0


def words(result: Result) -> Text:
    """Return the transcript, the words that mattered standing out."""
    text = Text()
    for word in result.words:
        text.append(word.text, "bold reverse" if word.mattered else "").append(" ")
    return text if result.words else Text("(no words)", "dim")


def bars(result: Result, width: int = 30) -> Text:
    """Return one bar for each emotion."""
    text = Text()
    for label, probability in result.probabilities.items():
        text.append(f"{label:<9}{probability:4.0%} ").append(
            "\u2588" * round(probability * width) + "\n", COLOURS.get(label, "cyan")
        )
    return text


def line(event: edgeser.Event) -> Text:
    """Return an utterance's line in the scroll-back."""
    text = Text(f"{event.start_s:7.1f} s  ", "dim")
    text.append(f"{event.label:<8}", f"bold {COLOURS.get(event.label, 'cyan')}")
    likely = "" if event.result.probability is None else f"{event.result.probability:4.0%}"
    trusted = "" if event.result.confidence is None else f"right {event.result.confidence:4.0%}  "
    text.append(f" {likely:4}  {trusted}{event.latency_ms:5.0f} ms  ", "dim")
    text.append_text(words(event.result))
    if event.words.value in ("doubtful", "late", "failed"):
        text.append(f" (words {event.words.value})", "dim")
    return text


class View:
    """What stands below the scroll-back: the meter, and the latest estimate."""

    def __init__(self, stream: edgeser.Stream) -> None:
        self.stream = stream
        self.event: edgeser.Event | None = None

    def __rich__(self) -> Panel:
        now = self.stream.activity
        filled = round(30 * max(0.0, 1 - now.level_dbfs / QUIETEST_DBFS))
        meter = Text("\u2588" * filled, "green" if now.speaking else "dim")
        meter.append("\u2591" * (30 - filled) + f" {now.level_dbfs:4.0f} dB  voice {now.voice:4.0%}  ")
        meter.append("speaking" if now.speaking else "silence", "bold green" if now.speaking else "dim")
        if self.event is None:
            return Panel(meter, title="EdgeSER")
        still = Text("\u2026 " if self.event.partial else "", "dim")
        return Panel(
            Group(meter, still.append_text(words(self.event.result)), bars(self.event.result)), title="EdgeSER"
        )


def keep(journal: TextIO | None, event: edgeser.Event, console: Console) -> TextIO | None:
    """Write an Event into the session's journal; a full disk ends the journal, not the demo."""
    try:
        if journal is not None:
            print(json.dumps(event_row(event), ensure_ascii=False), file=journal, flush=True)
    except OSError as error:
        console.print(f"[red]the Events are not kept any more: {error}[/]")
        return None
    return journal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wav", type=Path, help="a file instead of a microphone, played in real time")
    parser.add_argument("--device", help="a microphone's index, or a part of its name")
    parser.add_argument("--record", type=Path, help="a new folder for audio.wav and events.jsonl")
    parser.add_argument("--bundle", type=Path, help="a .edgeser file; the default bundle")
    parser.add_argument("--asr", default="auto", help="auto, vosk:MODEL, pocketsphinx or none")
    parser.add_argument("--deadline", type=float, default=3.0, help="seconds that words are waited for (3)")
    parser.add_argument("--answered", type=float, default=1.0, help="share to answer; the rest is unsure (1)")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    args = parser.parse_args()
    console = Console()
    try:
        source: Source = FileSource(args.wav, real_time=True) if args.wav else Microphone(args.device)
        journal = None
        if args.record:
            args.record.mkdir(parents=True, exist_ok=False)
            source = Recorded(source, args.record / "audio.wav")
            journal = (args.record / "events.jsonl").open("w", encoding="utf-8")
        runtime = edgeser.Runtime.load(args.bundle, asr=args.asr)
        console.print(
            f"{runtime.bundle.manifest.name}, {runtime.engine.name}, words by {runtime.asr.name}; Ctrl-C ends"
        )
        options = edgeser.StreamOptions(partial=True, asr_deadline_s=args.deadline, answered=args.answered)
        with runtime.open_stream(options=options) as stream:
            stream.capture(source)
            if args.seconds:
                timer = threading.Timer(args.seconds, stream.end)
                timer.daemon = True  # Ctrl-C does not wait for it
                timer.start()
            view = View(stream)
            with Live(view, console=console, refresh_per_second=15, transient=True):
                for event in stream:
                    view.event = event
                    if not event.partial:
                        console.print(line(event))
                        journal = keep(journal, event, console)
            lost = stream.stats
        if lost.dropped or lost.lost_s:
            console.print(f"too slow: {lost.dropped} utterances dropped, {lost.lost_s:.1f} s lost")
    except KeyboardInterrupt:
        return 130
    except (edgeser.EdgeSerError, FileExistsError) as error:
        print(f"mic_demo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
