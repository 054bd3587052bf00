from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.adaptation import Adaptation, AdaptationEntry, Source
from edgeser.runtime.errors import BundleError
from edgeser.runtime.tensors import to_safetensors

LABELS = ("angry", "happy", "neutral", "sad")
ENTRY = AdaptationEntry(
    Source("m", "1", "ab" * 32), ("angry", "sad"), {"angry": 2, "sad": 3}, {"shipped": 0.5, "adapted": 0.75}
)
WEIGHTS = np.arange(10, dtype=np.float32).reshape(5, 2)
TENSORS: dict[str, Any] = {
    "scale": np.array([0.5], np.float32),
    "weights": WEIGHTS,
    "bias": np.array([1.0, -1.0], np.float32),
}


def read(**changes: Any) -> Adaptation:
    tensors = {name: value for name, value in {**TENSORS, **changes}.items() if value is not None}
    return Adaptation.from_bytes(to_safetensors(tensors), ENTRY, LABELS)


def test_what_it_computes() -> None:
    logits, means = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32), np.array([[1.0, 0, 0, 0, 2.0]])
    np.testing.assert_allclose(read().apply(logits, means), [[0.5 + 16 + 1, 2.0 + 1 + 18 - 1]])


@pytest.mark.parametrize("heard", [None, np.linspace(-1, 1, 5)])
def test_round_trip(heard: np.ndarray | None) -> None:
    one = Adaptation((0, 3), 0.5, WEIGHTS, np.zeros(2, np.float32), heard, 0 if heard is None else 7)
    again = Adaptation.from_bytes(one.to_bytes(), ENTRY, LABELS)
    assert (again.classes, again.scale, again.count) == (one.classes, one.scale, one.count)
    for name in ("weights", "bias", "heard"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": WEIGHTS.astype(np.float64)}, "holds .*float64"),
        ({"weights": WEIGHTS.T.copy()}, r"weights \(2, 5\)"),
        ({"weights": WEIGHTS[0]}, r"weights \(2,\)"),
        ({"weights": np.full_like(WEIGHTS, np.nan)}, "not finite"),
        ({"bias": np.array([np.inf, 0], np.float32)}, "not finite"),
        ({"bias": np.zeros(3, np.float32)}, r"bias \(3,\)"),
        ({"bias": None}, "holds scale"),
        ({"scale": np.zeros(1, np.float32)}, "not above 0"),
        ({"scale": np.array([np.inf], np.float32)}, "not above 0"),
        ({"scale": np.ones(2, np.float32)}, "holds"),
        ({"more": WEIGHTS}, "holds"),
        ({"heard": np.zeros(5)}, "holds"),
        ({"heard": np.zeros(4), "count": np.array([1])}, r"mean \(4,\)"),
        ({"heard": np.full(5, np.nan), "count": np.array([1])}, "finite"),
        ({"heard": np.zeros(5), "count": np.array([0])}, "of 0 clips"),
        ({"heard": np.zeros(5), "count": np.array([-1])}, "of -1 clips"),
        ({"heard": np.zeros(5), "count": np.array([1, 2])}, "holds"),
    ],
)
def test_what_is_none(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=f"adaptation.safetensors: .*{message}"):
        read(**changes)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes_are_read_or_a_bundle_error(noise: bytes, at: int) -> None:
    good = to_safetensors(TENSORS)
    for content in (noise, good[:at], good[:at] + noise + good[at + len(noise) :]):
        try:
            found = Adaptation.from_bytes(content, ENTRY, LABELS)
        except BundleError:
            continue
        assert np.isfinite(found.apply(np.zeros((1, len(LABELS))), np.zeros((1, found.dim)))).all()
