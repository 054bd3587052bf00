from __future__ import annotations

import math

import torch

from edgeser.nn.positions import masked_mean, sinusoids


def test_sinusoids_follow_the_formula():
    table = sinusoids(50, 6)
    for pos in (0, 1, 49):
        for j in range(6):
            angle = pos / 10_000 ** (2 * (j // 2) / 6)
            expected = math.sin(angle) if j % 2 == 0 else math.cos(angle)
            assert table[pos, j].item() == torch.tensor(expected).item() or abs(table[pos, j] - expected) < 1e-5


def test_masked_mean_leaves_padding_out_and_survives_nothing():
    x = torch.arange(12.0).reshape(2, 3, 2)
    mean = masked_mean(x, torch.tensor([2, 0], dtype=torch.int32))
    torch.testing.assert_close(mean, torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
