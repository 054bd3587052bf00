"""Listen to a microphone, a file or a pipe, and print one line for each utterance.

examples:
  edgeser listen                                   the default microphone
  edgeser listen --device USB --partial            with estimates while someone speaks
  edgeser listen --wav meeting.flac --json
  edgeser listen --state kitchen.state             goes on from the mean of what was heard here before
  arecord -q -t raw -f S16_LE -r 16000 | edgeser listen --pcm
  arecord -q -t raw -f S32_LE -r 48000 -c 4 | edgeser listen --pcm --rate 48000 --channels 4 --format int32
"""

from __future__ import annotations

import argparse

from edgeser.cli.options import add_json_option, add_runtime_options, load_runtime, show
from edgeser.cli.sources import add_stream_options, open_source, opened_stream, report_losses
from edgeser.runtime.names import json_line
from edgeser.runtime.streams import Event, MetricsServer, Words, event_row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stream_options(parser)
    parser.add_argument("--metrics", type=int, metavar="PORT", help="counters for Prometheus on this machine's PORT")
    add_runtime_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    source = open_source(args)
    with load_runtime(args) as runtime, opened_stream(runtime, args) as stream:
        server = None if args.metrics is None else MetricsServer(lambda: stream.stats, args.metrics)
        stream.capture(source)
        try:
            for event in stream:
                show(json_line(event_row(event)) if args.json else describe(event))
        finally:
            if server is not None:
                server.close()
            report_losses(stream.stats)
    return 0


def describe(event: Event) -> str:
    """Return an Event as a line of text."""
    result = event.result
    words = " ".join(f"*{word.text}*" if word.mattered else word.text for word in result.words)
    said = f"  \u201c{words}\u201d" if words else ""
    why = "" if event.words in (Words.HEARD, Words.OFF) else f"  (words {event.words.value})"
    mark = "\u2026" if event.partial else " "
    likely = "    " if result.probability is None else f"{result.probability:4.0%}"
    trusted = "" if result.confidence is None else f"  right {result.confidence:4.0%}"
    return (
        f"{event.start_s:8.1f} - {event.end_s:.1f} s {mark} {result.label:<8} {likely}{trusted}"
        f"  {event.latency_ms:5.0f} ms{said}{why}"
    )
