"""Two sets of logits side by side: what quantizing changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.corpora import Utterance
from edgeser.runtime.metrics import Metrics, measure
from edgeser.runtime.pipeline import softmax


@dataclass(frozen=True)
class Comparison:
    """A quantized model beside its reference, over the same utterances.

    Attributes:
        reference: Accuracies of the reference.
        quantized: Accuracies of the quantized model.
        agreement: Share of the utterances with the same label.
        max_logit_difference: Largest |difference| of a logit.
        mean_logit_difference: Mean |difference|.
        divergence: Mean Jensen-Shannon distance of the probabilities, base 2: 0 for the same, 1 for opposites.
        max_divergence: The largest one.
    """

    reference: Metrics
    quantized: Metrics
    agreement: float
    max_logit_difference: float
    mean_logit_difference: float
    divergence: float
    max_divergence: float

    @property
    def drop(self) -> float:
        """How far UA fell; below 0 where it rose."""
        return self.reference.ua - self.quantized.ua

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {name: value for name, value in asdict(self).items() if isinstance(value, float)}
        return {
            "reference": self.reference.as_dict(),
            "quantized": self.quantized.as_dict(),
            **{name: round(value, 6) for name, value in plain.items()},
        }


def compare(
    reference: NDArray[np.floating],
    quantized: NDArray[np.floating],
    utterances: Sequence[Utterance],
    labels: Sequence[str],
) -> Comparison:
    """Compare `(utterances, classes)` logits."""
    truth = [str(u.emotion) for u in utterances]
    named = [[labels[i] for i in logits.argmax(axis=1)] for logits in (reference, quantized)]
    difference = np.abs(reference - quantized)
    distances = jensen_shannon(softmax(reference), softmax(quantized))
    return Comparison(
        reference=measure(named[0], truth, labels),
        quantized=measure(named[1], truth, labels),
        agreement=float(np.mean([a == b for a, b in zip(*named, strict=True)])),
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        divergence=float(distances.mean()),
        max_divergence=float(distances.max()),
    )


def jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Jensen-Shannon distance, base 2, of `(N, classes)` probabilities: the root of the divergence."""
    middle = (p + q) / 2.0
    divergence = (_kullback_leibler(p, middle) + _kullback_leibler(q, middle)) / 2.0
    distance: NDArray[np.float64] = np.sqrt(np.clip(divergence, 0.0, 1.0))
    return distance


def _kullback_leibler(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    # The smallest float64 beside a 0 has a mean that rounds to 0: q can be 0 where p is not.
    ratio = np.divide(p, q, out=np.ones_like(p), where=(p > 0) & (q > 0))
    total: NDArray[np.float64] = (p * np.log2(ratio)).sum(axis=-1)
    return total
