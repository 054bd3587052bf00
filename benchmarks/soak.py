"""Streams hours of audio at full speed and counts: no utterance lost or doubled, no memory grown, no thread left.

The audio is the example clips at changing levels, some clipped, some in noise, with silence, hum, music and noise
between them; every part is drawn with a seed.

  python benchmarks/soak.py --hours 8
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeser.clips import example_clips
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.streams import Event


@dataclass(frozen=True)
class Finding:
    """What a soak found.

    Attributes:
        audio_s: Audio streamed.
        spoken: Clips in it.
        missed: Clips that no Event lies in.
        overlaps: Events that begin before the one before them has ended, or share its number.
        answered_in_vain: Events that lie in no clip: music or noise taken for speech.
        with_words: Events that carry words.
        words_in_vain: Those of them that lie in no clip.
        growth_mb: Memory after, less memory after the first tenth.
        threads_left: Threads of the stream that outlived it.
        wall_s: Time taken.
    """

    audio_s: float
    spoken: int
    missed: int
    overlaps: int
    answered_in_vain: int
    with_words: int
    words_in_vain: int
    growth_mb: float
    threads_left: int
    wall_s: float


def memory_mb() -> float:
    """Return the process's memory."""
    return int(Path("/proc/self/status").read_text(encoding="ascii").split("VmRSS:")[1].split()[0]) / 1024


def parts(seconds: float, seed: int) -> Iterator[tuple[Samples, bool]]:
    """Yield stretches of audio and whether they are speech, until that many seconds are reached."""
    rng = np.random.default_rng(seed)
    clips = [load_audio(clip) for clip in example_clips()]
    total = 0.0
    while total < seconds:
        for samples, speech in (_between(rng), _speech(rng, clips)):
            total += samples.shape[0] / SAMPLE_RATE
            yield samples, speech


def _speech(rng: np.random.Generator, clips: list[Samples]) -> tuple[Samples, bool]:
    clip = clips[rng.integers(len(clips))]
    peak = 10 ** rng.uniform(-1.7, -0.3)  # -34 to -6 dB
    if rng.random() < 0.2:
        peak = 6.0  # far into clipping
    level = peak / float(np.abs(clip).max())
    noise = rng.normal(0, 10 ** rng.uniform(-4.5, -4.0), clip.shape[0])
    return np.clip(clip * level + noise, -1, 1).astype(np.float32), True


def _between(rng: np.random.Generator) -> tuple[Samples, bool]:
    count = int(rng.uniform(1.5, 6) * SAMPLE_RATE)
    time_s = np.arange(count) / SAMPLE_RATE
    kind = rng.integers(4)
    if kind == 0:
        samples = np.zeros(count)
    elif kind == 1:
        samples = rng.normal(0, 10 ** rng.uniform(-3.5, -2), count)
    elif kind == 2:
        samples = 0.02 * np.sin(2 * np.pi * 50 * time_s)
    else:
        notes = 220 * 2 ** (rng.integers(0, 24, 3) / 12)
        samples = 0.05 * np.sin(2 * np.pi * notes[:, None] * time_s).sum(0) * (1 + np.sin(2 * np.pi * 2 * time_s)) / 2
    return samples.astype(np.float32), False


def soak(runtime: Runtime, seconds: float, seed: int = 1) -> Finding:
    """Stream that much audio through a Runtime; see `Finding`."""
    # Not the Events: they would be the memory that grows.
    events: list[tuple[int, float, float, bool]] = []

    def note(event: Event) -> None:
        events.append((event.utterance, event.start_s, event.end_s, bool(event.result.transcript)))

    spoken: list[tuple[float, float]] = []
    before = set(threading.enumerate())
    started, at, warm = time.perf_counter(), 0.0, 0.0
    with runtime.open_stream(note) as stream:
        for samples, speech in parts(seconds, seed):
            stream.push(samples, wait=True)
            if speech:
                spoken.append((at, at + samples.shape[0] / SAMPLE_RATE))
            at += samples.shape[0] / SAMPLE_RATE
            if not warm and at > seconds / 10:
                warm = memory_mb()
        stream.flush()
        grown = memory_mb() - warm
        threads = set(threading.enumerate()) - before
    answered = [(start, end) for _, start, end, _ in events]
    vain = [not any(a < end and b > start for a, b in _near(spoken, start)) for start, end in answered]
    return Finding(
        audio_s=round(at, 1),
        spoken=len(spoken),
        missed=sum(not any(a < end and b > start for a, b in _near(answered, start)) for start, end in spoken),
        overlaps=sum(b[1] < a[2] or b[0] != a[0] + 1 for a, b in itertools.pairwise(events)),
        answered_in_vain=sum(vain),
        with_words=sum(words for *_, words in events),
        words_in_vain=sum(words and in_vain for (*_, words), in_vain in zip(events, vain, strict=True)),
        growth_mb=round(grown, 1),
        threads_left=sum(thread.is_alive() for thread in threads),
        wall_s=round(time.perf_counter() - started, 1),
    )


def _near(places: list[tuple[float, float]], time_s: float) -> list[tuple[float, float]]:
    """Return the places within half a minute of a time; they are sorted."""
    starts = [start for start, _ in places]
    first, last = np.searchsorted(starts, (time_s - 30, time_s + 30))
    return places[first:last]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--asr", default="auto", help="as of `edgeser listen`")
    args = parser.parse_args()
    with Runtime.load(engine=args.engine, asr=args.asr) as runtime:
        print(
            json.dumps(
                {"engine": runtime.engine.name, "asr": runtime.asr.name, **vars(soak(runtime, args.hours * 3600))}
            )
        )


if __name__ == "__main__":
    main()
