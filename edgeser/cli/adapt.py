"""Adapt a bundle to one user's voice: a few labelled clips in, a bundle of its own out, in seconds on the device.

What is fitted is a linear correction of the model's answer, held back towards the bundle as it shipped; how far it may
go is found by cross-validation on the clips. Some of them are held out, in turn: where the adapted bundle would not be
better on these, nothing is written and the exit status is 1. 10 clips of each emotion are a good number, 5 a beginning.

Words count where the corpus has transcripts; without, the voice alone is heard. Nothing of the clips, of their words
and of their names is kept in the bundle. A bundle that was adapted before begins again with the one that it came from.

examples:
  edgeser adapt model.edgeser --corpus manifest:mine.csv -o mine.edgeser
  edgeser adapt model.edgeser --corpus manifest:mine.csv --labels angry,neutral -o mine.edgeser
  edgeser adapt model.edgeser --corpus manifest:mine.csv --prior neutral=0.7 -o mine.edgeser
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from edgeser.cli.options import (
    add_corpus_option,
    add_json_option,
    add_strict_option,
    add_trusted_option,
    comma_separated,
    metrics_text,
    positive,
    print_json,
    show,
)
from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.checking import check_utterances, leave_out
from edgeser.corpora.inputs import recording_of
from edgeser.runtime.adapting import (
    Adapted,
    Naming,
    Observations,
    Observer,
    adapt,
    check_adaptable,
    clips_of,
    write_adapted,
)
from edgeser.runtime.engines import ENGINES
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import emotion_name
from edgeser.runtime.normalization import NONE, RUN
from edgeser.runtime.recognizer import Runtime

log = logging.getLogger(__name__)

OF_CLIPS = "clips"
_STEPS = 6  # of fitting: five divisions, and all clips together
_LEAST_PRIOR = 0.001


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a .edgeser file or folder")
    add_corpus_option(parser, "the user's labelled clips", required=True)
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="the adapted bundle: a .edgeser file, or a folder"
    )
    parser.add_argument(
        "--labels", type=comma_separated, metavar="L,…", help="the emotions to answer (all); other clips are left out"
    )
    parser.add_argument(
        "--prior",
        metavar="L=P,…",
        help="how probable emotions are where it will listen, for example neutral=0.7: the others share the rest; "
        f"{OF_CLIPS}: as among the clips (all as probable)",
    )
    parser.add_argument("--without-text", action="store_true", help="as if the corpus had no transcripts")
    parser.add_argument(
        "--normalize",
        choices=(NONE, RUN),
        help=f"{RUN}: take the mean of the clips out of rows, for good; {NONE}: nothing (what the bundle can do)",
    )
    parser.add_argument("--name", help="name of the bundle; the other one's, with -adapted")
    parser.add_argument("--bundle-version", metavar="V", help="its version; the other one's")
    parser.add_argument("--engine", default="auto", choices=["auto", *ENGINES])
    parser.add_argument("--threads", type=positive, default=1, help="threads of the engine (1)")
    add_trusted_option(parser)
    add_strict_option(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    utterances = read_corpus(args.corpus)
    with Runtime.load(
        args.bundle, engine=args.engine, asr="none", threads=args.threads, trusted=args.trusted
    ) as runtime:
        bundle = runtime.bundle
        check_adaptable(bundle, args.out)
        known = bundle.manifest.labels
        labels = _labels(args.labels, known)
        chosen = _chosen(utterances, known, labels, bool(args.labels))
        given = None if args.prior in (None, OF_CLIPS) else parse_prior(args.prior, labels)
        observed = _observed(runtime, chosen, args)
        clips = clips_of(observed, known, labels)
        with tqdm(total=_STEPS, desc="fitting", leave=False, disable=None) as bar:
            found = adapt(bundle, clips, bar.update)
        prior = _shares(clips.counts()) if args.prior == OF_CLIPS else given
        if found.is_better:
            written = write_adapted(bundle, found, Naming(args.name, args.bundle_version, prior), args.out)
    _report(args, found, prior)
    if not found.is_better:
        log.error(
            "not adapted: of %d clips, each held out, UA would be %.3f, as shipped it is %.3f: nothing is written; "
            "record more clips, or keep the bundle",
            *(found.adapted.count, found.adapted.ua, found.shipped.ua),
        )
        return 1
    log.info("wrote %s", written.path)
    return 0


def parse_prior(text: str, labels: Sequence[str]) -> dict[str, float]:
    """Parse `neutral=0.7,sad=0.1`; labels that are not named share what is left.

    Raises:
        InputError: Another form, another emotion, or no probabilities above 0 that sum to 1.
    """
    example = f"for example {labels[0]}=0.7"
    prior: dict[str, float] = {}
    for pair in comma_separated(text):
        name, _, value = pair.partition("=")
        label, share = name.strip(), math.nan
        with contextlib.suppress(ValueError):
            label, share = emotion_name(label), float(value)
        if label not in labels or label in prior or not _LEAST_PRIOR <= share <= 1.0:
            raise InputError(
                f"--prior: got {pair!r}, expected one of {', '.join(labels)}, once, = {_LEAST_PRIOR} to 1, {example}"
            )
        prior[label] = share
    others = [label for label in labels if label not in prior]
    left = 1.0 - sum(prior.values())
    fits = left >= _LEAST_PRIOR * len(others) if others else abs(left) < 0.01
    if not (prior and fits):
        raise InputError(f"--prior: got {text!r}, which leaves {left:.3f} for {', '.join(others) or 'none'}, {example}")
    return _shares({label: prior[label] if label in prior else left / len(others) for label in labels})


def _shares(counts: Mapping[str, float]) -> dict[str, float]:
    total = sum(counts.values())
    return {label: count / total for label, count in counts.items()}


def _labels(given: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return the emotions to answer, in the order of the bundle's."""
    if given is None:
        return tuple(known)
    names = [name if name in known else emotion_name(name) for name in given]
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < 2:
        raise InputError(f"--labels: got {', '.join(given)}, expected 2 or more of {', '.join(known)}")
    return tuple(label for label in known if label in names)


