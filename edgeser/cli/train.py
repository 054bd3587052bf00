"""Train a model: one for each session held out in turn, or one on all.

Training resumes where it stopped when the same command is given again. Every fold's model, its predictions
on the held-out session and its checkpoint lie in RUN/fold-<session>/.

examples:
  edgeser train --corpus manifest:corpus.csv --out runs/ks
  edgeser train --corpus manifest:corpus.csv --audio-encoder encoders/whisper --text-encoder encoders/minilm \\
      --epochs 25 --learning-rate 2e-3 --label-smoothing 0 --out runs/encoders
  edgeser train --corpus manifest:corpus.csv --out runs/dense --set sparse=false --sessions 1
  edgeser train --corpus manifest:corpus.csv --out runs/final --sessions none
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeser.cli.evaluate import report_run
from edgeser.cli.options import assignments, comma_separated, positive, read_ids
from edgeser.runtime.frontends.log_mel import BINS
from edgeser.training.options import TrainOptions
from edgeser.training.recipe import Recipe
from edgeser.training.train import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", required=True, help="for example manifest:corpus.csv")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("--family", default="ks-transformer")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a field of the preset")
    parser.add_argument("--modalities", type=comma_separated, default=(), help="for example audio,text; all of them")
    parser.add_argument("--sessions", default="all", help="sessions to hold out: all, none, or for example 1,2")
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="ids to leave out, one a line")
    parser.add_argument(
        "--audio-encoder", type=Path, metavar="DIR", help="from edgeser export-encoder; log-mel energies"
    )
    parser.add_argument("--text-encoder", type=Path, metavar="DIR", help="from edgeser export-encoder; word vectors")
    parser.add_argument(
        "--sentence-encoder", type=Path, metavar="DIR", help="from edgeser export-encoder --pool, for multigranularity"
    )
    parser.add_argument("--bins", type=int, choices=BINS, help="mel bins, without --audio-encoder; the family's")
    parser.add_argument("--word-vectors", type=Path, metavar="FILE", help="GloVe text file; GloVe 6B 50d")
    parser.add_argument("--epochs", type=positive, default=Recipe.epochs)
    parser.add_argument("--batch-size", type=positive, default=Recipe.batch_size)
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate)
    parser.add_argument("--label-smoothing", type=float, default=Recipe.label_smoothing, metavar="SHARE")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=positive, help="CPU threads; all")


def run(args: argparse.Namespace) -> int:
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    sessions = () if args.sessions in ("all", "none") else comma_separated(args.sessions)
    results = train(
        TrainOptions(
            corpus=args.corpus,
            out=args.out,
            family=args.family,
            preset=args.preset,
            changes=assignments(args.set),
            modalities=args.modalities,
            sessions=sessions,
            hold_out=args.sessions != "none",
            exclude=read_ids(args.exclude),
            audio_encoder=args.audio_encoder,
            text_encoder=args.text_encoder,
            sentence_encoder=args.sentence_encoder,
            bins=args.bins,
            word_vectors=args.word_vectors,
            recipe=Recipe(
                epochs=args.epochs,
                batch_size=args.batch_size,
                learning_rate=args.learning_rate,
                label_smoothing=args.label_smoothing,
                seed=args.seed,
            ),
        )
    )
    if args.sessions == "none":
        print(f"trained on all sessions: {results[0].folder}")
    else:
        print(report_run(args.out))
    return 0
