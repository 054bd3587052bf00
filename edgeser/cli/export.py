"""Turn a trained model into a bundle: both lowerings, proved against PyTorch on real utterances.

Nothing is written unless every graph's logits are within 1e-4 of PyTorch's.

examples:
  edgeser export runs/ks/fold-5 -o model.edgeser
  edgeser export runs/final --evaluated runs/ks -o model.edgeser --name my-model --licence "CC BY-NC-SA 4.0"
  edgeser export runs/final --evaluated runs/ks --unseen runs/corpora -o model.edgeser
  edgeser export runs/final --recogniser words -o model.edgeser
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgeser.cli.options import add_corpus_option, positive, show
from edgeser.export_tools.export import ExportOptions, export, mean_prior
from edgeser.runtime.errors import InputError
from edgeser.training.confidence import temperature, unseen_confidence
from edgeser.training.evaluation import cross_validation
from edgeser.training.trained import TrainedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run with one fold, or a fold's folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="a .edgeser file, or a folder")
    parser.add_argument("--name", help="name of the bundle; the file's")
    parser.add_argument("--bundle-version", default="1.0.0", metavar="V")
    add_corpus_option(parser, "utterances to prove parity on (the training corpus)")
    parser.add_argument("--utterances", type=positive, default=64, help="how many (64, at least 32)")
    parser.add_argument(
        "--evaluated",
        type=Path,
        metavar="RUN",
        help="a cross-validated run of the same recipe: its accuracies, and the temperature of its logits",
    )
    parser.add_argument(
        "--unseen",
        type=Path,
        metavar="RUN",
        help="a run of the same recipe with --protocol leave-one-corpus-out: the temperature is that of corpora it had "
        "not heard, and the bundle says how far its answers can be trusted (without, it does not)",
    )
    parser.add_argument(
        "--recogniser",
        type=Path,
        metavar="FOLDER",
        help="what hears the words, from `edgeser export-encoder --recogniser` (none: the device's own)",
    )
    parser.add_argument("--card", type=Path, metavar="FILE", help="model card, Markdown")
    parser.add_argument("--licence", default="not stated", help="terms that the training data puts on the model")


def run(args: argparse.Namespace) -> int:
    trained = TrainedModel.load(_fold(args.run))
    metrics, scale = {}, 1.0
    if args.evaluated:
        result = cross_validation(args.evaluated)
        metrics[result.protocol.replace("-", " ")] = result.as_dict()
        scale = 1.0 if args.unseen else round(temperature(args.evaluated), 3)
    confidence = None
    if args.unseen:
        scale, confidence = unseen_confidence(args.unseen, trained.labels, mean_prior(trained) is not None)
    if args.card and not args.card.is_file():
        raise InputError(f"{args.card}: no such model card")
    options = ExportOptions(
        out=args.out,
        name=args.name or args.out.stem,
        version=args.bundle_version,
        corpus=args.corpus,
        utterances=args.utterances,
        metrics=metrics,
        temperature=scale,
        confidence=confidence,
        card=args.card.read_text(encoding="utf-8") if args.card else None,
        licence=args.licence,
        recogniser=args.recogniser,
    )
    bundle, reports = export(trained, options)
    for report in reports:
        print(
            f"{report.graph:<9} max |logit difference| {report.max_logit_difference:.1e}, "
            f"labels agree on {report.label_agreement:.0%} of {report.utterances} utterances"
        )
    show(f"wrote {bundle.path}")
    return 0


def _fold(run_folder: Path) -> Path:
    if (run_folder / "model.json").is_file():
        return run_folder
    folds = sorted(run_folder.glob("fold-*/model.json"))
    if len(folds) != 1:
        names = ", ".join(str(fold.parent) for fold in folds) or "none"
        raise InputError(f"{run_folder}: expected a trained fold, or one run with one, found {names}")
    return folds[0].parent
