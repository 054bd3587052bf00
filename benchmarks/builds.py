"""Two builds of EdgeSER side by side: loading, one utterance, a stream, files, and peak memory, in turn in one run.

Each build is a Python in which it is installed; both answer in processes of their own, a call of each after the other,
one engine thread, no recogniser.

  git worktree add ../before COMMIT && python3 -m venv ../before/.venv
  ../before/.venv/bin/pip install -e '../before[openvino]'
  python benchmarks/builds.py ../before/.venv/bin/python --engine openvino
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

CLIPS = Path(__file__).parents[1] / "edgeser" / "clips"  # by path: the other build may have none
CLIP = CLIPS / "03-01-04-01-01-02-19.flac"
RATE = 16_000
WORDS = "kids are talking by the door"
STAGES = ("load", "transcript given", "voice alone", "a file", "4 files in a batch", "stream, per second of audio")


class Build:
    """A build that answers in a process of its own: a stage's name goes in, its milliseconds come out."""

    def __init__(self, python: Path, engine: str, self_test: bool) -> None:
        command = [str(python), __file__, "--child", "--engine", engine, *([] if self_test else ["--no-self-test"])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.about = json.loads(self._line())

    def call(self, stage: str) -> float:
        """Return how long a stage took, milliseconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{stage}\n")
        self._process.stdin.flush()
        return float(self._line())

    def end(self) -> float:
        """End the process and return its peak memory, MB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = float(self._line())
        self._process.wait()
        return peak

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args}: ended before it answered")
        return line


def child(engine: str, self_test: bool) -> None:
    """Answer for the build of this interpreter."""
    from edgeser.runtime.audio import load_audio
    from edgeser.runtime.recognizer import Runtime

    files = sorted(CLIPS.glob("*.flac"))[:4]
    samples = load_audio(CLIP)
    audio = np.concatenate([part for file in files for part in (load_audio(file), np.zeros(RATE, np.float32))])

    def load() -> Runtime:
        return Runtime.load(engine=engine, asr="none", self_test=self_test)

    def stream() -> None:
        with runtime.open_stream() as opened:
            for begin in range(0, audio.shape[0], RATE // 50):
                opened.push(audio[begin : begin + RATE // 50], RATE, wait=True)
            opened.flush()

    started = time.perf_counter()
    runtime = load()
    loaded_ms = (time.perf_counter() - started) * 1e3
    calls: dict[str, tuple[Callable[[], object], float]] = {
        "transcript given": (lambda: runtime.recognize(samples, RATE, transcript=WORDS), 1.0),
        "voice alone": (lambda: runtime.recognize(samples, RATE), 1.0),
        "a file": (lambda: runtime.recognize(CLIP), 1.0),
        "4 files in a batch": (lambda: list(runtime.score(files, batch_size=4)), 1.0),
        "stream, per second of audio": (stream, audio.shape[0] / RATE),
    }
    print(json.dumps({"engine": runtime.engine.name, "load_ms": loaded_ms}), flush=True)
    for line in sys.stdin:
        call, parts = calls[line.strip()]
        started = time.perf_counter()
        call()
        print((time.perf_counter() - started) * 1e3 / parts, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, nargs="?", help="the Python of the build before")
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--no-self-test", action="store_true", help="do not check the engine on loading")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each build (5)")
    parser.add_argument("--calls", type=int, default=20, help="calls of each stage in each process (20)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.engine, not args.no_self_test)
        return
    if args.before is None:
        parser.error("expected the Python of the build before")
    names = {"before": args.before, "now": Path(sys.executable)}
    times: dict[str, dict[str, list[float]]] = {name: {stage: [] for stage in STAGES} for name in names}
    peaks: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.rounds):
        builds = {name: Build(python, args.engine, not args.no_self_test) for name, python in names.items()}
        for name, build in builds.items():
            times[name]["load"].append(build.about["load_ms"])
        for stage in STAGES[1:]:
            for i in range(args.calls + 2):
                for name, build in builds.items():
                    took = build.call(stage)
                    if i >= 2:  # warm
                        times[name][stage].append(took)
        for name, build in builds.items():
            peaks[name].append(build.end())
    print(f"{args.engine}, {args.rounds} processes of each build, {args.calls} calls of each stage; now / before")
    for stage in STAGES:
        (before50, before95), (now50, now95) = (np.percentile(times[name][stage], (50, 95)) for name in names)
        print(f"{stage:<28} p50 {before50:8.1f} {now50:8.1f} ms  {now50 / before50:5.2f}", end="")
        print(f"   p95 {before95:8.1f} {now95:8.1f} ms  {now95 / before95:5.2f}")
    before, now = (float(np.median(peaks[name])) for name in names)
    print(f"{'peak memory':<28}     {before:8.1f} {now:8.1f} MB  {now / before:5.2f}")


if __name__ == "__main__":
    main()
