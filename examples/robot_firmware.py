"""A robot's control loop at 50 Hz with speech emotion inside it, and what that does to the loop's timing.

  python examples/robot_firmware.py                                   30 s of the example clips
  python examples/robot_firmware.py --wav talk.wav --seconds 300 --asr none

Each tick of 20 ms reads 20 ms of audio, pushes them without waiting, and moves the head towards an angle that belongs
to the last Event's emotion. The same loop runs first without EdgeSER, then with it, and a table compares the two:
jitter is how much later than planned a tick began, missed are ticks whose work ended after the next should begin.

All threads of a Python process share one interpreter, so the Runtime runs in a process of its own, an
`edgeser.IsolatedStream`: the loop only passes samples on and fetches Events. `--inside` runs it in the loop's process,
to see what that is worth. The loop's thread asks Linux for real-time priority, which needs root or an `rtprio` limit;
without it the loop goes on. `--priority 0` does not ask.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeser import EdgeSerError, Event, InputError, IsolatedStream, Runtime, Stream
from edgeser.clips import CLIPS
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio

TICK_S = 0.020
TICK_SAMPLES = round(TICK_S * SAMPLE_RATE)
PAUSE_S = 1.0  # between two clips, longer than the silence that ends an utterance
HEAD_DEGREES = {"happy": 20.0, "neutral": 0.0, "sad": -25.0, "angry": -10.0}
HEAD_TIME_S = 0.5  # the head has gone 63 % of its way after so long


@dataclass(frozen=True)
class Timing:
    """What a loop measured: each tick's start after its time in ms, and how many ticks overran."""

    late_ms: NDArray[np.float64]
    missed: int

    def row(self, name: str) -> str:
        times = "".join(f"{ms:>9.2f}" for ms in (*np.percentile(self.late_ms, (50, 95, 99)), self.late_ms.max()))
        return f"{name:<18}{len(self.late_ms):>7}{self.missed:>8}{times}"


class Robot:
    """Ears that play a recording for ever, and a head that follows the mood."""

    def __init__(self, audio: Samples) -> None:
        self._audio = audio
        self._target_degrees = 0.0
        self.head_degrees = 0.0
        self.heard: list[str] = []

    def react(self, event: Event) -> None:
        """Follow an Event."""
        self.heard.append(event.label)
        self._target_degrees = HEAD_DEGREES.get(event.label, 0.0)

    def ears(self) -> Iterator[Samples]:
        """Yield 20 ms at a time."""
        for begin in itertools.count(step=TICK_SAMPLES):
            yield np.take(self._audio, np.arange(begin, begin + TICK_SAMPLES), mode="wrap")

    def move(self) -> None:
        """Take one step of a first-order low-pass filter."""
        self.head_degrees += (self._target_degrees - self.head_degrees) * TICK_S / (HEAD_TIME_S + TICK_S)


def control_loop(robot: Robot, seconds: float, listen: Callable[[Samples], Event | None]) -> Timing:
    """Run the loop by absolute deadlines: a late tick does not move the later ones."""
    ears, late_ms, missed = robot.ears(), [], 0
    start = time.perf_counter() + TICK_S
    for tick in range(max(1, round(seconds / TICK_S))):
        due = start + tick * TICK_S
        time.sleep(max(0.0, due - time.perf_counter()))
        late_ms.append((time.perf_counter() - due) * 1e3)
        event = listen(next(ears))
        if event is not None:
            robot.react(event)
        robot.move()
        missed += time.perf_counter() > due + TICK_S
    return Timing(np.array(late_ms), missed)


def ask_for_priority(priority: int) -> str:
    """Give this thread, not those it starts later, real-time priority; return what came of it."""
    if priority == 0:
        return "normal priority"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except (OSError, AttributeError) as error:  # AttributeError: not Linux
        return f"normal priority, real-time refused: {error}"
    return f"real-time priority {priority}"


@contextlib.contextmanager
def open_stream(args: argparse.Namespace) -> Iterator[Stream | IsolatedStream]:
    """Open the stream, in this process or in one of its own."""
    settings = {"asr": args.asr, "threads": args.threads}
    if not args.inside:
        with IsolatedStream(bundle=args.bundle, **settings) as stream:
            yield stream
        return
    with Runtime.load(args.bundle, **settings) as runtime, runtime.open_stream() as inside:
        yield inside


def recording(wav: Path) -> Samples:
    """Return a file's samples, or those of a folder's FLAC files, with a pause after each."""
    pause = np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32)
    files = sorted(wav.glob("*.flac")) if wav.is_dir() else [wav]
    if not files:
        raise InputError(f"{wav}: holds no FLAC files, expected some, or one file")
    return np.concatenate([part for file in files for part in (load_audio(file), pause)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wav", type=Path, default=CLIPS, help="what the robot hears, again and again")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each of the two loops runs (30)")
    parser.add_argument("--bundle", help="a .edgeser file; the default bundle")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (1)")
    parser.add_argument("--asr", default="auto", help="who hears the words; none for the voice alone")
    parser.add_argument("--inside", action="store_true", help="the Runtime in this process, to see what it costs")
    parser.add_argument(
        "--priority", type=int, default=10, help="of the loop's thread, 1 to 99 (10); 0 for a normal one"
    )
    args = parser.parse_args()
    try:
        audio = recording(args.wav)
        with open_stream(args) as stream:
            priority = ask_for_priority(args.priority)
            alone = control_loop(Robot(audio), args.seconds, lambda chunk: None)
            robot = Robot(audio)

            def listen(chunk: Samples) -> Event | None:
                stream.push(chunk)
                return stream.next_event(0.0)

            listening = control_loop(robot, args.seconds, listen)
            stream.flush(timeout_s=10.0)
            while (event := stream.next_event(0.0)) is not None:
                robot.react(event)
            stats = stream.stats
    except EdgeSerError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"a loop of 50 Hz, {priority}, {os.cpu_count()} processor cores")
    print(f"{'':<18}{'ticks':>7}{'missed':>8}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}   jitter in ms")
    print(alone.row("without inference"))
    print(listening.row("with inference"))
    moods = ", ".join(f"{label} {count}" for label, count in Counter(robot.heard).most_common())
    print(f"{stats.events} Events ({moods}), {stats.dropped} dropped, {stats.lost_s:.1f} s of audio lost")
    print(f"the head stands at {robot.head_degrees:+.1f} degrees")
    return 0


if __name__ == "__main__":
    sys.exit(main())
