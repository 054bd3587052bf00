"""Accuracies: of a run on the sessions it held out, or of a bundle on a corpus.

examples:
  edgeser evaluate runs/ks
  edgeser evaluate model.edgeser --corpus manifest:corpus.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from edgeser.cli.options import add_json_option, metrics_text, positive, print_json
from edgeser.corpora import read_corpus
from edgeser.runtime.errors import InputError
from edgeser.runtime.metrics import Metrics, measure
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.scoring import Recording, score
from edgeser.training.evaluation import cross_validation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", type=Path, metavar="RUN|BUNDLE", help="a run's folder, or a bundle")
    parser.add_argument("--corpus", help="with a bundle: a labelled corpus, for example manifest:corpus.csv")
    parser.add_argument("--sessions", help="with a bundle: only these sessions, for example 5")
    parser.add_argument("--without-text", action="store_true", help="with a bundle: as if no words were recognised")
    parser.add_argument("--threads", type=positive, default=1, help="threads of the engine (1)")
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    if (args.what / "run.json").is_file():
        if args.corpus:
            raise InputError(f"--corpus: {args.what} is a run, it has its predictions already: leave it out")
        if args.json:
            print_json(cross_validation(args.what).as_dict())
        else:
            print(report_run(args.what))
        return 0
    metrics = evaluate_bundle(args)
    if args.json:
        print_json(metrics.as_dict())
    else:
        print(metrics_text(metrics))
    return 0


def report_run(run_folder: Path) -> str:
    """Return a run's table of folds, their mean, and the confusion matrix over all."""
    result = cross_validation(run_folder)
    lines = ["held out    WA     UA    WF1"]
    lines += [f"{name:<9}{fold.wa:.3f}  {fold.ua:.3f}  {fold.wf1:.3f}" for name, fold in result.folds.items()]
    mean = result.as_dict()
    lines += [f"{'mean':<9}{mean['wa']:.3f}  {mean['ua']:.3f}  {mean['wf1']:.3f}", "", "all folds together"]
    return "\n".join([*lines, metrics_text(result.pooled)])


def evaluate_bundle(args: argparse.Namespace) -> Metrics:
    """Run a bundle over a labelled corpus through the Runtime, with the corpus's transcripts."""
    if not args.corpus:
        raise InputError(f"{args.what}: is no run; a bundle needs --corpus, for example manifest:corpus.csv")
    with Runtime.load(args.what, asr="none", threads=args.threads) as runtime:
        utterances = [u for u in read_corpus(args.corpus) if u.emotion in runtime.labels]
        if args.sessions:
            utterances = [u for u in utterances if u.session in args.sessions.split(",")]
        if not utterances:
            raise InputError(f"{args.corpus}: no utterances with {', '.join(runtime.labels)} in these sessions")
        recordings = [
            Recording(u.id, u.audio, "" if args.without_text else u.transcript or "", u.emotion, u.start_s, u.end_s)
            for u in utterances
        ]
        pairs = []
        for scored in tqdm(score(runtime, recordings), total=len(recordings), unit="clip", leave=False):
            if scored.result is None:
                raise InputError(f"{scored.recording.id}: {scored.error}")
            pairs.append((scored.result.label, str(scored.recording.emotion)))
        return measure([p for p, _ in pairs], [a for _, a in pairs], runtime.labels)
