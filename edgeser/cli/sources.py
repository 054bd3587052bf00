"""Where the audio of a stream comes from: options that `listen` and `serve` share."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from edgeser.cli.options import add_answered_option, check_state, positive
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import check_file
from edgeser.runtime.normalization import NONE, NORMALIZE, RUN
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.running_mean import RunningMean
from edgeser.runtime.sources import PCM_FORMATS, FileSource, Microphone, PcmSource, Source
from edgeser.runtime.streams import Stream, StreamOptions, StreamStats


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """Add the source, and how a stream treats it."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--device", help="a microphone's index, or a part of its name")
    source.add_argument("--wav", type=Path, metavar="FILE", help="a recording instead of a microphone")
    source.add_argument("--pcm", action="store_true", help="raw samples on standard input, little endian, interleaved")
    parser.add_argument("--rate", type=positive, metavar="HZ", help="of --pcm, in Hz (16000)")
    parser.add_argument("--channels", type=positive, metavar="N", help="of --pcm (1); their mean is heard")
    parser.add_argument("--format", choices=PCM_FORMATS, help="of --pcm (int16); float32 has full scale 1.0")
    parser.add_argument("--real-time", action="store_true", help="play --wav as fast as it was spoken")
    parser.add_argument("--partial", action="store_true", help="also estimates while someone speaks")
    parser.add_argument(
        "--normalize",
        choices=[NONE, RUN],
        help="what is taken out of the audio's rows: nothing, or the mean of what was heard before "
        f"({NORMALIZE}; {RUN} with --state)",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="go on with the mean that this file keeps, if it is there, and keep in it what was heard at the end",
    )
    add_answered_option(parser)
    parser.add_argument("--deadline", type=float, default=3.0, help="seconds that words are waited for, live (3)")


def open_source(args: argparse.Namespace) -> Source:
    """Return the source that the options name, not opened yet.

    Raises:
        InputError: The options do not go together, or a value is out of range.
    """
    if args.real_time and not args.wav:
        raise InputError("--real-time: got no --wav, expected one: only a file can be played at another speed")
    for name in ("rate", "channels", "format"):
        given = getattr(args, name)
        if given is not None and not args.pcm:
            raise InputError(
                f"--{name}: got {given} without --pcm: only raw samples do not say themselves what they are"
            )
    if args.wav:
        return FileSource(args.wav, args.real_time)
    if args.pcm:
        return PcmSource(None, args.rate or 16_000, args.channels or 1, args.format or "int16")
    return Microphone(args.device)


def stream_options(args: argparse.Namespace) -> StreamOptions:
    """Return the stream's options.

    Raises:
        InputError: They do not go together, or the state's file is damaged or could not be written.
    """
    normalize, state = args.normalize, None
    if args.state is not None:
        check_state(args)
        check_file(args.state)
        normalize, state = RUN, RunningMean.load(args.state) if args.state.exists() else None
    return StreamOptions(
        partial=args.partial,
        asr_deadline_s=args.deadline,
        normalize=normalize,
        state=state,
        answered=args.answered,
    )


@contextlib.contextmanager
def opened_stream(runtime: Runtime, args: argparse.Namespace) -> Iterator[Stream]:
    """Open a stream; at its end, however it comes, what it has heard goes into the file that `--state` names."""
    with runtime.open_stream(options=stream_options(args)) as stream:
        try:
            yield stream
        finally:
            if args.state is not None and stream.state is not None:
                stream.state.save(args.state)


def report_losses(stats: StreamStats) -> None:
    """Say on standard error what was lost, if anything."""
    if stats.dropped or stats.lost_s:
        print(
            f"too slow for this audio: {stats.dropped} utterances dropped, {stats.lost_s:.1f} s lost", file=sys.stderr
        )
