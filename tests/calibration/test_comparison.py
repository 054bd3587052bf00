from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeser.calibration.comparison import compare, jensen_shannon
from edgeser.corpora import Utterance
from edgeser.runtime.errors import InputError

LABELS = ("angry", "sad")
RNG = np.random.default_rng(0)


def distance(p: Sequence[float], q: Sequence[float]) -> float:
    """The definition (Lin 1991), number by number: the root of the mean divergence from the mean, in bits."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        total += sum(x * math.log2(x / ((a + b) / 2)) for x in (a, b) if x > 0)
    return math.sqrt(max(total, 0.0) / 2)


WEIGHTS = st.lists(
    st.tuples(*[st.floats(0.0, 1.0).map(lambda x: x if x > 1e-300 else 0.0)] * 2), min_size=2, max_size=6
)


@settings(max_examples=300, deadline=None)
@given(WEIGHTS.filter(lambda pairs: all(sum(side) > 1e-6 for side in zip(*pairs, strict=True))))
@example([(1.0, 0.0), (0.0, 1.0)])
@example([(0.5, 1.0), (0.5, 0.0)])
def test_distance_is_the_definition(pairs: list[tuple[float, float]]) -> None:
    """Also with zeros on either side or both; symmetric, and from 0 to 1. The root turns 1e-16 into 1e-8."""
    p, q = np.array(pairs).T / np.array(pairs).sum(axis=0)[:, np.newaxis]
    (found,) = jensen_shannon(p[np.newaxis], q[np.newaxis])
    assert found == pytest.approx(distance(p, q), abs=5e-8)
    assert found == jensen_shannon(q[np.newaxis], p[np.newaxis])[0]
    assert 0.0 <= found <= 1.0


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ([1.0, 0.0], [0.0, 1.0], 1.0),
        ([0.25, 0.75], [0.25, 0.75], 0.0),
        ([0.0, 1.0, 0.0], [0.0, 1.0, 0.0], 0.0),
        ([0.5, 0.5], [1.0, 0.0], math.sqrt(1.5 - 0.75 * math.log2(3.0))),  # by hand: 0.3113 bit
        ([1.0, 5e-324], [1.0, 0.0], 0.0),  # the mean of the smallest float64 and 0 is 0
    ],
)
def test_distances_by_hand(p: list[float], q: list[float], expected: float) -> None:
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        found = jensen_shannon(np.array([p, q]), np.array([q, p]))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_distance_is_scipys() -> None:
    distance_module = pytest.importorskip("scipy.spatial.distance")
    p, q = RNG.dirichlet([0.3] * 4, size=(2, 1000))
    p[:500, 0] = 0.0
    p /= p.sum(axis=1, keepdims=True)
    expected = distance_module.jensenshannon(p, q, base=2, axis=1)
    np.testing.assert_allclose(jensen_shannon(p, q), expected, rtol=1e-9)


def test_what_is_almost_the_same() -> None:
    """Rounding makes some of these divergences negative, which has no root."""
    p = RNG.dirichlet([1.0] * 4, size=1000)
    found = jensen_shannon(p, p * (1.0 + 1e-12 * RNG.normal(size=p.shape)))
    assert (found >= 0.0).all()
    assert (found < 5e-8).all()


def of(*emotions: str) -> list[Utterance]:
    return [Utterance(f"u{place}", Path("a.wav"), emotion) for place, emotion in enumerate(emotions)]


def logits(*rows: tuple[float, float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


ANGRY, SAD = (2.0, 0.0), (-1.0, 1.0)


def test_a_class_of_one_that_is_lost() -> None:
    """Three angry and one sad: with the sad one taken for angry, WA falls by a quarter, UA by a half."""
    utterances = of("angry", "angry", "angry", "sad")
    reference, quantized = logits(ANGRY, ANGRY, ANGRY, SAD), logits(ANGRY, (2.5, 0.0), ANGRY, (1.0, 1.0))
    found = compare(reference, quantized, utterances, LABELS)
    assert (found.reference.ua, found.quantized.ua, found.quantized.wa) == (1.0, 0.5, 0.75)
    assert found.drop == 0.5
    assert found.agreement == 0.75
    assert (found.max_logit_difference, found.mean_logit_difference) == (2.0, 2.5 / 8)
    probabilities = [
        [1 / (1 + math.exp(b - a)), 1 / (1 + math.exp(a - b))] for a, b in (ANGRY, (2.5, 0.0), SAD, (1, 1))
    ]
    each = [distance(*probabilities[:2]), distance(*probabilities[2:])]
    assert found.divergence == pytest.approx(sum(each) / 4, rel=1e-6)
    assert found.max_divergence == pytest.approx(max(each), rel=1e-6)
    assert found.quantized.confusion == ((3, 0), (1, 0))
    risen = compare(quantized, reference, utterances, LABELS)
    assert risen.drop == -0.5
    assert (risen.agreement, risen.divergence) == (found.agreement, found.divergence)


def test_both_wrong_in_the_same_way_agree() -> None:
    found = compare(logits(SAD, SAD), logits(SAD, SAD), of("angry", "sad"), LABELS)
    assert (found.agreement, found.drop, found.reference.ua) == (1.0, 0.0, 0.5)
    assert (found.max_logit_difference, found.divergence, found.max_divergence) == (0.0, 0.0, 0.0)


def test_an_offset_changes_logits_but_no_probabilities() -> None:
    found = compare(logits(ANGRY, SAD), logits(ANGRY, SAD) - 3.0, of("angry", "sad"), LABELS)
    assert (found.max_logit_difference, found.mean_logit_difference) == (3.0, 3.0)
    assert (found.max_divergence, found.agreement) == (0.0, 1.0)


def test_logits_are_named_by_the_bundles_labels() -> None:
    """The order is the bundle's, not the alphabet's."""
    found = compare(logits(ANGRY), logits(SAD), of("sad"), LABELS[::-1])
    assert (found.reference.ua, found.quantized.ua, found.drop) == (1.0, 0.0, 1.0)


def test_plain_values() -> None:
    found = compare(logits(ANGRY, SAD), logits(ANGRY, (0.0, 1.0)), of("angry", "sad"), LABELS)
    plain = found.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain == {
        "reference": found.reference.as_dict(),
        "quantized": found.quantized.as_dict(),
        "agreement": 1.0,
        "max_logit_difference": 1.0,
        "mean_logit_difference": 0.25,
        "divergence": round(found.divergence, 6),
        "max_divergence": round(found.max_divergence, 6),
    }
    assert plain["max_divergence"] == pytest.approx(2 * plain["divergence"], abs=2e-6)
    assert plain["divergence"] > 0.01


def test_nothing_to_compare() -> None:
    with pytest.raises(InputError, match="metrics: got 0 predictions for 0 labels"):
        compare(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), [], LABELS)


def test_an_emotion_that_the_model_does_not_know() -> None:
    with pytest.raises(InputError, match="metrics: got fear, the model knows angry, sad"):
        compare(logits(ANGRY), logits(ANGRY), of("fear"), LABELS)
