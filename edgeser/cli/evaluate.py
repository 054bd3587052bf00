"""Accuracies: of a run on what it held out, of several runs of one experiment, or of a bundle on a corpus.

Several runs, for example with different seeds, give the mean and the standard deviation over the runs of each one's
mean over its folds. Logistic regression on the mean of the same rows stands beside a run's own figures, and where the
speakers are known the interval that the accuracy would stay in with other speakers, by a bootstrap over them.

Whether it can be known which answers to trust: the expected calibration error of the probabilities, and how many are
right when only the surest are answered.

With --figures, a confusion matrix, bars of the sessions, that curve and, of a bundle, what a few answers came from: the
audio and the words that it attended to. A run has no explanations: export a fold and evaluate that bundle on its
session.

examples:
  edgeser evaluate runs/ks --figures figures
  edgeser evaluate runs/ks --faithfulness
  edgeser evaluate runs/seed1 runs/seed2 runs/seed3
  edgeser evaluate model.edgeser --corpus manifest:corpus.csv
  edgeser evaluate fold5.edgeser --corpus manifest:corpus.csv --sessions 5 --figures figures --explain 8
"""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edgeser import __version__
from edgeser.cli.options import (
    add_corpus_option,
    add_json_option,
    add_normalize_options,
    add_strict_option,
    corpus_words,
    metrics_text,
    positive,
    print_json,
    read_state,
    show,
)
from edgeser.cli.run_report import (
    answered_of_run,
    interval_text,
    reliability_text,
    report_run,
    report_runs,
    run_values,
)
from edgeser.corpora import Utterance, corpus_text, read_corpus
from edgeser.corpora.checking import usable_utterances
from edgeser.corpora.inputs import recording_of
from edgeser.corpora.splits import SESSIONS
from edgeser.figures import Explanation, Report, check_report, explain, write_report
from edgeser.figures.explanation import spread
from edgeser.runtime.errors import InputError
from edgeser.runtime.metrics import Metrics, measure
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.results import Result
from edgeser.runtime.scoring import Job, Plan, do, normalized, score
from edgeser.training import faithfulness
from edgeser.training.confidence import Judged, Reliability
from edgeser.training.evaluation import HeldOut, cross_validation, repeated

log = logging.getLogger(__name__)

_EXPLAINED = 4


@dataclass(frozen=True)
class BundleEvaluation:
    """What a bundle did on a corpus.

    Attributes:
        all: Over all utterances, with counts by speaker.
        sessions: By session; empty unless every utterance has one.
        explanations: Of the utterances asked for.
        model: Name and version of the bundle, and the hash that names it.
        plan: Whose mean was taken out of the audio's rows.
        reliability: How far its answers can be trusted, by corpus; `None` where no speech was found in any.
    """

    all: HeldOut
    sessions: Mapping[str, Metrics]
    explanations: Sequence[Explanation]
    model: str
    plan: str
    reliability: Reliability | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", type=Path, nargs="+", metavar="RUN|BUNDLE", help="a run's folder, several of them, or a bundle"
    )
    add_corpus_option(parser, "with a bundle: labelled utterances")
    parser.add_argument("--sessions", help="with a bundle: only these sessions, for example 5")
    parser.add_argument("--without-text", action="store_true", help="with a bundle: as if no words were recognised")
    add_normalize_options(parser)
    parser.add_argument("--threads", type=positive, default=1, help="threads of the engine (1)")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw PNGs and report.html into this folder")
    parser.add_argument(
        "--explain",
        type=positive,
        metavar="N",
        help=f"with a bundle and --figures: draw what N answers came from ({_EXPLAINED}), spread over the emotions",
    )
    parser.add_argument(
        "--faithfulness",
        action="store_true",
        help="with a run: does taking away what mattered cost more than taking away as much at random? (minutes)",
    )
    add_strict_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    if len(args.what) > 1:
        return _run_on_runs(args)
    (args.what,) = args.what
    is_run = (args.what / "run.json").is_file()
    _check_figures(args, is_run)
    return _run_on_run(args) if is_run else _run_on_bundle(args)


