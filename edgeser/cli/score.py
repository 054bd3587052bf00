"""Recognise emotion in files, folders or a corpus.

Rows go to stdout as JSON lines, or to a file with -o; the progress bar and the accuracies, where the true
emotions are known, go to stderr.

With -o, every row is kept in a journal beside the file. After a kill or a power cut, and when it has finished, the
same command scores only what is new: recordings that came, that changed, or that could not be read. Workers are
processes of their own: a recording that crashes one, or hangs in it, is reported and skipped. They finish in no fixed
order, which shows on stdout only.

examples:
  edgeser score recordings/ -o scores.csv
  edgeser score a.wav b.flac --asr none
  edgeser score recordings/ -o scores.parquet --workers 4
  edgeser score --corpus manifest:corpus.csv -o scores.jsonl
  edgeser score recordings/ -o scores.csv --normalize run
  edgeser score recordings/ -o scores.csv --answered 0.8
  edgeser score /mnt/shared/recordings -o scores.parquet --ray auto
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from edgeser.cli.options import (
    add_answered_option,
    add_corpus_option,
    add_normalize_options,
    add_runtime_options,
    metrics_text,
    positive,
    read_state,
)
from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.labels import UNSURE
from edgeser.runtime.metrics import measure
from edgeser.runtime.names import escaped, escaped_lines
from edgeser.runtime.scoring import (
    Job,
    Recording,
    Row,
    Scorer,
    Setup,
    Summary,
    Tally,
    check_format,
    journal_path,
    normalized,
    open_scorer,
    row_text,
    score_to_file,
    search,
)

_MEASURING = "means"


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="audio files and folders")
    add_corpus_option(parser, "labelled utterances, whose transcripts are used")
    add_runtime_options(parser, asr=None)
    add_normalize_options(parser)
    add_answered_option(parser)
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="score in N processes; with --ray, on N actors (one a CPU)"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="score on a Ray cluster (auto, ray://HOST:PORT), or on a Ray of this machine (local); bundle and "
        "recordings lie under the same paths on every node",
    )
    parser.add_argument("-o", "--out", type=Path, help="a .jsonl, .csv or .parquet file")
    parser.add_argument("--restart", action="store_true", help="with -o: throw away what earlier runs have left")


def run(args: argparse.Namespace) -> int:
    if args.out:
        check_format(args.out)
    elif args.restart:
        raise InputError("--restart: got it without -o, expected the file whose earlier runs are to be thrown away")
    recordings, partial = _recordings(args)
    try:
        with _sigterm(), _scorer(args) as scorer, _Progress(len(recordings)) as progress:
            labels = scorer.identity.labels
            if args.out:
                summary = _to_file(recordings, scorer, args, progress)
            else:
                summary = _to_stdout(recordings, scorer, progress)
    except KeyboardInterrupt as error:
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        print(f"\nedgeser score: stopped by {number.name}{_left(args.out)}", file=sys.stderr)
        return 128 + number
    return _conclude(summary, labels, progress.error) or int(partial)


class _Progress:
    """What stderr shows meanwhile: a bar, and what is skipped; for one recording nothing, its error is the command's.

    Attributes:
        error: The last one's.
    """

    def __init__(self, total: int) -> None:
        self._alone = total == 1
        self._is_measuring = False
        self._bar = tqdm(total=total, unit="clip", disable=self._alone)
        self.error = ""

    def start(self, resumed: int) -> None:
        if self._is_measuring:
            self._bar.set_description_str("")
            self._bar.reset()
        self._bar.initial = resumed  # so that the rate and the estimate are those of this run
        self._bar.update(resumed)

    def measured(self, count: int) -> None:
        """Count recordings of the first of two passes, for which the bar has a round of its own."""
        if not self._is_measuring:
            self._is_measuring = True
            self._bar.set_description_str(_MEASURING)
        self._bar.update(count)

    def show(self, row: Row) -> None:
        if "error" in row:
            self.error = row["error"]
            if not self._alone:
                tqdm.write(escaped(f"skipped {row['id']}: {self.error}"), file=sys.stderr)
        self._bar.update()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()


def _left(out: Path | None) -> str:
    if out is None or not journal_path(out).exists():
        return ""
    return f": what is done is in {journal_path(out)}; run the same command again to go on"


def _recordings(args: argparse.Namespace) -> tuple[list[Recording], bool]:
    """Return what to score, and whether folders had to be left out that may not be read."""
    if bool(args.paths) == bool(args.corpus):
        raise InputError("score: expected either PATH or --corpus; see edgeser score --help")
    if not args.corpus:
        found = search(args.paths)
        return list(found.recordings), bool(found.closed)
    from edgeser.corpora import read_corpus
    from edgeser.corpora.inputs import recording_of

    # A named ASR is what the user wants to hear with, also where the corpus has transcripts.
    return [recording_of(u, None if args.asr else u.transcript) for u in read_corpus(args.corpus)], False


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Make SIGTERM an exception, so that files are closed; a second one ends the process at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _scorer(args: argparse.Namespace) -> Scorer:
    asr = args.asr or "auto"
    setup = Setup(
        args.bundle,
        args.engine,
        asr,
        args.threads,
        not args.no_self_test,
        args.isolate_asr,
        trusted=args.trusted,
        normalize=args.normalize,
        state=read_state(args),
        answered=args.answered,
    )
    if not args.ray:
        return open_scorer(setup, args.workers or 0, args.batch_size)
    from edgeser.cluster import RayScorer

    return RayScorer(setup, args.ray, args.workers, args.batch_size)


def _to_file(recordings: list[Recording], scorer: Scorer, args: argparse.Namespace, progress: _Progress) -> Summary:
    return score_to_file(
        recordings,
        args.out,
        scorer,
        restart=args.restart,
        on_start=progress.start,
        on_row=progress.show,
        on_measured=progress.measured,
    )


def _to_stdout(recordings: list[Recording], scorer: Scorer, progress: _Progress) -> Summary:
    def measure(todo: Sequence[Recording]) -> Iterator[tuple[Recording, Row]]:
        for pair in scorer.rows(todo, Job.MEAN):
            progress.measured(1)
            yield pair

    shifted = normalized(scorer.identity.plan, recordings, measure)
    progress.start(0)
    tally = Tally()
    for _, row in scorer.rows(shifted):
        tally.add(row)
        _print(row)
        progress.show(row)
    return Summary(tally.total, tally.failed, 0, tally.answers)


def _print(row: Row) -> None:
    try:
        print(row_text(row), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries again at its end
        raise EdgeSerError(f"stdout: cannot be written ({error.strerror}): with -o a run can go on later") from error


def _conclude(summary: Summary, labels: tuple[str, ...], error: str) -> int:
    everything = {pair: count for pair, count in summary.answers.items() if pair[0] in labels}
    known = {pair: count for pair, count in everything.items() if pair[1] != UNSURE}
    unsure = sum(everything.values()) - sum(known.values())
    if unsure:
        print(f"{UNSURE} about {unsure} of {sum(everything.values())}, which are left out", file=sys.stderr)
    if known:
        answered = [label for (_, label), count in known.items() for _ in range(count)]
        actual = [emotion for (emotion, _), count in known.items() for _ in range(count)]
        print(escaped_lines(metrics_text(measure(answered, actual, labels))), file=sys.stderr)
    if summary.failed == summary.total:
        raise InputError(error if summary.total == 1 else f"score: none of {summary.total} recordings could be read")
    return 0
