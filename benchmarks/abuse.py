"""Recordings of every container and coding, whole and damaged, through all that reads recordings.

  python benchmarks/abuse.py                  every file that libsndfile and PyAV write here; half an hour on 2 cores
  python benchmarks/abuse.py --only FLAC mp4  those with one of these in their name

Each is given to `recognize`, `score`, `listen --wav`, `corpus` and the features that `train` computes; what is left
goes through `train` itself. There are three right ends: *answered*, the label and length of the whole file; *marked*,
answered as far as the file goes, with one warning or mark; *refused*, in one line. Everything else is listed and makes
the exit status 1. A file that takes longer than two minutes ends the script.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import faulthandler
import io
import itertools
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from abused import DAMAGES, Case, make

from edgeser.cli.main import main as edgeser
from edgeser.clips import CLIPS
from edgeser.corpora import Utterance
from edgeser.runtime.audio import SAMPLE_RATE, load_audio
from edgeser.runtime.errors import EdgeSerError, InputError, MissingDependencyError
from edgeser.runtime.frontends import LogMel
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.sources import FileSource
from edgeser.training.features import RecordingFeatures

CLIP = CLIPS / "03-01-05-01-01-02-12.flac"
COMMANDS = ("recognize", "score", "listen", "corpus", "train")
ENDS = ("answered", "marked", "refused", "WRONG")
LIMIT_S = 120
_TOLERANCE_S = 0.15  # codecs add a frame or two, or their delay


@dataclass(frozen=True)
class End:
    """What a command made of a file: a length and perhaps a label, a mark, or the reason of a refusal."""

    length_s: float = 0.0
    label: str = ""
    marked: bool = False
    refused: str = ""


class Warnings(logging.Handler):
    """Counts the warnings that a file is cut short."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.cut: collections.Counter[str] = collections.Counter()
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text, _, _ = record.getMessage().partition(": cut short: ")
        if text != record.getMessage():
            self.cut[text] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [case for case in make(folder / "files", load_audio(CLIP)) if any(t in case.name for t in args.only)]
        print(f"{len(cases)} files of {len({case.name for case in cases})} kinds", flush=True)
        ends = replay(cases, folder)
        trained = train([case for case in cases if not ends["train"][case].refused], folder)
    wrong = report(cases, ends)
    print(trained or "train: a model was trained on all that were answered or marked")
    return int(bool(wrong or trained))


def replay(cases: Sequence[Case], folder: Path) -> Mapping[str, Mapping[Case, End]]:
    """Give every file to every command."""
    warnings = Warnings()
    with Runtime.load(engine="onnxruntime", asr="none") as runtime:
        kept = itertools.count()  # a folder for each: what is kept of an equal file is not read again, nor marked

        def features() -> RecordingFeatures:
            return RecordingFeatures(LogMel(), folder / f"features-{next(kept)}")

        one_by_one: Mapping[str, Callable[[Path], End]] = {
            "recognize": lambda file: recognized(runtime, file),
            "listen": lambda file: heard(runtime, file),
            "train": lambda file: extracted(features(), file),
        }
        ends = {name: dict(each(cases, call, warnings)) for name, call in one_by_one.items()}
    ends["score"] = scored(cases, folder)
    ends["corpus"] = measured(cases, folder)
    return ends


def each(cases: Sequence[Case], call: Callable[[Path], End], warnings: Warnings) -> Iterator[tuple[Case, End]]:
    """Call once for each file; what is no error of ours is a wrong end, and so is more than one warning."""
    for case in cases:
        warnings.cut.clear()
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        try:
            end = call(case.file)
        except (InputError, MissingDependencyError) as error:
            end = End(refused=str(error))
        except Exception as error:
            end = End(label=f"{type(error).__name__}: {error}", length_s=-1.0)
        faulthandler.cancel_dump_traceback_later()
        count = warnings.cut[str(case.file)]
        yield case, End(end.length_s if count <= 1 else -1.0, end.label, end.marked or bool(count), end.refused)


def recognized(runtime: Runtime, file: Path) -> End:
    result = runtime.recognize(file, transcript="")
    return End(result.duration_s, result.label)


def heard(runtime: Runtime, file: Path) -> End:
    """Hear a file as `edgeser listen --wav` does."""
    with runtime.open_stream() as stream:
        stream.capture(FileSource(file))
        labels = [event.result.label for event in stream]
        if isinstance(stream.error, EdgeSerError):
            raise stream.error
        return End(stream.stats.audio_s, " ".join(labels))


def extracted(features: RecordingFeatures, file: Path) -> End:
    """Compute what `edgeser train` does; the length follows from the frames of 10 ms."""
    return End(features.rows(Utterance(file.name, file)).shape[0] * 0.01 + 0.015)


