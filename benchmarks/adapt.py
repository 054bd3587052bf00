"""What some labelled clips of a voice buy: accuracy on the others, before and after `edgeser adapt`, by how many clips.

From each corpus, or each of its speakers with `--by speaker`, clips of each emotion are drawn at random, the bundle is
adapted to them, and all remaining clips are answered, by voice alone, among the emotions of that corpus. Where adapting
refuses, the figures are those of the bundle as it shipped, which is what its user keeps. With `--normalize run`, for
bundles with a `mean_prior`, the mean of the drawn clips is taken out of all rows, before and after. Intervals are a
bootstrap over speakers, of the mean over draws.

  python benchmarks/adapt.py --corpus 'manifest:voices/manifest.csv?role=test' --by speaker
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.checking import usable_utterances
from edgeser.corpora.inputs import recording_of
from edgeser.runtime.adapting import Observations, Observed, Observer, adapt, clips_of
from edgeser.runtime.adapting.clips import LEAST_OF_A_CLASS
from edgeser.runtime.normalization import NONE, RUN
from edgeser.runtime.pipeline import Heard, softmax
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.scoring import Recording
from edgeser.training.confidence import calibration_error
from edgeser.training.evaluation import HeldOut
from edgeser.training.intervals import LEVEL, speaker_interval


class RememberingObserver(Observer):
    """An observer that runs the encoder once for each recording, however often it is heard."""

    def __init__(self, runtime: Runtime, tick: Callable[[], object] = lambda: None) -> None:
        super().__init__(runtime, tick)
        self._memory: dict[str, tuple[str, Heard] | str] = {}

    def hear(self, recording: Recording) -> tuple[str, Heard] | str:
        if recording.id not in self._memory:
            self._memory[recording.id] = super().hear(recording)
        return self._memory[recording.id]


@dataclass(frozen=True)
class Voice:
    """What a bundle is adapted to: a corpus, or one speaker of it.

    Attributes:
        labels: Emotions that occur, in the order of the bundle's.
        utterances: By id.
        observed: Those with speech.
    """

    labels: tuple[str, ...]
    utterances: Mapping[str, Utterance]
    observed: Sequence[Observed]

    def draw(self, count: int, seed: int) -> tuple[list[Observed], list[Observed]]:
        """Return so many clips of each emotion, drawn at random, and all others."""
        random = np.random.default_rng(seed)
        emotions = np.array([one.recording.emotion for one in self.observed])
        drawn = {i for label in self.labels for i in random.permutation(np.flatnonzero(emotions == label))[:count]}
        chosen = [one for i, one in enumerate(self.observed) if i in drawn]
        return chosen, [one for i, one in enumerate(self.observed) if i not in drawn]

    def spares(self, count: int) -> bool:
        """Whether enough of each emotion are left to test on when so many are drawn."""
        each = Counter(one.recording.emotion for one in self.observed)
        return min(each[label] for label in self.labels) >= count + LEAST_OF_A_CLASS


@dataclass(frozen=True)
class Answers:
    """What became of the clips that were not drawn.

    Attributes:
        utterances: The clips.
        shipped: `(n, labels)`, probabilities by the bundle as it shipped.
        adapted: The same by the one that its user has then.
        is_refused: Whether it is the same bundle.
    """

    utterances: Sequence[Utterance]
    shipped: NDArray[np.float64]
    adapted: NDArray[np.float64]
    is_refused: bool


def answers(runtime: Runtime, observer: Observer, voice: Voice, count: int, seed: int, normalize: str) -> Answers:
    """Adapt to some clips of a voice and answer the others."""
    chosen, rest = voice.draw(count, seed)
    found = Observations(chosen, {})
    if normalize == RUN:
        found = observer.centered(found)
        if found.heard is not None:
            rest = observer.shifted(rest, runtime.normalization.shift(found.heard))
    adapted = adapt(runtime.bundle, clips_of(found, runtime.bundle.manifest.labels, voice.labels))
    logits = np.stack([one.logits for one in rest])
    shipped = softmax(logits[:, adapted.adaptation.classes])
    better = softmax(adapted.adaptation.apply(logits, np.stack([one.mean for one in rest])))
    return Answers(
        [voice.utterances[one.recording.id] for one in rest],
        shipped,
        better if adapted.is_better else shipped,
        not adapted.is_better,
    )


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        corpus: Its name.
        count: Clips of each emotion that were drawn.
        voices: Corpora or speakers that were adapted to.
        shipped: Of each draw.
        adapted: Of each draw.
        errors: Expected calibration errors, as shipped and adapted, means over the draws.
        refused: Share of the adaptations that were refused.
    """

    corpus: str
    count: int
    voices: int
    shipped: Sequence[HeldOut]
    adapted: Sequence[HeldOut]
    errors: tuple[float, float]
    refused: float

    @classmethod
    def of(cls, corpus: str, count: int, labels: Sequence[str], draws: Sequence[Sequence[Answers]]) -> Row:
        """Measure answers: of each draw, those of each voice."""
        shipped, before = _judged(draws, "shipped", labels)
        adapted, after = _judged(draws, "adapted", labels)
        refused = float(np.mean([one.is_refused for draw in draws for one in draw]))
        return cls(corpus, count, len(draws[0]), shipped, adapted, (before, after), refused)

    @property
    def uas(self) -> tuple[float, float]:
        """Unweighted accuracy as shipped and adapted, means over the draws."""
        shipped, adapted = (float(np.mean([one.metrics.ua for one in p])) for p in (self.shipped, self.adapted))
        return shipped, adapted