def _chosen(
    utterances: Sequence[Utterance], known: Sequence[str], labels: Sequence[str], named: bool
) -> list[Utterance]:
    """Return the clips with the emotions to answer; where these were not named, others are an error."""
    counts = Counter(u.emotion or "no emotion" for u in utterances)
    others = {label: count for label, count in counts.items() if label not in labels}
    shown = ", ".join(f"{count} of {label}" for label, count in others.items())
    if others and not named:
        raise InputError(
            f"corpus: got clips {shown}, the bundle knows {', '.join(known)}: take them out, or name the emotions that "
            "are to be answered with --labels"
        )
    if others:
        log.info("left out: %s", shown)
    return [u for u in utterances if u.emotion in labels]


def _observed(runtime: Runtime, utterances: Sequence[Utterance], args: argparse.Namespace) -> Observations:
    unusable = dict(check_utterances(utterances).unusable)
    recordings = [
        recording_of(u, None if args.without_text else u.transcript) for u in utterances if u.id not in unusable
    ]
    normalization = runtime.normalization
    normalize = normalization.chosen(args.normalize or (RUN if normalization.is_trained else NONE))
    passes = 1 if normalize == NONE else 2
    with (
        tqdm(total=passes * len(recordings), desc="listening", unit="clip", leave=False, disable=None) as bar,
        Observer(runtime, bar.update) as observer,
    ):
        cold = observer.observe(recordings)
        leave_out({**unusable, **cold.unusable}, len(utterances), args.strict)
        return cold if normalize == NONE else observer.centered(cold)


def _report(args: argparse.Namespace, found: Adapted, prior: Mapping[str, float] | None) -> None:
    if args.json:
        out = str(args.out) if found.is_better else None
        print_json({**found.as_dict(), "prior": prior, "out": out})
        return
    counts = ", ".join(f"{count} {label}" for label, count in found.clips.counts().items())
    show(f"recordings: {counts}\n\nas shipped\n{metrics_text(found.shipped)}\n")
    show(f"adapted, each clip by a fit that did not know it\n{metrics_text(found.adapted)}")