def scored(cases: Sequence[Case], folder: Path) -> dict[Case, End]:
    out = folder / "rows.jsonl"
    command("score", *(str(case.file) for case in cases), "--asr", "none", "--engine", "onnxruntime", "-o", str(out))
    rows = {row["path"]: row for row in map(json.loads, out.read_text().splitlines())}
    return {case: _row_end(rows.get(str(case.file))) for case in cases}


def _row_end(row: Mapping[str, object] | None) -> End:
    if row is None:
        return End(-1.0, "no row")
    if "error" in row:
        return End(refused=str(row["error"]))
    return End(float(str(row["end_s"])), str(row["label"]), bool(row["truncated"]))


def measured(cases: Sequence[Case], folder: Path) -> dict[Case, End]:
    """Measure each file as a corpus of its own utterance, and all of them in the one call."""
    from edgeser.cli.corpus import measure_durations

    ends = {}
    for case in cases:
        durations = measure_durations([Utterance(case.file.name, case.file)])
        if durations.unreadable:
            ends[case] = End(refused=next(iter(durations.unreadable.values())))
        else:
            ends[case] = End(durations.hours * 3600, marked=bool(durations.truncated))
    out = command("corpus", f"manifest:{manifest(cases, folder / 'all.csv')}", "--json")
    hours, expected = json.loads(out)["durations"]["hours"], sum(end.length_s for end in ends.values()) / 3600
    if not np.isclose(hours, expected):
        print(f"corpus: {hours} h of all, {expected} h of each", file=sys.stderr)
        return dict.fromkeys(cases, End(-1.0))
    return ends


def manifest(cases: Sequence[Case], file: Path) -> Path:
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("id", "audio", "emotion", "speaker"))
        emotions = ("angry", "happy", "neutral", "sad")
        rows.writerows((case.file.name, case.file, emotions[i % 4], f"s{i % 3}") for i, case in enumerate(cases))
    return file


def train(cases: Sequence[Case], folder: Path) -> str:
    """Train a small model on these; return what went wrong, nothing where a model is there."""
    spec = f"manifest:{manifest(cases, folder / 'train.csv')}"
    size = ("--modalities", "audio", "--epochs", "1", "--protocol", "all", "--batch-size", "32")
    try:
        command("train", "--corpus", spec, "--out", str(folder / "run"), *size)
    except SystemExit as error:
        return f"train: {error}"
    return "" if any((folder / "run").rglob("*.safetensors")) else "train: no model is there"


def command(*arguments: str) -> str:
    """Run a command of the product in this process; return what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = edgeser(arguments)
    if status:
        raise SystemExit(f"edgeser {arguments[0]}: status {status}")
    return out.getvalue()


def judge(case: Case, end: End, whole: End) -> str:
    """Name the end that a file had, beside the one of the whole file."""
    if end.refused:
        return "refused" if "\n" not in end.refused else "WRONG"
    if end.length_s <= 0:
        return "WRONG"
    if end.marked:
        return "marked"
    same = abs(end.length_s - whole.length_s) < _TOLERANCE_S and end.label == whole.label
    return "answered" if same else "WRONG"


def report(cases: Sequence[Case], ends: Mapping[str, Mapping[Case, End]]) -> int:
    """Print the table and what is wrong; return how much that is."""
    originals = {case.name: case for case in cases if case.damage == "whole"}
    length_s = load_audio(CLIP).shape[0] / SAMPLE_RATE
    counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
    wrong = []
    for case in cases:
        for name in COMMANDS:
            end, whole = ends[name][case], ends[name][originals[case.name]]
            if case.damage == "whole":
                whole = End(length_s, end.label)
            kind = judge(case, end, whole)
            counts[case.damage, name, kind] += 1
            if kind == "WRONG":
                wrong.append(f"{name}: {case.damage} {case.name}: {end}, the whole file: {whole}")
    print(f"\n{'':<12}" + "".join(f"{name:>28}" for name in COMMANDS))
    print(f"{'':<12}" + f"{'answered marked refused':>28}" * len(COMMANDS))
    for damage in DAMAGES:
        cells = ["".join(f"{counts[damage, name, kind]:>8}" for kind in ENDS[:3]) for name in COMMANDS]
        print(f"{damage:<12}" + "".join(f"{cell:>28}" for cell in cells))
    print("\n".join(["", *wrong, f"{len(wrong)} ends are none of these"]))
    refused = sorted(name for name, case in originals.items() if ends["recognize"][case].refused)
    print(f"not taken, whole: {', '.join(refused)}")
    marked = sorted(name for name, case in originals.items() if ends["recognize"][case].marked)
    print(f"marked, whole: {', '.join(marked)}")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
