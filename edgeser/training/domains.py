"""The mean of a domain's rows, and how much of it training takes out of a sample's.

On the device a running mean of what was heard so far is taken out of the rows, with a prior at the training mean: it
begins at nothing and comes to know the voice, the room and the microphone. A model that is to serve from the first
utterance on has to meet all of it in training: samples with nothing taken out, with the mean of few recordings, with
the mean of many, and also with the mean of a device that has heard one emotion most of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeser.corpora import Utterance
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import AudioFrontend, Rows, Statistics
from edgeser.runtime.running_mean import shift_of
from edgeser.training.copies import copy_key
from edgeser.training.features import RecordingFeatures, audio_key

DOMAINS = ("corpus", "speaker", "both")
_CONCENTRATION = 0.3  # of the Dirichlet: the most frequent of four emotions has 0.7 of the weight on average


@dataclass(frozen=True)
class MeanShift:
    """How the mean of a sample's domain is drawn.

    Attributes:
        prior: Utterances that the training mean counts as; 0 takes nothing out of any sample.
        cold_share: Share of the samples that nothing is taken out of.
        domain: Whose mean it is: the sample's `corpus`, its `speaker`, or `both`, either of them drawn.
        recordings: Most recordings that a mean is of; their number is drawn log-uniformly, from one on.
        skewed_share: Share of the other samples whose mean is of recordings with unequal shares of the emotions.
    """

    prior: float = 0.0
    cold_share: float = 0.3
    domain: str = "both"
    recordings: int = 100
    skewed_share: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.prior < np.inf:
            raise InputError(f"recipe: got mean_prior {self.prior}, expected 0 or more")
        if self.domain not in DOMAINS:
            raise InputError(f"recipe: got mean_domain {self.domain!r}, expected one of {', '.join(DOMAINS)}")
        if self.recordings < 1:
            raise InputError(f"recipe: got mean_recordings {self.recordings}, expected 1 or more")
        for name in ("cold_share", "skewed_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"recipe: got {name} {getattr(self, name)}, expected 0 to 1")


class Shifts(Protocol):
    """Says what is taken out of an utterance's standardised rows."""

    def draw(self, utterance: Utterance, rng: np.random.Generator) -> Rows | None:
        """Return `(dim,)` float32, or `None` for nothing."""


@dataclass(frozen=True)
class CorpusShifts:
    """The same for every utterance of a corpus.

    Attributes:
        rows: By corpus, `(dim,)` float32.
    """

    rows: Mapping[str, Rows]

    def draw(self, utterance: Utterance, rng: np.random.Generator) -> Rows | None:
        return self.rows[utterance.corpus]


class DomainMeans:
    """Draws the shift of a training sample from the recordings of its domain, itself not among them.

    Args:
        utterances: The training split.
        means: By recording (`audio_key`), the mean `(dim,)` of its standardised rows.
        options: How it is drawn.
    """

    def __init__(self, utterances: Sequence[Utterance], means: Mapping[str, Rows], options: MeanShift) -> None:
        recordings = {audio_key(u): u for u in utterances}
        self._options = options
        self._places = {key: place for place, key in enumerate(recordings)}
        self._means = np.stack([means[key] for key in recordings])
        names: dict[str | None, int] = {}
        self._emotions = np.array([names.setdefault(u.emotion, len(names)) for u in recordings.values()])
        self._domains: dict[tuple[str, ...], NDArray[np.intp]] = {}
        for kind in ("corpus", "speaker"):
            groups: dict[tuple[str, ...], list[int]] = {}
            for place, utterance in enumerate(recordings.values()):
                groups.setdefault(_domain(utterance, kind), []).append(place)
            self._domains |= {name: np.array(places) for name, places in groups.items()}

    def draw(self, utterance: Utterance, rng: np.random.Generator) -> Rows | None:
        options = self._options
        if rng.random() < options.cold_share:
            return None
        kind = options.domain if options.domain != "both" else str(rng.choice(("corpus", "speaker")))
        domain = self._domains[_domain(utterance, kind)]
        others = domain[domain != self._places[audio_key(utterance)]]
        count = int(np.exp(rng.uniform(0.0, np.log(options.recordings + 1))))
        if rng.random() < options.skewed_share:
            chosen = self._skewed(others, count, rng)
        else:
            chosen = rng.permutation(others)[:count]
        if not chosen.size:
            return None
        return shift_of_means(self._means[chosen], options.prior)

    def _skewed(self, places: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Choose at most `count` places, as if the emotions came unequally often; none comes twice."""
        emotions = self._emotions[places]
        present, sizes = np.unique(emotions, return_counts=True)
        if not present.size:
            return places
        weights = rng.dirichlet(np.full(present.size, _CONCENTRATION))
        wanted = np.minimum(rng.multinomial(count, weights), sizes)
        parts = [rng.permutation(places[emotions == emotion])[:n] for emotion, n in zip(present, wanted, strict=True)]
        return np.concatenate(parts)


def _domain(utterance: Utterance, kind: str) -> tuple[str, ...]:
    """Name the domain of an utterance; one whose speaker is not known has its corpus's.

    A copy always has its speaker's: recordings of another speaker were copied under another condition.
    """
    copy = tuple(map(str, copy_key(utterance)))
    is_speaker = (kind == "speaker" or copy) and utterance.speaker
    return (utterance.corpus, utterance.speaker if is_speaker else "", *copy)


def shift_of_means(means: NDArray[np.float32], prior: float) -> Rows:
    """Return what `(n, dim)` means of utterances that were heard take out, as on the device."""
    return shift_of(means.mean(axis=0), means.shape[0], prior)


def shifted(statistics: Statistics, shift: Rows | None) -> Statistics:
    """Return statistics that also take a shift of the standardised rows out of them."""
    if shift is None:
        return statistics
    return Statistics((statistics.mean + shift * statistics.std).astype(np.float32), statistics.std)


def standardised_means(
    utterances: Sequence[Utterance], source: RecordingFeatures, frontend: AudioFrontend
) -> dict[str, Rows]:
    """Return, by recording, the mean of the standardised rows that a model gets of it."""
    found: dict[str, Rows] = {}
    for utterance in utterances:
        key = audio_key(utterance)
        if key not in found:
            found[key] = frontend.statistics.normalise(source.mean(utterance))
    return found


def run_shifts(
    utterances: Sequence[Utterance], source: RecordingFeatures, frontend: AudioFrontend, prior: float
) -> CorpusShifts:
    """Return what is taken out of utterances that are answered when all of their corpus have been heard."""
    shifts = {}
    for corpus in sorted({u.corpus for u in utterances}):
        means = standardised_means([u for u in utterances if u.corpus == corpus], source, frontend)
        shifts[corpus] = shift_of_means(np.stack(list(means.values())), prior)
    return CorpusShifts(shifts)
