"""Score a folder of recordings on the device; stop it whenever you like, and start it again.

  python examples/batch_score.py recordings/ scores.csv
  python examples/batch_score.py recordings/ scores.csv --workers 2 --asr none

Unplug the device, kill the process, press Ctrl-C: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edgeser import EdgeSerError
from edgeser.runtime.scoring import Setup, find_recordings, open_scorer, score_to_file


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="searched for recordings")
    parser.add_argument("out", type=Path, help="a .jsonl, .csv or .parquet file")
    parser.add_argument("--asr", default="auto", help="who hears the words; none for the voice alone")
    parser.add_argument("--engine", default="auto", help="what runs the model")
    parser.add_argument("--workers", type=int, default=0, help="processes of their own; 0 for this one")
    args = parser.parse_args()
    try:
        recordings = find_recordings([args.folder])
        done = 0

        def start(resumed: int) -> None:
            nonlocal done
            done = resumed
            print(f"{len(recordings)} recordings, {resumed} of them done before")

        def show(row: Any) -> None:
            nonlocal done
            done += 1
            print(f"{done:>6}/{len(recordings)}  {row['id']:<40} {row.get('label') or row['error']}")

        with open_scorer(Setup(engine=args.engine, asr=args.asr), args.workers) as scorer:
            summary = score_to_file(recordings, args.out, scorer, on_start=start, on_row=show)
    except EdgeSerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped: the same command goes on", file=sys.stderr)
        return 130
    print(f"{args.out}: {summary.total - summary.failed} scored, {summary.failed} not readable")
    return 0


if __name__ == "__main__":
    sys.exit(main())
