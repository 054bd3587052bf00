"""Recognise emotion in files, folders or a corpus.

Rows go to stdout as JSON lines, or to a file with -o; the progress bar and the accuracies, where the true
emotions are known, go to stderr.

examples:
  edgeser score recordings/ -o scores.csv
  edgeser score a.wav b.flac --asr none
  edgeser score --corpus manifest:corpus.csv -o scores.jsonl
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path

from tqdm import tqdm

from edgeser.cli.options import add_runtime_options, load_runtime, metrics_text, positive
from edgeser.runtime.errors import InputError
from edgeser.runtime.metrics import measure
from edgeser.runtime.scoring import Recording, RowWriter, Scored, find_recordings, score, score_row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="audio files and folders")
    parser.add_argument("--corpus", help="a labelled corpus, for example manifest:corpus.csv; its transcripts are used")
    add_runtime_options(parser, asr=None)
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("-o", "--out", type=Path, help="a .jsonl or .csv file")


def run(args: argparse.Namespace) -> int:
    recordings = _recordings(args)
    with load_runtime(args, args.asr or "auto") as runtime, contextlib.ExitStack() as stack:
        writer = stack.enter_context(RowWriter(args.out, runtime.labels)) if args.out else None
        done: list[Scored] = []
        for scored in tqdm(score(runtime, recordings, args.batch_size), total=len(recordings), unit="clip"):
            done.append(scored)
            row = score_row(scored)
            if writer:
                writer.write(row)
            else:
                print(json.dumps(row, ensure_ascii=False), flush=True)
        labels = runtime.labels
    return _conclude(done, labels)


def _recordings(args: argparse.Namespace) -> list[Recording]:
    if bool(args.paths) == bool(args.corpus):
        raise InputError("score: expected either PATH or --corpus; see edgeser score --help")
    if not args.corpus:
        return find_recordings(args.paths)
    from edgeser.corpora import read_corpus

    # A named ASR is what the user wants to hear with, also where the corpus has transcripts.
    return [
        Recording(u.id, u.audio, None if args.asr else u.transcript, u.emotion, u.start_s, u.end_s)
        for u in read_corpus(args.corpus)
    ]


def _conclude(done: list[Scored], labels: tuple[str, ...]) -> int:
    failed = [s for s in done if s.result is None]
    for scored in failed:
        print(f"skipped {scored.recording.id}: {scored.error}", file=sys.stderr)
    known = [(s.result.label, s.recording.emotion) for s in done if s.result and s.recording.emotion in labels]
    if known:
        metrics = measure([label for label, _ in known], [str(emotion) for _, emotion in known], labels)
        print(metrics_text(metrics), file=sys.stderr)
    if len(failed) == len(done):
        raise InputError(f"score: none of {len(done)} recordings could be read")
    return 0
