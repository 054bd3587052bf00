"""Listen to a microphone, a file or a pipe, and print one line for each utterance.

examples:
  edgeser listen                                   the default microphone
  edgeser listen --device USB --partial            with estimates while someone speaks
  edgeser listen --wav meeting.flac --json
  arecord -q -t raw -f S16_LE -r 16000 | edgeser listen --pcm
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edgeser.cli.options import add_json_option, add_runtime_options, load_runtime, positive
from edgeser.runtime.errors import InputError
from edgeser.runtime.results import result_row
from edgeser.runtime.sources import FileSource, PcmSource, Source
from edgeser.runtime.streams import Event, MetricsServer, StreamOptions, Words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--device", help="a microphone's index, or a part of its name")
    source.add_argument("--wav", type=Path, metavar="FILE", help="a WAV, FLAC or OGG file instead of a microphone")
    source.add_argument("--pcm", action="store_true", help="raw 16-bit mono samples on standard input")
    parser.add_argument("--rate", type=positive, default=16_000, help="of --pcm, in Hz (16000)")
    parser.add_argument("--real-time", action="store_true", help="play --wav as fast as it was spoken")
    parser.add_argument("--partial", action="store_true", help="also estimates while someone speaks")
    parser.add_argument("--deadline", type=float, default=3.0, help="seconds that words are waited for, live (3)")
    parser.add_argument("--metrics", type=int, metavar="PORT", help="counters for Prometheus on this machine's PORT")
    add_runtime_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    source = _source(args)
    options = StreamOptions(partial=args.partial, asr_deadline_s=args.deadline)
    with load_runtime(args) as runtime, runtime.open_stream(options=options) as stream:
        server = None if args.metrics is None else MetricsServer(lambda: stream.stats, args.metrics)
        stream.capture(source)
        try:
            for event in stream:
                print(json.dumps(event_row(event), ensure_ascii=False) if args.json else describe(event), flush=True)
        finally:
            if server is not None:
                server.close()
            _report(stream.stats.dropped, stream.stats.lost_s)
    return 0


def event_row(event: Event) -> dict[str, Any]:
    """Return an Event as a flat row of plain values."""
    return {
        "utterance": event.utterance,
        "partial": event.partial,
        "start_s": round(event.start_s, 3),
        "end_s": round(event.end_s, 3),
        "ending": None if event.ending is None else event.ending.value,
        **result_row(event.result),
        "words_from": event.words.value,
        "latency_ms": round(event.latency_ms, 1),
        "dropped": event.dropped,
        "lost_s": round(event.lost_s, 3),
        "time_s": round(event.time_s, 3),
    }


def describe(event: Event) -> str:
    """Return an Event as a line of text."""
    result = event.result
    words = " ".join(f"*{word.text}*" if word.mattered else word.text for word in result.words)
    said = f"  \u201c{words}\u201d" if words else ""
    why = "" if event.words in (Words.HEARD, Words.OFF) else f"  (words {event.words.value})"
    mark = "\u2026" if event.partial else " "
    return (
        f"{event.start_s:8.1f} - {event.end_s:.1f} s {mark} {result.label:<8} {result.probabilities[result.label]:4.0%}"
        f"  {event.latency_ms:5.0f} ms{said}{why}"
    )


def _source(args: argparse.Namespace) -> Source:
    if args.real_time and not args.wav:
        raise InputError("--real-time: got no --wav, expected one: only a file can be played at another speed")
    if args.wav:
        return FileSource(args.wav, args.real_time)
    if args.pcm:
        return PcmSource(rate=args.rate)
    from edgeser.runtime.sources import Microphone

    device = args.device
    return Microphone(int(device) if device is not None and device.isdecimal() else device)


def _report(dropped: int, lost_s: float) -> None:
    if dropped or lost_s:
        print(f"too slow for this audio: {dropped} utterances dropped, {lost_s:.1f} s lost", file=sys.stderr)