def _run_on_runs(args: argparse.Namespace) -> int:
    for name in ("corpus", "sessions", "figures", "explain", "faithfulness", "without_text", "normalize", "state"):
        if getattr(args, name):
            raise InputError(f"--{name.replace('_', '-')}: got {len(args.what)} runs, it takes one: leave it out")
    result = repeated(args.what)
    print_json(result.as_dict()) if args.json else show(report_runs(result))
    return 0


def evaluate_bundle(args: argparse.Namespace) -> BundleEvaluation:
    """Run a bundle over a labelled corpus through the Runtime, with the corpus's transcripts."""
    if not args.corpus:
        raise InputError(f"{args.what}: is no run; a bundle needs --corpus, for example manifest:corpus.csv")
    with Runtime.load(args.what, asr="none", threads=args.threads) as runtime:
        utterances = _utterances(args, runtime.labels)
        plan = Plan.of(runtime.normalization, args.normalize, read_state(args))
        recordings = normalized(
            plan,
            [recording_of(u, "" if args.without_text else u.transcript or "") for u in utterances],
            lambda todo: tqdm(do(Job.MEAN, runtime, todo), "means", len(todo), unit="clip", leave=False),
        )
        results = []
        for scored in tqdm(score(runtime, recordings), total=len(recordings), unit="clip", leave=False):
            if scored.result is None:
                raise InputError(f"{scored.recording.id}: {scored.error}")
            results.append(scored.result)
        predicted = [result.label for result in results]
        explained = spread(recordings, runtime.labels, args.explain or _EXPLAINED) if args.figures else []
        manifest = runtime.bundle.manifest
        return BundleEvaluation(
            HeldOut.of_answers(utterances, predicted, runtime.labels),
            _by_session(utterances, predicted, runtime.labels),
            explain(runtime, explained) if explained else (),
            f"{manifest.name} {manifest.version}, manifest SHA-256 {runtime.bundle.sha256}",
            str(plan),
            _reliability(utterances, results),
        )


def faithfulness_text(found: faithfulness.Faithfulness) -> str:
    """Return a faithfulness measurement as a small table."""
    lines = [
        "",
        f"{found.modality}: fall of the predicted emotion's probability, {found.utterances} utterances of "
        f"{found.recordings} recordings",
        f"  {'important':<12}{found.falls['important']:.3f}",
    ]
    for control, (low, high) in found.interval.items():
        lines.append(
            f"  {control:<12}{found.falls[control]:.3f}   important falls further by {found.advantage[control]:.3f} "
            f"(95 % interval {low:.3f} to {high:.3f})"
        )
    return "\n".join(lines)


def command_line(args: argparse.Namespace) -> str:
    """Return the command that these arguments were, ready to be pasted into a shell."""
    words = ["edgeser", "evaluate", str(args.what), *corpus_words(args.corpus)]
    for name in ("sessions", "normalize", "state", "figures", "explain"):
        value = getattr(args, name)
        words += [] if value is None else [f"--{name}", str(value)]
    words += ["--faithfulness"] if args.faithfulness else []
    words += ["--without-text"] if args.without_text else []
    words += ["--threads", str(args.threads)] if args.threads != 1 else []
    return shlex.join(words)


def _check_figures(args: argparse.Namespace, is_run: bool) -> None:
    if args.explain is not None and args.figures is None:
        raise InputError(f"--explain: got {args.explain} without --figures: name a folder to draw into, --figures DIR")
    if args.explain is not None and is_run:
        raise InputError(
            f"--explain: {args.what} is a run, expected a bundle: run `edgeser export` on a fold, "
            "then evaluate the bundle with --corpus and --sessions"
        )
    if args.figures is not None:
        check_report(args.figures)
    if args.faithfulness and not is_run:
        raise InputError(f"--faithfulness: {args.what} is no run, expected one: its held-out utterances are needed")


