"""ILT: fusion, arrangements, importance."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from edgeser.models.ilt import Fusion
from edgeser.nn.recurrent import AttentionPooling
from edgeser.runtime.errors import InputError


@pytest.fixture
def build(build_filter_bank):
    return functools.partial(build_filter_bank, "ilt")


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_plus_follows_equation_13(alpha):
    first, second = torch.randn(2, 5), torch.randn(2, 5)
    expected = alpha * first.numpy() + (1 - alpha) * second.numpy()
    np.testing.assert_allclose(Fusion("plus", alpha)(first, second).numpy(), expected, rtol=1e-6)


def test_trainable_plus_follows_equations_14_to_16():
    fusion = Fusion("trainable-plus")
    assert torch.softmax(fusion.weights, 0).tolist() == [0.5, 0.5]
    fusion.weights.data = torch.tensor([0.9, -0.2])
    first, second = torch.randn(2, 5), torch.randn(2, 5)
    a, b = np.exp(0.9) / (np.exp(0.9) + np.exp(-0.2)), np.exp(-0.2) / (np.exp(0.9) + np.exp(-0.2))
    expected = a * first.numpy() + b * second.numpy()
    np.testing.assert_allclose(fusion(first, second).detach().numpy(), expected, rtol=1e-5)


def test_concatenation_follows_equation_12():
    first, second = torch.randn(2, 5), torch.randn(2, 5)
    assert torch.equal(Fusion("concatenation")(first, second), torch.cat([first, second], dim=1))


def test_the_lstm_comes_first_in_the_fusion(build, batch):
    """`alpha` is the LSTM's share: with all of it, the transformer has no say, and with none, the LSTM."""
    for alpha, silent in ((1.0, "transformer"), (0.0, "lstm")):
        model = build(fusion="plus", alpha=alpha)
        inputs = batch(model, [300])
        before = model(inputs).logits
        for parameter in getattr(model, silent).parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        torch.testing.assert_close(model(inputs).logits, before)
        other = "lstm" if silent == "transformer" else "transformer"
        for parameter in getattr(model, other).parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        assert (model(inputs).logits - before).abs().max() > 1e-3


def test_importance_is_the_pooling_of_the_lstm(build, batch):
    model = build()
    found = []
    pooling = model.pooling
    assert isinstance(pooling, AttentionPooling)
    pooling.register_forward_hook(lambda _, __, out: found.append(out[1]))
    pooling.score.weight.data *= 30.0  # so that weights differ
    importance = model(batch(model, [320])).importance["audio"][0]
    beta = found[0][0]
    assert beta[:20].std() > 1e-3
    for row in range(20):
        torch.testing.assert_close(importance[row * 16 : row * 16 + 16], (beta[row] / 16).expand(16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion": "gated"}, "got fusion 'gated', expected one of concatenation, plus, trainable"),
        ({"arrangement": "serial"}, "got arrangement 'serial', expected one of parallel, cascaded"),
        ({"alpha": 1.5}, "got alpha 1.5, expected 0 to 1"),
    ],
)
def test_bad_configurations_are_refused(build, changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)
