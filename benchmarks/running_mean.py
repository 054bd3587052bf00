"""What the mean of what was heard buys as it grows: clips one after another, as a stream or a device hears them.

Each corpus' clips come in a random order, several times; each is answered with the mean of those before it taken out of
its rows (`Runtime.open_state`, which begins at the training mean). Beside it: every clip cold, and with the mean of the
whole corpus, as `edgeser score --normalize run` has it in its second pass. Unweighted accuracy of the voice alone.

  python benchmarks/running_mean.py --corpus 'manifest:voices/manifest.csv?role=test'
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from robustness import by_corpus
from tqdm import tqdm

from edgeser.corpora import Utterance
from edgeser.corpora.inputs import load_utterance, stack_features
from edgeser.runtime.frontends import AudioFrontend, Features, TextFrontend
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.metrics import measure
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.running_mean import RunningMean

_FIRST = (1, 5, 20)


@dataclass(frozen=True)
class Heard:
    """A corpus whose features are there.

    Attributes:
        emotions: Of each clip.
        features: Of each, nothing taken out of its rows.
    """

    emotions: Sequence[str]
    features: Sequence[Features]


def hear(runtime: Runtime, utterances: Sequence[Utterance]) -> Heard:
    """Run the speech encoder over all clips."""
    frontend = runtime.frontends["audio"]
    assert isinstance(frontend, AudioFrontend)
    features = [frontend(load_utterance(one)) for one in tqdm(utterances, unit="clip", leave=False, disable=None)]
    return Heard([str(one.emotion) for one in utterances], features)


def answer(runtime: Runtime, features: Features, shift: Rows) -> str:
    """Return the label of a clip with a shift taken out of its rows."""
    text = {name: f("") for name, f in runtime.frontends.items() if isinstance(f, TextFrontend)}
    feeds = stack_features({"audio": [features.without(shift)], **{name: [one] for name, one in text.items()}})
    return runtime.labels[int(runtime.engine.run(feeds)["logits"][0].argmax())]


def in_order(runtime: Runtime, heard: Heard, order: Sequence[int], state: RunningMean) -> list[str]:
    """Return the labels of clips, in their own order, that were heard in another one."""
    labels = [""] * len(order)
    for place in order:
        features = heard.features[place]
        labels[place] = answer(runtime, features, runtime.normalization.shift(state))
        mean = features.mean()
        if mean is not None:
            state.add(mean)
    return labels


def rows(runtime: Runtime, heard: Heard, orders: int) -> Iterator[tuple[str, float]]:
    """Yield how the clips were heard, and the unweighted accuracy."""

    def accuracy(labels: Sequence[str], places: Sequence[int]) -> float:
        chosen = [labels[place] for place in places]
        return measure(chosen, [heard.emotions[place] for place in places], runtime.labels).ua

    everyone = range(len(heard.features))
    none = np.zeros_like(runtime.normalization.shift(runtime.open_state()))
    yield "cold", accuracy([answer(runtime, one, none) for one in heard.features], everyone)
    found: dict[str, list[float]] = {}
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(len(everyone)).tolist()
        labels = in_order(runtime, heard, order, runtime.open_state())
        found.setdefault("what came before", []).append(accuracy(labels, everyone))
        for first in (one for one in _FIRST if one < len(order)):
            found.setdefault(f"the same, without the first {first}", []).append(accuracy(labels, order[first:]))
    yield from ((name, float(np.mean(values))) for name, values in found.items())
    whole = runtime.open_state()
    for one in heard.features:
        mean = one.mean()
        if mean is not None:
            whole.add(mean)
    shift = runtime.normalization.shift(whole)
    yield "the whole corpus", accuracy([answer(runtime, one, shift) for one in heard.features], everyone)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, help="the one that ships")
    parser.add_argument("--corpus", action="append", required=True, metavar="READER:PATH", help="may be given again")
    parser.add_argument("--clips", type=int, default=0, metavar="N", help="of each corpus, balanced; all")
    parser.add_argument("--orders", type=int, default=5, metavar="N", help="random orders (5)")
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    with Runtime.load(args.bundle, engine=args.engine, asr="none") as runtime:
        corpora = by_corpus(args.corpus, runtime.labels, args.clips, 1)
        measured = {name: dict(rows(runtime, hear(runtime, group), args.orders)) for name, group in corpora.items()}
    print(f"| mean taken out | {' | '.join(measured)} | mean |")
    print(f"|---|{'---|' * (len(measured) + 1)}")
    for name in next(iter(measured.values())):
        values = [column[name] for column in measured.values()]
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} | {np.mean(values):.3f} |")
    print(f"\nUA, voice alone, {args.orders} orders.\n`python {shlex.join(sys.argv)}`")


if __name__ == "__main__":
    main()
