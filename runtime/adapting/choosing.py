"""How strong a correction is to be, and what it is worth: by cross-validation on the clips themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.adapting.clips import Clips, balance
from edgeser.runtime.adapting.regression import Array, Problem, fit, log_softmax

SCALES = (1.0, 0.5, 0.25)
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_BIAS_L2 = 1.0  # as if of one clip: it holds back what a handful of clips say of the prior, and no more
_FOLDS = 5
_DECADES = 0.7  # deviation of log10(l2) from 0 before the clips have a say: a few cannot tell strengths apart
_FLOOR = 0.2  # of the spread within clips, the same in all directions: so many are not to be had from a few clips
_NEGLIGIBLE = 1e-9  # of the largest squared singular value


@dataclass(frozen=True)
class Strength:
    """How far a correction may go.

    Attributes:
        scale: What the shipped model's own logits count, above 0.
        l2: What squared weights cost, above 0, in mean squared deviations of the clips' means.
    """

    scale: float
    l2: float


GRID = tuple(Strength(scale, l2) for scale, l2 in product(SCALES, STRENGTHS))


@dataclass(frozen=True)
class Span:
    """The clips' means in the space that they span, where weights of least cost lie.

    A direction costs the more the more the rows spread along it within a clip (within-class covariance normalisation,
    Hatch et al. 2006, with clips for classes): a mean is uncertain there, for it depends on what was said.

    Attributes:
        center: `(dim,)`, the mean of the means.
        basis: `(dim, r)`, what makes rows of centered means.
        rows: `(n, r)`, the means less their mean, by the basis.
        size: Mean of their squared lengths, above 0.
    """

    center: Array
    basis: Array
    rows: Array
    size: float

    @classmethod
    def of(cls, clips: Clips) -> Span:
        """Find the span of clips' means; they are hundreds, their columns thousands: by the small Gram matrix."""
        center = clips.means.mean(axis=0)
        centered = clips.means - center
        solved = np.linalg.solve(_spread(clips.deviations), centered.T)
        squares, vectors = np.linalg.eigh(centered @ solved)
        kept = squares > max(_NEGLIGIBLE * squares[-1], np.finfo(np.float64).tiny)
        rows = vectors[:, kept] * np.sqrt(squares[kept])
        basis = solved @ (vectors[:, kept] / np.sqrt(squares[kept]))
        return cls(center, basis, rows, max(float(np.square(rows).sum(axis=1).mean()), 1e-12))


@dataclass(frozen=True)
class Correction:
    """A fitted correction, by a span's basis.

    Attributes:
        strength: How it was fitted.
        weights: `(r, labels)`.
        bias: `(labels,)`, for a clip at the span's center.
    """

    strength: Strength
    weights: Array
    bias: Array

    def logits(self, rows: Array, logits: Array) -> Array:
        """Return the corrected logits of `(n, r)` rows with these `(n, labels)` logits of the graph."""
        corrected: Array = self.strength.scale * logits + rows @ self.weights + self.bias
        return corrected


def correct(clips: Clips, span: Span, chosen: NDArray[np.intp], strength: Strength) -> Correction:
    """Fit a correction to some of the clips; their classes count the same, however many clips each has."""
    l2 = strength.l2 * span.size
    constant = np.sqrt(l2 / _BIAS_L2)
    rows = np.column_stack([span.rows[chosen], np.full(chosen.size, constant)])
    classes = clips.classes[chosen]
    offsets = strength.scale * clips.logits[chosen]
    coefficients = fit(Problem(rows, offsets, classes, balance(classes, len(clips.labels)), l2))
    return Correction(strength, coefficients[:-1], coefficients[-1] * constant)


def choose(clips: Clips, span: Span, chosen: NDArray[np.intp]) -> Strength:
    """Return the likeliest strength, given how its corrections fit those of the chosen clips that they did not know."""

    def loss(strength: Strength) -> float:
        held_out = _cross_validated(clips, chosen, lambda known: correct(clips, span, known, strength), span)
        prior = 0.5 * (math.log10(strength.l2) / _DECADES) ** 2
        return _loss(held_out, clips.classes[chosen], len(clips.labels)) + prior / chosen.size

    return min(GRID, key=loss)


def held_out_logits(clips: Clips, span: Span, tick: Callable[[], object] = lambda: None) -> Array:
    """Return logits `(n, labels)`, each by a correction that knew nothing of its clip, nor did what chose its strength.

    Args:
        clips: The clips.
        span: Their span.
        tick: Called after each fold.
    """

    def blind(known: NDArray[np.intp]) -> Correction:
        correction = correct(clips, span, known, choose(clips, span, known))
        tick()
        return correction

    return _cross_validated(clips, np.arange(clips.classes.size), blind, span)


def divisions(clips: Clips, chosen: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield at most five times what to fit to and what to hold out, as places in `chosen`.

    Every clip is held out once, with all that share its audio, and every division has each class on both sides as far
    as its recordings go.
    """
    groups = clips.groups[chosen]
    firsts = {group: clips.classes[place] for place, group in reversed(list(zip(chosen, groups, strict=True)))}
    by_class = [[g for g, c in firsts.items() if c == i] for i in range(len(clips.labels))]
    count = min(_FOLDS, *(len(members) for members in by_class))
    random = np.random.default_rng(0)
    dealt = [group for members in by_class for group in random.permutation(np.sort(members))]
    fold_of = {group: place % count for place, group in enumerate(dealt)}
    folds = np.array([fold_of[group] for group in groups])
    for fold in range(count):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


def _cross_validated(
    clips: Clips, chosen: NDArray[np.intp], fitted: Callable[[NDArray[np.intp]], Correction], span: Span
) -> Array:
    logits: Array = np.zeros((chosen.size, len(clips.labels)))
    for known, held_out in divisions(clips, chosen):
        unseen = chosen[held_out]
        logits[held_out] = fitted(chosen[known]).logits(span.rows[unseen], clips.logits[unseen])
    return logits


def _spread(deviations: Array) -> Array:
    """Return the covariance `(dim, dim)` of `(m, dim)` deviations, made well conditioned; its mean variance is 1."""
    dim = deviations.shape[1]
    same = np.eye(dim)
    total = float(np.square(deviations).sum())
    if total < np.finfo(np.float64).tiny:
        return same
    spread: Array = (1.0 - _FLOOR) * dim / total * (deviations.T @ deviations) + _FLOOR * same
    return spread


def _loss(logits: Array, classes: NDArray[np.intp], count: int) -> float:
    chosen = log_softmax(logits)[np.arange(classes.size), classes]
    return float(-(balance(classes, count) * chosen).mean())
