"""A user's labelled clips as a correction sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.adapting.regression import Array
from edgeser.runtime.errors import InputError
from edgeser.runtime.running_mean import RunningMean

LEAST_CLIPS = 5
LEAST_OF_A_CLASS = 2


@dataclass(frozen=True)
class Clips:
    """Labelled clips, and what the shipped model makes of them.

    Attributes:
        labels: Emotions that are answered.
        classes: `(n,)`, the index in `labels` of each clip's emotion.
        groups: `(n,)`, the same number for clips that share audio: they are never on both sides of a division.
        means: `(n, dim)`, the mean over the valid rows of each.
        logits: `(n, labels)`, the graph's.
        cold: `(n, labels)`, the graph's where nothing is taken out of rows: the bundle as it shipped.
        deviations: `(m, dim)`, how rows differ from the mean of their own clip, of all clips.
        heard: What was taken out of rows; `None` where nothing was.
    """

    labels: tuple[str, ...]
    classes: NDArray[np.intp]
    groups: NDArray[np.intp]
    means: Array
    logits: Array
    cold: Array
    deviations: Array
    heard: RunningMean | None = None

    def __post_init__(self) -> None:
        counts = self.counts()
        few = [f"{count} of {label}" for label, count in counts.items() if count < LEAST_OF_A_CLASS]
        if few or sum(counts.values()) < LEAST_CLIPS:
            shown = ", ".join(few) or f"{sum(counts.values())} in all"
            raise InputError(
                f"clips: got {shown}, expected at least {LEAST_OF_A_CLASS} recordings of each emotion and "
                f"{LEAST_CLIPS} in all: record more, or name the emotions that are to be answered with --labels"
            )

    def counts(self) -> dict[str, int]:
        """Return how many recordings each emotion has."""
        return {label: len(set(self.groups[self.classes == i])) for i, label in enumerate(self.labels)}


def balance(classes: NDArray[np.intp], count: int) -> Array:
    """Return weights `(n,)` with which every class that occurs counts the same; their mean is 1."""
    each = np.bincount(classes, minlength=count)
    weights: Array = classes.size / (np.count_nonzero(each) * each[classes])
    return weights
