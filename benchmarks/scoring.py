"""Files a second of batch scoring: in this process, and in one, two or more workers, round by round in turn.

  python benchmarks/scoring.py edgeser/clips --files 40 --workers 1 2

Loading is not counted: everything has scored all files once before. Each way has one thread a process and no ASR.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from edgeser.runtime.scoring import Recording, Scorer, Setup, find_recordings, open_scorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--files", type=int, default=40, help="files are taken again and again up to this number (40)")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    found = find_recordings(args.paths)
    recordings = [Recording(f"{i}", found[i % len(found)].path) for i in range(args.files)]
    setup = Setup(engine=args.engine, asr="none")
    with ExitStack() as stack:
        scorers = {count: stack.enter_context(open_scorer(setup, count)) for count in (0, *args.workers)}
        for scorer in scorers.values():
            _seconds(scorer, recordings)
        times = [{count: _seconds(scorer, recordings) for count, scorer in scorers.items()} for _ in range(args.rounds)]
    for count in scorers:
        rates = [args.files / one[count] for one in times]
        name = f"{count} workers" if count else "in process"
        print(f"{name:<12}{statistics.median(rates):7.2f} files/s  ({min(rates):.2f} to {max(rates):.2f})")


def _seconds(scorer: Scorer, recordings: list[Recording]) -> float:
    started = time.perf_counter()
    rows = [row for _, row in scorer.rows(recordings)]
    if len(rows) != len(recordings) or any("error" in row for row in rows):
        raise SystemExit("not every recording was scored: nothing was measured")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
