"""Run the default bundle over the example clips: transcript, emotions, the words and moments that mattered.

Words that mattered stand in *stars*; moments are seconds from the start of the clip.

examples:
  edgeser demo
  edgeser demo my-recording.wav
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeser.cli.options import add_answered_option, add_runtime_options, load_runtime, show
from edgeser.clips import example_clips
from edgeser.corpora.ravdess import parse_ravdess
from edgeser.runtime.asr import NoAsr
from edgeser.runtime.labels import NO_SPEECH, UNSURE
from edgeser.runtime.results import Result
from edgeser.runtime.scoring import find_recordings

_BAR = 30
_MOMENTS = 4
_LEGEND = "*words* and moments are what an answer came from"
_KNOWN = "the default model knows these four actors, from other recordings: a stranger is harder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", type=Path, metavar="FILE", help="audio files; the example clips")
    add_answered_option(parser)
    add_runtime_options(parser)


def run(args: argparse.Namespace) -> int:
    recordings = find_recordings(args.paths or example_clips())
    with load_runtime(args) as runtime:
        runtime.check_answered(args.answered)
        manifest = runtime.bundle.manifest
        words = "the voice alone" if runtime.asr.name == NoAsr.name else f"words by {runtime.asr.name}"
        show(f"{manifest.name} {manifest.version}, {runtime.engine.name}, {words}")
        show(_LEGEND if args.paths else f"{_LEGEND}\n{_KNOWN}")
        for recording in recordings:
            show(f"\n{_title(recording.path)}")
            show(describe(runtime.recognize(recording.path, answered=args.answered)))
    return 0


def describe(result: Result) -> str:
    """Return a result as a few lines of text."""
    words = " ".join(f"*{word.text}*" if word.mattered else word.text for word in result.words)
    said = f"\u201c{words}\u201d" if words else "(no words)" if result.has_speech else f"({NO_SPEECH})"
    lines = [f"  {result.duration_s:.1f} s   {said}", f"  speech   {result.speech_share:.0%} of it"]
    for label, probability in result.probabilities.items():
        bar = "\u2588" * round(probability * _BAR)
        mark = "\u2190" if label == result.label else ""
        lines.append(f"  {label:<9}{probability:6.1%}  {bar:<{_BAR}} {mark}".rstrip())
    if result.confidence is not None:
        unsure = f": {UNSURE}" if result.label == UNSURE else ""
        lines.append(f"  right with {result.confidence:.0%} probability, for a voice that was never heard{unsure}")
    weightiest = sorted(result.spans, key=lambda span: span.importance)[-_MOMENTS:]
    moments = ", ".join(f"{s.start_s:.2f}-{s.end_s:.2f} s" for s in sorted(weightiest, key=lambda s: s.start_s))
    lines.append(f"  moments  {moments or 'none'}")
    timings = result.timings
    lines.append(
        f"  took     {timings.total_ms:.0f} ms: finding speech {timings.vad_ms:.1f}, words {timings.asr_ms:.0f}, "
        f"audio features {timings.audio_ms:.0f}, text features {timings.text_ms:.0f}, model {timings.engine_ms:.1f}"
    )
    return "\n".join(lines)


def _title(recording: Path) -> str:
    """Return a recording's name, and what was acted where it is one of RAVDESS."""
    acted = parse_ravdess(recording)
    what = "" if acted is None else f"   \u201c{acted.transcript}\u201d acted {acted.emotion}"
    return f"{recording.name}{what}"
