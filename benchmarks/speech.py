"""How often speech is found where there is some, and where there is none: recordings whose `speech_share` is above 0.

Each manifest is a CSV with `audio`, a path relative to it, and columns to group by. Levels are those of the recording,
lowered by so many dB.

  python benchmarks/speech.py proxy/manifest.csv voices/manifest.csv noise/manifest.csv --where role=train
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeser.runtime.audio import load_audio
from edgeser.runtime.speech import SpeechMeter


def recordings(manifest: Path, by: list[str], where: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield each recording once, with its group; a row whose column is not as `where` says is left out."""
    seen: set[str] = set()
    with manifest.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["audio"] in seen or any(row.get(name, value) != value for name, value in where.items()):
                continue
            seen.add(row["audio"])
            group = next((row[name] for name in by if row.get(name)), "all")
            yield manifest.parent / row["audio"], f"{manifest.parent.name}: {group}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument(
        "--by", nargs="+", default=["corpus", "kind"], help="columns to group by, the first that is there"
    )
    parser.add_argument("--where", nargs="*", default=[], metavar="COLUMN=VALUE")
    parser.add_argument("--lower", nargs="+", type=float, default=[0, 20, 40, 60], metavar="DB")
    args = parser.parse_args()
    where = dict(pair.split("=", 1) for pair in args.where)
    meter = SpeechMeter()
    found: dict[str, dict[float, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for manifest in args.manifests:
        for path, group in recordings(manifest, args.by, where):
            samples = load_audio(path)
            for lower in args.lower:
                quieter = np.float32(10 ** (-lower / 20)) * samples
                stored = np.round(quieter * 32768) / 32768  # as 16 bits hold it
                found[group][lower].append(meter.share(stored.astype(np.float32)) > 0)
    print("speech found in" + "".join(f"{f'-{lower:g} dB':>12}" for lower in args.lower))
    for group, levels in sorted(found.items()):
        cells = (f"{sum(levels[lower])}/{len(levels[lower])}" for lower in args.lower)
        print(f"{group:<24}" + "".join(f"{cell:>12}" for cell in cells))


if __name__ == "__main__":
    main()
