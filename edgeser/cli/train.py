"""Train models by a protocol: one for each session held out in turn, or another (--protocol).

Training resumes where it stopped when the same command is given again. Every fold's model, its predictions on what it
held out and its checkpoint lie in RUN/fold-<name>/.

protocols:
  leave-one-session-out  each session tests in turn, the others train
  leave-one-speaker-out  each speaker tests in turn, for corpora without sessions
  leave-one-corpus-out   each corpus tests in turn, the others train; what may only be tested on (--test-corpus, or a
                         manifest's column role: test) is tested by one more fold, test-only, which trains on all else
  rotating               each session tests in turn, the next one validates, the others train
  random                 five random splits, 0.55 train, 0.25 validate, 0.2 test (--split-seed)
  per-class              of each emotion 7 parts train, 1 validates, 2 test, drawn at random (--split-seed)
  official               the corpus's own train, dev and test
  all                    everything trains, nothing tests
Where a protocol validates, the epoch is kept that is best there by the recipe's select_by.

With --devices N, N processes train one model together, each on batches of its own: a step takes N times --batch-size
utterances. With --nodes M the same command is given on M machines that share the folder RUN, with MASTER_ADDR,
MASTER_PORT and NODE_RANK (from 0) in the environment; torchrun works too.

examples:
  edgeser train --corpus manifest:corpus.csv --out runs/ks
  edgeser train --corpus manifest:corpus.csv --audio-encoder encoders/whisper --text-encoder encoders/minilm \\
      --epochs 25 --learning-rate 2e-3 --label-smoothing 0 --out runs/encoders
  edgeser train --corpus manifest:corpus.csv --out runs/dense --set sparse=false --folds 1
  edgeser train --corpus manifest:corpus.csv --out runs/sgd --recipe optimizer=sgd --recipe schedule=step \\
      --recipe learning_rate=5e-4 --recipe log_mel.noise_share=0
  edgeser train --corpus manifest:corpus.csv --out runs/final --protocol all
  edgeser train --corpus manifest:proxy/manifest.csv --corpus 'manifest:voices/manifest.csv?role=train' --out runs/two
  edgeser train --corpus manifest:corpus.csv --copies 3 --noise manifest:noise/manifest.csv --out runs/noisy
  edgeser train --corpus manifest:proxy/manifest.csv --corpus manifest:voices/manifest.csv --modalities audio \\
      --protocol leave-one-corpus-out --audio-encoder encoders/whisper --out runs/corpora
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeser.cli.options import (
    add_corpus_option,
    add_strict_option,
    add_test_corpus_option,
    assignments,
    comma_separated,
    positive,
    read_ids,
    show,
)
from edgeser.cli.run_report import report_run
from edgeser.corpora import as_test_only
from edgeser.corpora.splits import ALL, PROTOCOLS, SESSIONS
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import check_folder
from edgeser.runtime.frontends.log_mel import BINS
from edgeser.training.options import TrainOptions
from edgeser.training.ranks import is_first
from edgeser.training.recipe import Recipe
from edgeser.training.train import train

_FLAGS: dict[str, Callable[[str], Any]] = {
    "epochs": positive,
    "batch_size": positive,
    "learning_rate": float,
    "label_smoothing": float,
    "copies": int,
    "seed": int,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_corpus_option(parser, "labelled utterances", required=True)
    add_test_corpus_option(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("--family", default="ks-transformer")
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a field of the preset")
    parser.add_argument("--modalities", type=comma_separated, default=(), help="for example audio,text; all of them")
    parser.add_argument("--protocol", metavar="NAME", help=f"one of {', '.join(PROTOCOLS)}; {SESSIONS}")
    parser.add_argument("--folds", help="folds of the protocol to train: all, or for example 1,2; all")
    parser.add_argument("--sessions", help="older spelling of --folds; none for --protocol all")
    parser.add_argument("--split-seed", type=int, default=TrainOptions.split_seed, metavar="N", help="of drawn splits")
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
    parser.add_argument("--pronunciations", type=Path, metavar="FILE", help="a pronouncing dictionary; CMUdict")
    parser.add_argument(
        "--recipe",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a number to train by: {', '.join(one.name for one in dataclasses.fields(Recipe))}",
    )
    parser.add_argument("--noise", metavar="manifest:FILE", help="id, audio, kind: noises and rooms for --copies")
    for name, kind in _FLAGS.items():
        flag = f"--{name.replace('_', '-')}"
        default = getattr(Recipe, name)
        parser.add_argument(flag, type=kind, metavar="N", help=f"short for --recipe {name}=N ({default})")
    add_strict_option(parser)
    parser.add_argument("--threads", type=positive, help="CPU threads of all processes together; all")
    parser.add_argument("--devices", type=positive, default=1, metavar="N", help="processes on this machine (1)")
    parser.add_argument("--nodes", type=positive, default=1, metavar="M", help="machines (1)")


def run(args: argparse.Namespace) -> int:
    check_folder(args.out, "keep the run in")
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    protocol, folds = _protocol(args)
    results = train(
        TrainOptions(
            corpus=[*args.corpus, *map(as_test_only, args.test_corpus)],
            out=args.out,
            family=args.family,
            preset=args.preset,
            changes=assignments(args.set),
            modalities=args.modalities,
            protocol=protocol,
            folds=folds,
            split_seed=args.split_seed,
            exclude=read_ids(args.exclude),
            audio_encoder=args.audio_encoder,
            text_encoder=args.text_encoder,
            sentence_encoder=args.sentence_encoder,
            bins=args.bins,
            word_vectors=args.word_vectors,
            pronunciations=args.pronunciations,
            noise=args.noise,
            recipe=_recipe(args),
            devices=args.devices,
            nodes=args.nodes,
        ),
        args.strict,
    )
    if not is_first():
        return 0
    if results[0].metrics is None:
        show(f"trained on everything: {results[0].folder}")
    else:
        show(report_run(args.out))
    return 0


def _protocol(args: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """Return the protocol and its folds, also as `--sessions` spells them."""
    if args.sessions is not None and args.folds is not None:
        raise InputError(f"--sessions: got {args.sessions} beside --folds {args.folds}: it is the same, give --folds")
    if args.sessions == "none":
        if args.protocol not in (None, ALL):
            raise InputError(f"--sessions: got none beside --protocol {args.protocol}: leave one of them out")
        return ALL, ()
    folds = args.folds or args.sessions or "all"
    return args.protocol or SESSIONS, () if folds == "all" else comma_separated(folds)


def _recipe(args: argparse.Namespace) -> Recipe:
    """Make a recipe of `--recipe` and its short forms; `log_mel.noise_share=0` is a value of a table."""
    values: dict[str, Any] = {}
    for pair in args.recipe:
        name, equals, _ = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--recipe: got {pair!r}, expected name=value, for example optimizer=sgd")
        table, dot, inner = name.partition(".")
        place, key = (values.setdefault(table, {}), inner) if dot else (values, name)
        if not isinstance(place, dict) or key in place:
            raise InputError(f"--recipe: got {name} twice: give it once")
        (place[key],) = assignments([pair]).values()
    for name in _FLAGS:
        value = getattr(args, name)
        if value is not None and name in values:
            raise InputError(f"--{name.replace('_', '-')}: got {value} beside --recipe {name}: leave one of them out")
        if value is not None:
            values[name] = value
    return Recipe.from_dict(values)
