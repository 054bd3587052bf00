"""Run the default bundle over the example clips: transcript, emotions, the words and moments that mattered.

Words that mattered stand in *stars*; moments are seconds from the start of the clip.

examples:
  edgeser demo
  edgeser demo my-recording.wav
"""

from __future__ import annotations

import argparse
from pathlib import Path

import edgeser
from edgeser.cli.options import add_answered_option, add_runtime_options, load_runtime, show
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import NO_SPEECH, UNSURE
from edgeser.runtime.results import Result
from edgeser.runtime.scoring import find_recordings

_BAR = 30
_MOMENTS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", type=Path, metavar="FILE", help="audio files; the example clips")
    add_answered_option(parser)
    add_runtime_options(parser)


def run(args: argparse.Namespace) -> int:
    recordings = find_recordings(args.paths or _example_clips())
    with load_runtime(args) as runtime:
        runtime.check_answered(args.answered)
        manifest = runtime.bundle.manifest
        show(f"{manifest.name} {manifest.version}, {runtime.engine.name}, words by {runtime.asr.name}")
        for recording in recordings:
            show(f"\n{recording.path.name}")
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


def _example_clips() -> list[Path]:
    clips = sorted((Path(edgeser.__file__).parents[1] / "examples" / "clips").glob("*.flac"))
    if not clips:
        raise InputError("demo: the example clips are not here (they come with the source): name an audio file")
    return clips
