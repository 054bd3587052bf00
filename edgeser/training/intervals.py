"""How far an accuracy would move with other speakers: a bootstrap that draws speakers, not utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.metrics import accuracies

Counts = Mapping[str, NDArray[np.int64]]
"""By speaker, the confusion `(classes, classes + 1)`; the last column counts what was not answered."""

LEVEL = 0.95
DRAWS = 2000
_SEED = 1  # the same predictions always give the same interval
_LEAST = 2  # speakers: one says nothing of others


@dataclass(frozen=True)
class Interval:
    """Where an accuracy lies with a probability of `LEVEL`, were other speakers of the same kind asked.

    Attributes:
        low: 0 to 1.
        high: 0 to 1.
        speakers: How many were drawn from; of two or three it says little.
        is_pooled: Whether it is of all utterances together; of the mean over what was held out otherwise.
    """

    low: float
    high: float
    speakers: int
    is_pooled: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        of = "pooled" if self.is_pooled else "mean"
        return {"low": round(self.low, 4), "high": round(self.high, 4), "speakers": self.speakers, "of": of}

    def __str__(self) -> str:
        return f"{self.low:.3f}\u2013{self.high:.3f}"


def count_by_speaker(rows: Sequence[Mapping[str, str]], labels: Sequence[str]) -> Counts | None:
    """Count the predictions of each speaker; `None` where one is not known.

    Args:
        rows: Predictions with `emotion`, `label`, `speaker` and `corpus`: speakers of one name in two corpora are two.
        labels: Emotions in the order of the classes; another label counts as no answer.
    """
    place = {label: i for i, label in enumerate(labels)}
    counts: dict[str, NDArray[np.int64]] = {}
    for row in rows:
        if not row.get("speaker"):
            return None
        name = f"{row.get('corpus', '')}/{row['speaker']}"
        confusion = counts.setdefault(name, np.zeros((len(labels), len(labels) + 1), np.int64))
        confusion[place[row["emotion"]], place.get(row["label"], -1)] += 1
    return counts


def speaker_interval(runs: Sequence[Sequence[Counts | None]], accuracy: str) -> Interval | None:
    """Return the interval of an accuracy's mean over the runs.

    Speakers are drawn with replacement within each part that was held out, and the mean over the parts is taken. Where
    a part has one speaker only, or a speaker is in several parts, they are drawn from all and the accuracy is that of
    all utterances together.

    Args:
        runs: Of each run, for example of each seed, the counts of each part.
        accuracy: `wa`, `ua` or `wf1`.

    Returns:
        `None` where a speaker is not known, there is one only, or the runs are not of the same speakers.
    """
    parts = [_stacked(counts) for counts in zip(*runs, strict=True)]
    if not parts or any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    names = [name for part in known for name in part]
    is_pooled = len(set(names)) < len(names) or min(map(len, known)) < _LEAST
    strata = [_together(known)] if is_pooled else known
    if min(map(len, strata)) < _LEAST:
        return None
    rng = np.random.default_rng(_SEED)
    drawn = np.mean([_draw(stratum, accuracy, rng) for stratum in strata], axis=0)
    edge = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(drawn, (edge, 1.0 - edge))
    return Interval(float(low), float(high), len(set(names)), is_pooled and len(parts) > 1)


def _stacked(counts: Sequence[Counts | None]) -> Counts | None:
    """Put the runs' counts of one part together: by speaker `(runs, classes, classes + 1)`."""
    known = [one for one in counts if one is not None]
    if len(known) < len(counts) or any(set(one) != set(known[0]) for one in known):
        return None
    return {name: np.stack([one[name] for one in known]) for name in sorted(known[0])}


def _together(parts: Sequence[Counts]) -> Counts:
    """Add up what a speaker has in several parts."""
    names = sorted({name for part in parts for name in part})
    return {name: np.sum([part[name] for part in parts if name in part], axis=0) for name in names}


def _draw(stratum: Counts, accuracy: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the accuracy of each draw, the mean over the runs: `(DRAWS,)`."""
    each = np.stack(list(stratum.values()))  # (speakers, runs, classes, classes + 1)
    times = rng.multinomial(len(each), np.full(len(each), 1.0 / len(each)), DRAWS)  # (DRAWS, speakers)
    drawn: NDArray[np.float64] = accuracies(np.tensordot(times, each, axes=1))[accuracy].mean(axis=1)
    return drawn