def _judged(draws: Sequence[Sequence[Answers]], which: str, labels: Sequence[str]) -> tuple[list[HeldOut], float]:
    """Return how good the answers of each draw are, and their calibration error, the mean over the draws."""
    found, errors = [], []
    for draw in draws:
        utterances = [u for one in draw for u in one.utterances]
        probabilities = np.concatenate([getattr(one, which) for one in draw])
        named = [labels[i] for i in probabilities.argmax(axis=1)]
        right = np.array([u.emotion == name for u, name in zip(utterances, named, strict=True)])
        found.append(HeldOut.of_answers(utterances, named, labels))
        errors.append(calibration_error(probabilities.max(axis=1), right))
    return found, float(np.mean(errors))


def voices_of(observer: Observer, utterances: Sequence[Utterance], known: Sequence[str], by: str) -> list[Voice]:
    """Hear a corpus, or each of its speakers."""
    groups: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        groups[utterance.speaker if by == "speaker" else ""].append(utterance)
    labels = tuple(label for label in known if any(u.emotion == label for u in utterances))
    found = []
    for group in groups.values():
        observed = observer.observe([recording_of(u, None) for u in group]).observed
        found.append(Voice(labels, {u.id: u for u in group}, observed))
    return found


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of the table; what cannot be measured is said on standard error."""
    with Runtime.load(args.bundle, engine=args.engine, asr="none", threads=args.threads) as runtime:
        known = runtime.bundle.manifest.labels
        recordings = {u.recording: u for u in read_corpus(args.corpus) if u.emotion in known}
        corpora: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in usable_utterances(list(recordings.values())):
            corpora[utterance.corpus].append(utterance)
        for name, utterances in corpora.items():
            with (
                tqdm(desc=f"{name}, listening", unit="clip", disable=None, leave=False) as bar,
                RememberingObserver(runtime, bar.update) as observer,
            ):
                everyone = voices_of(observer, utterances, known, args.by)
                for count in args.clips:
                    voices = [voice for voice in everyone if voice.spares(count)]
                    if len(voices) < len(everyone):
                        few = f"fewer than {count + LEAST_OF_A_CLASS} clips of an emotion"
                        print(f"{name}: left out: {len(everyone) - len(voices)}, {few}", file=sys.stderr)
                    if voices:
                        draws = [
                            [answers(runtime, observer, voice, count, seed, args.normalize) for voice in voices]
                            for seed in range(1, args.draws + 1)
                        ]
                        yield Row.of(name, count, voices[0].labels, draws)


def table(rows: Sequence[Row], by: str) -> Iterator[str]:
    """Yield a Markdown table: a row for each corpus and number of clips, and the means over corpora."""
    names = ("speakers adapted to", "as shipped", "adapted", "gain")
    more = (f"adapted: {100 * LEVEL:g} % over speakers", "calibration error, as shipped", "adapted", "refused")
    yield f"| corpus | clips of each emotion | {' | '.join(names[by != 'speaker' :] + more)} |"
    yield f"|---|{'---|' * (len(names) + len(more) + (by == 'speaker'))}"
    for row in rows:
        shipped, adapted = row.uas
        interval = speaker_interval([[one.speakers] for one in row.adapted], "ua") or ""
        voices = f" {row.voices} |" if by == "speaker" else ""
        yield (
            f"| {row.corpus} | {row.count} |{voices} {shipped:.3f} | {adapted:.3f} | {100 * (adapted - shipped):+.1f} "
            f"| {interval} | {row.errors[0]:.3f} | {row.errors[1]:.3f} | {100 * row.refused:.0f} % |"
        )
    for count in dict.fromkeys(row.count for row in rows):
        some = [row for row in rows if row.count == count]
        shipped, adapted = np.mean([row.uas for row in some], axis=0)
        before, after = np.mean([row.errors for row in some], axis=0)
        voices = f" {sum(row.voices for row in some)} |" if by == "speaker" else ""
        refused = np.mean([row.refused for row in some])
        yield (
            f"| **mean of {len(some)}** | {count} |{voices} {shipped:.3f} | {adapted:.3f} | "
            f"{100 * (adapted - shipped):+.1f} | | {before:.3f} | {after:.3f} | {100 * refused:.0f} % |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path, help="the one that ships")
    parser.add_argument("--corpus", action="append", required=True, metavar="READER:PATH", help="may be given again")
    parser.add_argument("--clips", nargs="+", type=int, default=[5, 10, 20], help="of each emotion (5 10 20)")
    parser.add_argument("--draws", type=int, default=5, help="of the clips, by seeds 1 to so many (5)")
    parser.add_argument("--by", choices=("corpus", "speaker"), default="corpus", help="whose clips are drawn (corpus)")
    parser.add_argument("--normalize", choices=(NONE, RUN), default=NONE, help="take out the mean of the drawn clips")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    rows = list(measure(args))
    if not rows:
        raise SystemExit("no corpus and no speaker has enough clips: nothing was measured")
    print("\n".join(table(rows, args.by)))
    print(f"\nUA, voice alone; means over {args.draws} draws; gain in points. {platform.machine()} CPU.")
    print(f"`python {shlex.join(sys.argv)}`")


if __name__ == "__main__":
    main()
