"""Words and emotion of a bundle, beside recognisers that hear words alone: error rate, time and memory.

  python benchmarks/words.py ravdess/ --clips 10
  python benchmarks/words.py words/manifest.csv --clips 20 --bundle model.edgeser
  python benchmarks/words.py voices/manifest.csv --clips 10 --without pocketsphinx

A folder is one of RAVDESS, whose file names say the sentence and the emotion. A manifest is a CSV with `audio`, a path
relative to it, and `transcript`. One without transcripts is searched for TESS (column `corpus`), which says "say the
word" and one more that nobody noted: the last word is left out there.

Each recogniser has a process of its own, all share one core and hear clip by clip in turn; CPU is the processor's time,
which others on the machine change little. The bundle must bring its
recogniser. Peers that are not installed (`pip install 'edgeser[words]'`) are left out, with a line.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from recognisers import RECOGNISERS, Heard, RecogniserProcess, Sources

from edgeser.corpora.folder import audio_files
from edgeser.corpora.ravdess import parse_ravdess
from edgeser.runtime.audio import load_audio
from edgeser.runtime.engines import ENGINES
from edgeser.runtime.errors import EdgeSerError, InputError

CARRIER = "say the word"


@dataclass(frozen=True)
class Clip:
    """A recording with what is said in it, and what to group it by.

    Attributes:
        audio: File.
        said: The words; all but the last where `is_open`.
        group: An emotion, or whose voice it is.
        is_open: Whether nobody knows the last word.
    """

    audio: Path
    said: str
    group: str
    is_open: bool = False


def read_clips(source: Path) -> list[Clip]:
    """Read a manifest, or a folder of RAVDESS.

    Raises:
        InputError: It has no clip whose words are known.
    """
    if source.is_dir():
        acted = [utterance for file in audio_files(source) if (utterance := parse_ravdess(file)) is not None]
        clips = [Clip(one.audio, one.transcript, one.emotion or "") for one in acted]
    elif not source.is_file():
        raise InputError(f"{source}: no such file or folder, expected RAVDESS or a manifest")
    else:
        with source.open(newline="", encoding="utf-8") as file:
            clips = [clip for row in csv.DictReader(file) if (clip := _clip(source.parent, row)) is not None]
    if not clips:
        raise InputError(f"{source}: has no clip, expected RAVDESS, or a manifest of audio with transcripts or of TESS")
    return clips


def _clip(folder: Path, row: Mapping[str, str]) -> Clip | None:
    if row.get("transcript"):
        return Clip(folder / row["audio"], row["transcript"], row["id"].rsplit("_", 1)[0])
    return Clip(folder / row["audio"], CARRIER, row["emotion"], True) if row.get("corpus") == "tess" else None


def drawn(clips: Sequence[Clip], count: int | None) -> list[Clip]:
    """Return so many clips of each group, drawn at random with a seed; `None` for all."""
    shuffled = random.Random(1).sample(clips, len(clips))
    groups = {clip.group for clip in clips}
    return [clip for group in sorted(groups) for clip in [one for one in shuffled if one.group == group][:count]]


def opened(sources: Sources, without: Sequence[str]) -> Iterator[tuple[str, RecogniserProcess]]:
    """Yield the recognisers that are there, by name."""
    for name in RECOGNISERS:
        if any(name.startswith(start) for start in without):
            continue
        try:
            yield name, RecogniserProcess(name, sources)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)


def report(
    clips: Sequence[Clip], records: Mapping[str, Sequence[Heard]], peaks_mb: Mapping[str, float]
) -> Iterator[str]:
    """Yield a Markdown table, a line for each recogniser."""
    import jiwer
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    plain = EnglishTextNormalizer({})
    groups = sorted({clip.group for clip in clips})
    counts = [f"{group} ({sum(clip.group == group for clip in clips)})" for group in groups]
    yield f"| | p50 ms | p95 ms | CPU p50 ms | peak MB | word error rate ({len(clips)}) | {' | '.join(counts)} |"
    yield "|---" * (6 + len(groups)) + "|"
    wanted = [plain(clip.said) for clip in clips]
    for name, record in records.items():
        heard = [plain(one.said) for one in record]
        heard = [said.rpartition(" ")[0] if clip.is_open else said for clip, said in zip(clips, heard, strict=True)]
        rates = [jiwer.wer(wanted, heard)]
        for group in groups:
            places = [place for place, clip in enumerate(clips) if clip.group == group]
            rates.append(jiwer.wer([wanted[place] for place in places], [heard[place] for place in places]))
        p50, p95 = np.percentile([one.wall_ms for one in record], [50, 95])
        cpu = np.median([one.cpu_ms for one in record])
        shown = " | ".join(f"{rate:.3f}" for rate in rates)
        yield f"| {name} | {p50:,.0f} | {p95:,.0f} | {cpu:,.0f} | {peaks_mb[name]:.0f} | {shown} |"


def measure(args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of a report.

    Raises:
        InputError: The source has no clip, or the bundle no recogniser.
    """
    from edgeser.export_tools.encoders.export import placed

    clips = drawn(read_clips(args.source), args.clips)
    with placed("whisper-tiny.en") as folder:
        recognisers = dict(opened(Sources(args.bundle, args.engine, folder), args.without))
    if not recognisers:
        raise InputError("no recogniser is left: leave fewer out")
    records: dict[str, list[Heard]] = {name: [] for name in recognisers}
    for number, clip in enumerate([clips[0], *clips]):  # the first once more: warm-up is not counted
        samples = load_audio(clip.audio)
        for name, recogniser in recognisers.items():
            heard = recogniser.hear(samples)
            if number:
                records[name].append(heard)
    peaks_mb = {name: recogniser.end() for name, recogniser in recognisers.items()}
    yield from report(clips, records, peaks_mb)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder of RAVDESS, or a manifest")
    parser.add_argument("--clips", type=int, help="of each group, drawn at random with a seed (all)")
    parser.add_argument("--bundle", type=Path, help="one that brings its recogniser; the default bundle")
    parser.add_argument("--engine", default="auto", choices=["auto", *ENGINES], help="of the bundle")
    parser.add_argument("--without", nargs="*", default=[], help="peers to leave out: faster-whisper, moonshine ...")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        for line in measure(args):
            print(line)
    except EdgeSerError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
