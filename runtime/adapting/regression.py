"""Multinomial logistic regression on top of logits that stay as they are: a strictly convex problem, solved exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError

Array = NDArray[np.float64]

_STEPS = 100  # Newton's; it takes 5 to 15
_INNER_STEPS = 500  # of conjugate gradients for one of them
_TOLERANCE = 1e-9  # of the gradient's largest part, for weights whose mean is 1
_SHORTEST = 1e-10  # of a step, before rounding alone decides


@dataclass(frozen=True)
class Problem:
    """What a correction is fitted to.

    Attributes:
        rows: `(n, features)`, one for each clip; the last column is constant where there is to be an intercept.
        offsets: `(n, classes)`, the logits that the correction is added to.
        classes: `(n,)`, the index of each clip's class.
        weights: `(n,)`, above 0: what each clip counts.
        l2: What the squares of all coefficients cost, above 0.
    """

    rows: Array
    offsets: Array
    classes: NDArray[np.intp]
    weights: Array
    l2: float

    def __post_init__(self) -> None:
        if not self.l2 > 0.0:
            raise InputError(f"l2: got {self.l2}, expected more than 0: there is no one best fit otherwise")

    def logits(self, coefficients: Array) -> Array:
        """Return the corrected logits `(n, classes)` for `(features, classes)` coefficients."""
        corrected: Array = self.offsets + self.rows @ coefficients
        return corrected

    def loss(self, coefficients: Array) -> float:
        """Return the weighted cross-entropy, plus what the coefficients cost."""
        chosen = log_softmax(self.logits(coefficients))[np.arange(self.classes.size), self.classes]
        return float(-(self.weights * chosen).sum() + 0.5 * self.l2 * np.square(coefficients).sum())

    def gradient(self, coefficients: Array, probabilities: Array) -> Array:
        """Return the loss's derivative `(features, classes)`, where these coefficients give these probabilities."""
        residuals = probabilities.copy()
        residuals[np.arange(self.classes.size), self.classes] -= 1.0
        slope: Array = self.rows.T @ (residuals * self.weights[:, None]) + self.l2 * coefficients
        return slope

    def curvature(self, direction: Array, probabilities: Array) -> Array:
        """Return the loss's second derivative times a direction `(features, classes)`."""
        change = probabilities * (self.rows @ direction)
        change -= probabilities * change.sum(axis=1, keepdims=True)
        bent: Array = self.rows.T @ (change * self.weights[:, None]) + self.l2 * direction
        return bent


def fit(problem: Problem) -> Array:
    """Return the coefficients `(features, classes)` with the least loss: there is exactly one such set.

    Newton's method, its steps by conjugate gradients; the same input gives the same answer.

    Raises:
        InputError: The rows or offsets are not finite.
    """
    if not (np.isfinite(problem.rows).all() and np.isfinite(problem.offsets).all()):
        raise InputError("rows and offsets: got values that are not finite")
    coefficients: Array = np.zeros((problem.rows.shape[1], problem.offsets.shape[1]))
    tolerance = _TOLERANCE * float(problem.weights.sum())
    for _ in range(_STEPS):
        probabilities = np.exp(log_softmax(problem.logits(coefficients)))
        slope = problem.gradient(coefficients, probabilities)
        if np.abs(slope).max() <= tolerance:
            break
        step = _newton_step(problem, slope, probabilities)
        length = _length(problem, coefficients, step, float((slope * step).sum()))
        if length < _SHORTEST:
            break
        coefficients = coefficients + length * step
    return coefficients


def log_softmax(logits: Array) -> Array:
    """Return the logarithms of the probabilities of `(n, classes)` logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _newton_step(problem: Problem, slope: Array, probabilities: Array) -> Array:
    """Solve `curvature(step) = -slope` by conjugate gradients, the closer the smaller the slope is."""
    step = np.zeros_like(slope)
    left = -slope
    direction = left.copy()
    size = float(np.square(left).sum())
    enough = size * min(0.25, np.sqrt(size) / problem.weights.sum()) ** 2
    for _ in range(_INNER_STEPS):
        bent = problem.curvature(direction, probabilities)
        along = size / float((direction * bent).sum())
        step += along * direction
        left -= along * bent
        before, size = size, float(np.square(left).sum())
        if size <= enough:
            break
        direction = left + (size / before) * direction
    return step


def _length(problem: Problem, coefficients: Array, step: Array, slope: float) -> float:
    """Return how much of a step to take, so that the loss falls (Armijo's rule)."""
    length, here = 1.0, problem.loss(coefficients)
    while length >= _SHORTEST and problem.loss(coefficients + length * step) > here + 1e-4 * length * slope:
        length /= 2
    return length
