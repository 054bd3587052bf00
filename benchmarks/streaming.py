"""How soon a stream answers, and what that costs: latency, real-time factor and peak memory.

Plays the example clips, a second of silence after each, into a stream. Without a recogniser, if no --asr asks for one.

  python benchmarks/streaming.py               latency: pushed in real time, as from a microphone
  python benchmarks/streaming.py --asr whisper the same with words
  python benchmarks/streaming.py --fast        real-time factor: pushed as fast as the stream takes it
  taskset -c 0 python benchmarks/streaming.py --fast     the same on one core
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from edgeser.clips import example_clips
from edgeser.runtime.audio import SAMPLE_RATE, load_audio
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.segmenting import Ending
from edgeser.runtime.streams import Event, StreamOptions

CHUNK = SAMPLE_RATE // 50  # 20 ms


def peak_mb() -> float:
    """Return the process's peak memory so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--asr", default="none", help="as of `edgeser listen`")
    parser.add_argument("--rounds", type=int, default=10, help="times that the clips are played")
    parser.add_argument("--fast", action="store_true", help="as fast as the stream takes it")
    args = parser.parse_args()

    quiet = np.zeros(SAMPLE_RATE, np.float32)
    clips = [part for clip in example_clips() for part in (load_audio(clip), quiet)]
    audio = np.concatenate(clips * args.rounds)
    options = StreamOptions()
    runtime = Runtime.load(args.bundle, engine=args.engine, asr=args.asr)
    runtime.recognize(audio[: 3 * SAMPLE_RATE], SAMPLE_RATE)  # the first call is slower in every engine

    arrived: list[tuple[Event, float]] = []
    pushed: list[float] = []
    with runtime.open_stream(lambda event: arrived.append((event, time.perf_counter())), options=options) as stream:
        cpu, started = time.process_time(), time.perf_counter()
        for i, begin in enumerate(range(0, audio.shape[0], CHUNK)):
            if not args.fast:
                time.sleep(max(0.0, started + i * CHUNK / SAMPLE_RATE - time.perf_counter()))
            stream.push(audio[begin : begin + CHUNK], wait=args.fast)
            pushed.append(time.perf_counter())
        stream.flush()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - started
        stats = stream.stats

    seconds = audio.shape[0] / SAMPLE_RATE
    report = {
        "engine": runtime.engine.name,
        "audio_s": round(seconds, 1),
        "asr": runtime.asr.name,
        "events": stats.events,
        "with_words": sum(bool(event.result.transcript) for event, _ in arrived),
        "dropped": stats.dropped,
        "cpu_per_audio": round(cpu / seconds, 3),
        "wall_per_audio": round(wall / seconds, 3),
        "peak_mb": round(peak_mb()),
    }
    if not args.fast:
        # An utterance is over, to the stream, when the last sample of its hangover has been pushed.
        beyond_s = (options.segment.hangover_ms - options.segment.post_roll_ms) / 1e3
        waits = [
            (when - pushed[min(len(pushed) - 1, int((event.end_s + beyond_s) * SAMPLE_RATE / CHUNK))]) * 1e3
            for event, when in arrived
            if event.ending is Ending.SILENCE
        ]
        report["after_hangover_ms"] = {f"p{q}": round(float(np.percentile(waits, q))) for q in (50, 95, 100)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
