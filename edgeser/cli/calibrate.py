"""Turn a floating-point bundle into an INT8 bundle, and show what that cost.

The bundle is calibrated on utterances of a corpus, drawn by emotion and speaker, never on the sessions, speakers or ids
that are excluded; FP32 and INT8 are compared on a validation set of other recordings and on what was excluded.

examples:
  edgeser calibrate model.edgeser --corpus manifest:corpus.csv --exclude-sessions 5 -o model.int8.edgeser
  edgeser calibrate model.edgeser --corpus iemocap:IEMOCAP_full_release --exclude-sessions 5 --max-drop 0.005 \\
    --figures figures -o model.int8.edgeser
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edgeser import __version__
from edgeser.calibration.calibrate import CalibrationOptions, calibrate
from edgeser.calibration.parts import Progress
from edgeser.calibration.placement import PRESETS
from edgeser.calibration.ranges import METHODS, Method
from edgeser.calibration.report import CalibrationReport
from edgeser.calibration.sampling import Sampling
from edgeser.cli.options import (
    add_corpus_option,
    add_json_option,
    add_strict_option,
    comma_separated,
    corpus_words,
    positive,
    print_json,
    read_ids,
    show,
)
from edgeser.corpora import corpus_text, make_folds, read_corpus
from edgeser.corpora.splits import SESSIONS, SPEAKERS
from edgeser.runtime.bundle import Bundle

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a floating-point .edgeser file or folder")
    add_corpus_option(parser, "labelled utterances", required=True)
    parser.add_argument("-o", "--out", type=Path, required=True, help="the INT8 bundle: a .edgeser file, or a folder")
    presets = "; ".join(f"{preset.name}: {preset.why}" for preset in PRESETS.values())
    parser.add_argument(
        "--spoken",
        metavar="CORPUS",
        help="more for a recogniser to be watched on: recordings of many words, which need no emotion. Two sentences "
        "over and over, as acted corpora have, are too few",
    )
    parser.add_argument("--preset", default="tensorrt", choices=list(PRESETS), help=f"{presets} (tensorrt)")
    parser.add_argument("--method", default="mse", choices=list(METHODS), help="how ranges are found (mse)")
    parser.add_argument("--percentile", type=float, default=99.99, help="with --method percentile (99.99)")
    parser.add_argument("--no-smoothing", action="store_true", help="do not even activations out first")
    parser.add_argument("--no-packing", action="store_true", help="keep embedding tables as they are, not in 5 bits")
    parser.add_argument("--count", type=positive, default=128, help="utterances to calibrate on (128)")
    parser.add_argument("--validation", type=positive, default=200, help="utterances to validate on (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument(
        "--exclude-sessions",
        type=comma_separated,
        metavar="S,…",
        help="sessions that the evaluation will use; by default the one that the model was not trained on",
    )
    parser.add_argument("--exclude-speakers", type=comma_separated, default=(), metavar="S,…", help="speakers likewise")
    parser.add_argument("--exclude", type=Path, metavar="FILE", help="ids to leave out, one a line")
    parser.add_argument(
        "--float", type=comma_separated, default=(), metavar="LAYER,…", help="layers to leave in floating point"
    )
    parser.add_argument("--sensitivity", action="store_true", help="rank the layers by the damage each does (minutes)")
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="D",
        help="leave the worst layers in floating point until UA falls by no more on the validation set, e.g. 0.005",
    )
    parser.add_argument("--name", help="name of the bundle; the floating-point one's")
    parser.add_argument("--bundle-version", metavar="V", help="its version; the floating-point one's")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write the report as one page into this folder")
    add_strict_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    if args.figures is not None:
        from edgeser.figures import check_report

        check_report(args.figures)
    bundle = Bundle.open(args.bundle)
    options = CalibrationOptions(
        corpus=args.corpus,
        out=args.out,
        preset=args.preset,
        method=Method(args.method, args.percentile),
        smoothing=not args.no_smoothing,
        packing=not args.no_packing,
        sampling=Sampling(
            count=args.count,
            validation=args.validation,
            seed=args.seed,
            **_left_out(args, bundle),
        ),
        in_float=args.float,
        sensitivity=args.sensitivity,
        max_drop=args.max_drop,
        name=args.name,
        version=args.bundle_version,
        strict=args.strict,
        spoken=args.spoken,
    )
    written, report = calibrate(bundle, options, _bar)
    print_json(report.as_dict()) if args.json else show(report.text())
    if args.figures is not None:
        _draw(args, report)
    log.info("wrote %s", written.path)
    return 0


def command_line(args: argparse.Namespace) -> str:
    """Return the command that these arguments were, as far as they matter, ready for a shell."""
    words = ["edgeser", "calibrate", str(args.bundle), *corpus_words(args.corpus), "-o", str(args.out)]
    words += ["--spoken", args.spoken] if args.spoken else []
    words += ["--preset", args.preset, "--method", args.method, "--count", str(args.count), "--seed", str(args.seed)]
    for name in ("exclude_sessions", "exclude_speakers", "float"):
        value = getattr(args, name)
        words += [f"--{name.replace('_', '-')}", ",".join(value)] if value else []
    words += ["--max-drop", str(args.max_drop)] if args.max_drop is not None else []
    words += ["--sensitivity"] if args.sensitivity else []
    words += ["--no-smoothing"] if args.no_smoothing else []
    words += ["--no-packing"] if args.no_packing else []
    return shlex.join(words)


def _left_out(args: argparse.Namespace, bundle: Bundle) -> dict[str, Any]:
    """Return what `Sampling` leaves alone: what was named, or what training held out, by its protocol."""
    named = {"exclude_speakers": args.exclude_speakers, "exclude": read_ids(args.exclude)}
    if args.exclude_sessions is not None:
        return {**named, "exclude_sessions": tuple(args.exclude_sessions)}
    training = bundle.manifest.provenance.get("training", {})
    held_out, protocol = training.get("held_out"), training.get("protocol", SESSIONS)
    if held_out in (None, "all"):  # trained on everything
        return named
    log.info("%s (%s) is left out: the model was not trained on it", held_out, protocol)
    if protocol in (SESSIONS, "rotating"):
        return {**named, "exclude_sessions": (str(held_out),)}
    if protocol == SPEAKERS:
        return {**named, "exclude_speakers": (*args.exclude_speakers, str(held_out))}
    labelled = [u for u in read_corpus(args.corpus) if u.emotion in bundle.manifest.labels]
    fold = make_folds(protocol, labelled, (str(held_out),), int(training.get("split_seed", 1)))[0]
    return {**named, "exclude": named["exclude"] | {u.id for u in fold.test}}


def _draw(args: argparse.Namespace, report: CalibrationReport) -> None:
    from edgeser.figures.calibration import write_calibration

    page = write_calibration(
        args.figures, report, command_line(args), {"edgeser": __version__, "corpus": corpus_text(args.corpus)}
    )
    log.info("wrote %s", page)


@contextlib.contextmanager
def _bar(what: str, steps: int) -> Iterator[Progress]:
    with tqdm(total=steps, desc=what, leave=False, disable=None) as bar:
        yield bar.update
