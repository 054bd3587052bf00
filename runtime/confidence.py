"""How far an answer can be trusted: what its probability was worth on corpora that the model had never heard."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.names import name_problem

COLD, RUN = "cold", "run"
STATES = (COLD, RUN)
"""Answers with nothing heard before, and those with the mean of what was heard before taken out of the rows."""

LEAST_ANSWERED = 0.05
"""Smaller shares are not measured."""
SHOWN_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
"""Of the utterances, where people are told how many of those answered are right."""
_MOST_VALUES = 100
_MOST_CORPORA = 100
_MOST_NAME = 100


@dataclass(frozen=True)
class ConfidenceCurve:
    """What the probability of the likeliest emotion was worth, measured in one state; every corpus weighs the same.

    Attributes:
        probability: Knots, rising, 0 to 1.
        confidence: At each knot the share that was right, never falling, 0 to 1.
        answered: Shares of the utterances, rising, 0 to 1.
        threshold: For each share the probability from which on as many were answered, never rising, 0 to 1.
        accuracy: For each share how many of those answered were right, 0 to 1.

    Raises:
        BundleError: Anything else.
    """

    probability: tuple[float, ...]
    confidence: tuple[float, ...]
    answered: tuple[float, ...]
    threshold: tuple[float, ...]
    accuracy: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0.0 <= v <= 1.0 for v in values)
            _check(numbers and 0 < len(values) <= _MOST_VALUES, f"{name}, expected numbers from 0 to 1")
        _check(len(self.probability) == len(self.confidence), "probability and confidence, expected as many")
        _check(len(self.answered) == len(self.threshold) == len(self.accuracy), "answered, expected as many thresholds")
        for name in ("probability", "answered"):
            _check(bool((np.diff(getattr(self, name)) > 0).all()), f"{name}, expected numbers that rise")
        _check(bool((np.diff(self.confidence) >= 0).all()), "confidence, expected numbers that do not fall")
        _check(bool((np.diff(self.threshold) <= 0).all()), "threshold, expected numbers that do not rise")

    def of(self, probability: float) -> float:
        """Return how probable it is that an answer of this probability is right, 0 to 1."""
        return float(np.interp(probability, self.probability, self.confidence))

    def is_unsure(self, probability: float, answered: float) -> bool:
        """Whether an answer of this probability is left out where only so large a share is answered."""
        return answered < 1.0 and probability < float(np.interp(answered, self.answered, self.threshold))


@dataclass(frozen=True)
class Confidence:
    """What a manifest says of how far its bundle's answers can be trusted.

    Attributes:
        corpora: Utterances of each corpus that it was measured on, by models that had heard nothing of it.
        states: A curve for `COLD` and, where the mean of what was heard is taken out of rows, for `RUN`.

    Raises:
        BundleError: Anything else.
    """

    corpora: Mapping[str, int]
    states: Mapping[str, ConfidenceCurve]

    def __post_init__(self) -> None:
        _check(0 < len(self.corpora) <= _MOST_CORPORA, f"{len(self.corpora)} corpora, expected 1 to {_MOST_CORPORA}")
        for name, count in self.corpora.items():
            problem = name_problem(name, _MOST_NAME)
            _check(problem is None, f"a corpus whose name {problem}")
            whole = isinstance(count, int) and not isinstance(count, bool) and count > 0
            _check(whole, "corpora, expected whole numbers above 0")
        _check(COLD in self.states and set(self.states) <= set(STATES), f"states {list(self.states)}")

    def curve(self, is_cold: bool) -> ConfidenceCurve:
        """Return the curve of answers with nothing heard before, or of the others."""
        return self.states[COLD if is_cold else RUN]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Confidence:
        """Read what `json` made of it.

        Raises:
            BundleError: A field is missing, unknown, or not as the classes say.
        """
        fields = _fields(cls, content, dict)
        curves = {}
        for name, curve in fields["states"].items():
            _check(isinstance(curve, dict), "a state of the wrong kind")
            curves[name] = ConfidenceCurve(**{n: tuple(v) for n, v in _fields(ConfidenceCurve, curve, list).items()})
        return cls(fields["corpora"], curves)


def check_answered(answered: float, name: str, confidence: Confidence | None) -> None:
    """Raise `InputError` when a bundle cannot say which share of its answers to leave out.

    Args:
        answered: See `check_share`.
        name: The bundle's.
        confidence: What its manifest says.
    """
    check_share(answered)
    if answered < 1.0 and confidence is None:
        raise InputError(
            f"answered: got {answered:g}, and {name} has no confidence table, expected 1: answer all, or export the "
            "bundle with --unseen"
        )


def check_share(answered: float) -> None:
    """Raise `InputError` when a share of utterances to answer is none: `LEAST_ANSWERED` to 1."""
    if not LEAST_ANSWERED <= answered <= 1.0:
        raise InputError(f"answered: got {answered:g}, expected a share of the utterances, {LEAST_ANSWERED:g} to 1")


def _fields(kind: type, content: Mapping[str, Any], of: type) -> dict[str, Any]:
    names: Sequence[str] = [field.name for field in dataclasses.fields(kind)]
    _check(sorted(content) == sorted(names), f"got {', '.join(content)}, expected {', '.join(names)}")
    for name in names:
        _check(isinstance(content[name], of), f"{name} is of the wrong kind")
    return dict(content)


def _check(good: bool, what: str) -> None:
    if not good:
        raise BundleError(f"manifest.json: confidence: {' '.join(what.split())}"[:200])
