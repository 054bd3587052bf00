"""Recurrent layers and attention pooling against their equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgeser.nn.recurrent import AttentionPooling, Recurrence, RecurrentBranch


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-x))


def lstm(rows: NDArray[np.float64], weights: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Run an LSTM over `(T, dim)`, gates in PyTorch's order: input, forget, cell, output."""
    from_input, from_hidden, bias_input, bias_hidden = weights
    hidden = cell = np.zeros(from_hidden.shape[1])
    found = []
    for row in rows:
        i, f, g, o = np.split(from_input @ row + bias_input + from_hidden @ hidden + bias_hidden, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        found.append(hidden)
    return np.array(found)


def test_both_directions_are_side_by_side() -> None:
    """Equations 6 to 8."""
    torch.manual_seed(0)
    recurrence = Recurrence(5, 6)
    x = torch.randn(1, 7, 5)
    weights = [p.detach().double().numpy() for p in recurrence.parameters()]
    rows = x[0].double().numpy()
    expected = np.concatenate([lstm(rows, weights[:4]), lstm(rows[::-1], weights[4:])[::-1]], axis=1)
    found = recurrence(x, torch.tensor([7], dtype=torch.int32))[0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_one_direction_does_not_hear_what_comes_later() -> None:
    torch.manual_seed(0)
    length = torch.tensor([7], dtype=torch.int32)
    x = torch.randn(1, 7, 5)
    changed = x.clone()
    changed[:, 4:] = 1.0
    forward, both = Recurrence(5, 6, bidirectional=False), Recurrence(5, 6)
    assert forward(x, length).shape == both(x, length).shape == (1, 7, 6)
    assert torch.equal(forward(x, length)[:, :4], forward(changed, length)[:, :4])
    assert (both(x, length) - both(changed, length))[:, :4].abs().max() > 1e-3


def test_what_lies_in_padding_is_not_heard() -> None:
    torch.manual_seed(0)
    recurrence = Recurrence(5, 6)
    x, length = torch.randn(2, 7, 5), torch.tensor([4, 0], dtype=torch.int32)
    found = recurrence(x, length)
    assert (found[0, 4:] == 0).all()
    assert (found[1] == 0).all()
    x[:, 4:] = 9.0
    assert torch.equal(recurrence(x, length), found)


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("length", [1, 8, 50])
def test_every_shape_gives_one_row_for_a_stride(stride: int, length: int) -> None:
    branch = RecurrentBranch(4, 6, stride, 0.0).eval()
    rows, valid = branch(torch.randn(3, length, 4), torch.tensor([length, 1, 0], dtype=torch.int32))
    assert rows.shape == (3, branch.rows(length), 6)
    assert valid.tolist() == [branch.rows(length), 1, 0]
    assert torch.isfinite(rows).all()
    assert branch.spread(torch.ones(1, branch.rows(length)), length).shape == (1, length)


def test_a_shortened_row_sees_the_rows_it_stands_for() -> None:
    torch.manual_seed(0)
    branch = RecurrentBranch(4, 6, 4, 0.0, bidirectional=False).eval()
    length = torch.tensor([16], dtype=torch.int32)
    x = torch.randn(1, 16, 4)
    before = branch(x, length)[0]
    for row in range(16):
        changed = x.clone()
        changed[0, row] += 5.0
        differs = (branch(changed, length)[0] - before).abs().amax(dim=2)[0] > 0
        assert differs[row // 4]
        assert not differs[: max(0, row // 4 - 1)].any()  # a row's kernel reaches half a stride ahead


def test_pooling_follows_its_equations() -> None:
    """Equations 9 and 10, in NumPy."""
    torch.manual_seed(0)
    pooling = AttentionPooling(6)
    x = torch.randn(3, 9, 6)
    lengths = [9, 4, 1]
    found, beta = pooling(x, torch.tensor(lengths, dtype=torch.int32))
    weight = pooling.score.weight.detach().double().numpy()[0]
    for row, mean, shares, length in zip(x.double().numpy(), found, beta, lengths, strict=True):
        exponentials = np.exp(row[:length] @ weight)
        expected = exponentials / exponentials.sum()
        np.testing.assert_allclose(shares[:length].detach().numpy(), expected, rtol=1e-5)
        np.testing.assert_allclose(mean.detach().numpy(), expected @ row[:length], rtol=1e-4, atol=1e-6)
        assert (shares[length:] == 0).all()


def test_pooling_no_rows_gives_zero() -> None:
    found, beta = AttentionPooling(6)(torch.randn(1, 9, 6), torch.tensor([0], dtype=torch.int32))
    assert (found == 0).all()
    assert (beta == 0).all()
