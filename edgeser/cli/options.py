"""Options that several commands share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeser.corpora import READERS
from edgeser.corpora.checking import MOST
from edgeser.runtime.asr import BUNDLED, RECOGNISERS, check_name
from edgeser.runtime.confidence import LEAST_ANSWERED
from edgeser.runtime.engines import ENGINES
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import UNSURE
from edgeser.runtime.metrics import Metrics
from edgeser.runtime.names import escaped_lines, json_lines
from edgeser.runtime.normalization import NONE, NORMALIZE, RUN, SPEAKER
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.running_mean import RunningMean


def add_runtime_options(parser: argparse.ArgumentParser, asr: str | None = "auto") -> None:
    """Add what every command that loads a Runtime takes."""
    parser.add_argument("--bundle", type=Path, metavar="B", help="a .edgeser file or folder; the default bundle")
    parser.add_argument("--engine", default="auto", choices=["auto", *ENGINES])
    add_asr_options(parser, asr)
    parser.add_argument("--threads", type=positive, default=1, help="threads of the engine (1)")
    add_trusted_option(parser)
    parser.add_argument("--no-self-test", action="store_true", help="do not check the engine on loading")


def add_asr_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add `--asr` and `--isolate-asr`."""
    parser.add_argument(
        "--asr",
        default=default,
        type=asr_name,
        metavar="ASR",
        help=f"who hears the words: auto, {BUNDLED} (the bundle's own), {', '.join(RECOGNISERS)}, or vosk:MODEL, a "
        "folder or a language (vosk:en-us)",
    )
    parser.add_argument("--isolate-asr", action="store_true", help="run it in a process of its own, in case it crashes")


def asr_name(text: str) -> str:
    """Parse a recogniser's name."""
    try:
        return check_name(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def load_runtime(args: argparse.Namespace, asr: str | None = None) -> Runtime:
    """Load the Runtime that the shared options name."""
    return Runtime.load(
        args.bundle,
        engine=args.engine,
        asr=asr or args.asr,
        threads=args.threads,
        self_test=not args.no_self_test,
        isolate_asr=getattr(args, "isolate_asr", False),
        trusted=getattr(args, "trusted", None),
    )


def add_normalize_options(parser: argparse.ArgumentParser) -> None:
    """Add `--normalize` and `--state` of a command that answers many recordings."""
    parser.add_argument(
        "--normalize",
        choices=[NONE, RUN, SPEAKER],
        help="whose mean is taken out of the audio's rows, in two passes: nobody's, that of all these recordings, or "
        f"that of each speaker's, whom the corpus names ({NORMALIZE})",
    )
    help_text = "a running mean that listen has kept, for all recordings, in one pass; it stays as it is"
    parser.add_argument("--state", type=Path, metavar="FILE", help=help_text)


def add_answered_option(parser: argparse.ArgumentParser) -> None:
    """Add `--answered`."""
    parser.add_argument(
        "--answered",
        type=float,
        default=1.0,
        metavar="SHARE",
        help=f"answer so large a share of the utterances, {LEAST_ANSWERED:g} to 1: those whose answers can be trusted "
        f"less are `{UNSURE}`, by what corpora were answered that the model had never heard (1)",
    )


def read_state(args: argparse.Namespace) -> RunningMean | None:
    """Read the file that `--state` names.

    Raises:
        InputError: It is no state, or `--normalize` does not go with one.
    """
    check_state(args)
    return None if args.state is None else RunningMean.load(args.state)


def check_state(args: argparse.Namespace) -> None:
    """Raise `InputError` when `--normalize` does not go with `--state`."""
    if args.state is not None and args.normalize not in (None, RUN):
        raise InputError(f"--state: got {args.state} with --normalize {args.normalize}, expected {RUN}: leave one out")


def add_corpus_option(parser: argparse.ArgumentParser, what: str, *, required: bool = False) -> None:
    """Add `--corpus`, which may be given more than once: `args.corpus` is a list, or `None`."""
    parser.add_argument(
        "--corpus",
        action="append",
        required=required,
        metavar="SPEC",
        help=f"{what}: {', '.join(READERS)}, each with :PATH; ?role=train behind it chooses rows (quote it); may be "
        "given more than once",
    )


def add_test_corpus_option(parser: argparse.ArgumentParser) -> None:
    """Add `--test-corpus`, which may be given more than once: `args.test_corpus` is a list."""
    parser.add_argument(
        "--test-corpus",
        action="append",
        default=[],
        metavar="SPEC",
        help="utterances that may only be tested on, by a fold that trains on all others (leave-one-corpus-out); so "
        "are rows of a manifest whose column role is test; may be given more than once",
    )


def corpus_words(corpora: Sequence[str] | None) -> list[str]:
    """Return a command's words for what `add_corpus_option` took."""
    return [word for spec in corpora or () for word in ("--corpus", spec)]


def add_trusted_option(parser: argparse.ArgumentParser) -> None:
    """Add `--trusted`."""
    help_text = "minisign's public key, or its file: a bundle that it has not signed is refused"
    parser.add_argument("--trusted", metavar="KEY", help=help_text)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_strict_option(parser: argparse.ArgumentParser) -> None:
    """Add `--strict`."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse a corpus with an utterance that cannot be used (too short, no such file, beyond the end of its "
        f"file); without, they are listed and left out where they are at most {MOST:.0%}%",
    )


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json_lines(value))


def show(text: str) -> None:
    """Print lines, whose names may come from data, at once: what could steer a terminal is shown escaped."""
    print(escaped_lines(text), flush=True)


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected at least 1")
    return value


def comma_separated(text: str) -> tuple[str, ...]:
    """Parse `a,b,c`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_ids(file: Path | None) -> frozenset[str]:
    """Read ids, one a line; none where no file is named."""
    if file is None:
        return frozenset()
    if not file.is_file():
        raise InputError(f"{file}: no such file of ids")
    return frozenset(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())


def assignments(pairs: list[str]) -> dict[str, Any]:
    """Parse `name=value` pairs (`layers=[2,3,1]`, `sparse=false`); a value is JSON, or plain text where it is not."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set: got {pair!r}, expected name=value, for example keep_rate=0.3")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
        if isinstance(values[name], list):
            values[name] = tuple(values[name])
    return values


def metrics_text(metrics: Metrics) -> str:
    """Return accuracies, recalls and the confusion matrix as a small table."""
    width = max(len(label) for label in metrics.labels)
    lines = [f"WA {metrics.wa:.3f}   UA {metrics.ua:.3f}   WF1 {metrics.wf1:.3f}   ({metrics.count} utterances)", ""]
    lines.append(" " * (width + 2) + " ".join(f"{label:>8}" for label in metrics.labels) + "   recall")
    for label, row in zip(metrics.labels, metrics.confusion, strict=True):
        recall = metrics.recall.get(label)
        lines.append(
            f"  {label:<{width}}"
            + " ".join(f"{count:>8}" for count in row)
            + (f"   {recall:.3f}" if recall is not None else "   -")
        )
    if metrics.unanswered:
        lines.append(f"no speech found in {sum(metrics.unanswered)} of them, which counts as wrong")
    return "\n".join(lines)
