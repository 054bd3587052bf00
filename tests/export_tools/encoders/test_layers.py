from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeser.export_tools.encoders.layers import LayerChoice
from edgeser.runtime.errors import InputError

HIDDEN = [torch.full((2, 3, 4), float(10**layer)) for layer in range(5)]


@pytest.mark.parametrize(
    ("text", "weights", "depth", "name"),
    [
        ("0", {0: 1.0}, 0, "0"),
        ("2", {2: 1.0}, 2, "2"),
        ("last", {4: 1.0}, 4, "4"),
        ("0,0,1,0,0", {2: 1.0}, 2, "2"),
        ("1,0,3,0,0", {0: 0.25, 2: 0.75}, 2, "0.2500 x 0 + 0.7500 x 2"),
        (" 1 , 1,0,0, 2", {0: 0.25, 1: 0.25, 4: 0.5}, 4, "0.2500 x 0 + 0.2500 x 1 + 0.5000 x 4"),
    ],
)
def test_one_layer_or_a_sum(text: str, weights: dict[int, float], depth: int, name: str) -> None:
    choice = LayerChoice.parse(text, 4)
    assert (dict(choice.weights), choice.depth, str(choice), choice.is_sum) == (weights, depth, name, True)
    expected = sum(10.0**layer * weight for layer, weight in weights.items())
    torch.testing.assert_close(choice.pick(HIDDEN[: depth + 1]), torch.full((2, 3, 4), expected))


@pytest.mark.parametrize(
    ("text", "layers", "name"), [("1+2+3", [1, 2, 3], "1+2+3"), ("3 + 0", [0, 3], "0+3"), ("2+2", [2], "2")]
)
def test_side_by_side(text: str, layers: list[int], name: str) -> None:
    choice = LayerChoice.parse(text, 4)
    assert (choice.depth, str(choice)) == (layers[-1], name)
    rows = choice.pick(HIDDEN[: choice.depth + 1])
    assert rows.shape == (2, 3, 4 * len(layers))
    assert rows[0, 0, ::4].tolist() == [10.0**layer for layer in layers]


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_learned_weights_are_a_softmax(learned: list[float]) -> None:
    choice = LayerChoice.parse("learned", 2, learned)
    expected = torch.softmax(torch.tensor(learned, dtype=torch.float64), 0).numpy()
    got = np.zeros(3)
    for layer, weight in choice.weights:
        got[layer] = weight
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_learned_weights_of_any_size_stay_finite() -> None:
    assert LayerChoice.parse("learned", 1, [1e30, -1e30]).weights == ((0, 1.0),)


@given(st.lists(st.floats(0, allow_infinity=False), min_size=3, max_size=3))
def test_weights_sum_to_one_or_are_refused(weights: list[float]) -> None:
    text = ",".join(map(repr, weights))
    try:
        choice = LayerChoice.parse(text, 2)
    except InputError:
        assert not 0 < sum(weights) < math.inf
    else:
        assert sum(weight for _, weight in choice.weights) == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["5", "-1", "", "first", "1.5", "٣", "²", "1e0", "0x1"])
def test_other_layers_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected 0 to 4, last, 1\+2, learned, or 5 weights"):
        LayerChoice.parse(text, 4)


@pytest.mark.parametrize("text", ["1+5", "1+", "+", "1+last", "1+-2"])
def test_other_layers_side_by_side_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected numbers from 0 to 4 with \+ between them"):
        LayerChoice.parse(text, 4)


@pytest.mark.parametrize("text", ["1,1,1,1", "1,1,1,1,1,1", "0,0,0,0,0", "1,-1,1,1,1", "nan,1,1,1,1", "a,b,c,d,e", ","])
def test_other_weights_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected 5 weights, one for each layer from 0 on"):
        LayerChoice.parse(text, 4)


@pytest.mark.parametrize("learned", [None, (), (1.0, 2.0)])
def test_no_learned_weights(learned: tuple[float, ...] | None) -> None:
    with pytest.raises(InputError, match="--layer learned: the checkpoint has no layer_weights"):
        LayerChoice.parse("learned", 4, learned)