def _run_on_run(args: argparse.Namespace) -> int:
    for name in ("corpus", "normalize", "state"):
        if getattr(args, name):
            raise InputError(f"--{name}: {args.what} is a run, it has its predictions already: leave it out")
    result = cross_validation(args.what)
    found = faithfulness.of_run(args.what) if args.faithfulness else []
    if args.json:
        measured = {"faithfulness": [asdict(one) for one in found]} if found else {}
        print_json({**run_values(args.what), **measured})
    else:
        show(report_run(args.what))
        for one in found:
            show(faithfulness_text(one))
    if args.figures:
        report = Report(
            f"Evaluation of {args.what}",
            command_line(args),
            result.pooled,
            result.folds,
            "held-out session" if result.protocol in (SESSIONS, "rotating") else "held-out fold",
            facts={"run": str(args.what), "edgeser": __version__},
            answered=answered_of_run(args.what),
        )
        _write(args.figures, report)
    return 0


def _run_on_bundle(args: argparse.Namespace) -> int:
    result = evaluate_bundle(args)
    if args.json:
        trusted = {} if result.reliability is None else {"confidence": result.reliability.as_dict()}
        print_json({**result.all.as_dict(), **trusted})
    else:
        show("\n".join(filter(None, (metrics_text(result.all.metrics), interval_text(result.all)))))
        if result.reliability is not None:
            show(f"\n{reliability_text(result.reliability)}")
    if args.figures:
        report = Report(
            f"Evaluation of {args.what}",
            command_line(args),
            result.all.metrics,
            result.sessions,
            explanations=result.explanations,
            facts={
                "bundle": result.model,
                "corpus": corpus_text(args.corpus),
                "explained": f"{len(result.explanations)} utterances, spread over the emotions, not chosen by outcome",
                "mean taken out": result.plan,
                "words": "left out" if args.without_text else "the corpus's transcripts",
                "edgeser": __version__,
            },
            answered={} if result.reliability is None else {result.plan: result.reliability.accuracy},
        )
        _write(args.figures, report)
    return 0


def _write(folder: Path, report: Report) -> None:
    *_, page = write_report(folder, report)
    log.info("wrote %s", page)


def _utterances(args: argparse.Namespace, labels: Sequence[str]) -> list[Utterance]:
    utterances = [u for u in read_corpus(args.corpus) if u.emotion in labels]
    if args.sessions:
        utterances = [u for u in utterances if u.session in args.sessions.split(",")]
    if not utterances:
        raise InputError(f"{corpus_text(args.corpus)}: no utterances with {', '.join(labels)} in these sessions")
    return usable_utterances(utterances, args.strict)


def _reliability(utterances: Sequence[Utterance], results: Sequence[Result]) -> Reliability | None:
    """Measure what a bundle's probabilities, and its confidence where it has one, were worth on each corpus."""
    corpora: dict[str, list[tuple[bool, float, float | None]]] = {}
    for utterance, result in zip(utterances, results, strict=True):
        if result.probability is not None:  # where there is no speech nothing is claimed
            judged = (result.label == utterance.emotion, result.probability, result.confidence)
            corpora.setdefault(utterance.corpus or "all", []).append(judged)
    parts = {}
    for name, answers in corpora.items():
        right, probability, confidence = (np.array(column) for column in zip(*answers, strict=True))
        parts[name] = Judged(right, probability, None if confidence.dtype == object else confidence)
    return Reliability.of(parts) if parts else None


def _by_session(utterances: Sequence[Utterance], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Metrics]:
    """Return the accuracies of each session; none where an utterance has no session, for it would be left out."""
    names = sorted({u.session for u in utterances})
    if "" in names:
        return {}
    pairs: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in names}
    for utterance, guess in zip(utterances, predicted, strict=True):
        pairs[utterance.session][0].append(guess)
        pairs[utterance.session][1].append(str(utterance.emotion))
    return {name: measure(guesses, truths, labels) for name, (guesses, truths) in pairs.items()}
