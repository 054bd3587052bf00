"""Stems against their definition."""

from __future__ import annotations

import pytest
import torch

from edgeser.nn.stems import PoolStem


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_pooled_rows_are_means_of_valid_rows(stride: int) -> None:
    torch.manual_seed(0)
    stem = PoolStem(5, 3, stride, dropout=0.4).eval()
    x = torch.randn(4, 21, 5)
    lengths = [21, 9, 1, 0]
    found, out = stem(x, torch.tensor(lengths, dtype=torch.int32))
    assert found.shape == (4, stem.rows(21), 3)
    assert out.tolist() == [-(-length // stride) for length in lengths]
    for row, pooled, length in zip(x, found, lengths, strict=True):
        for group in range(stem.rows(21)):
            members = row[group * stride : min((group + 1) * stride, length)]
            expected = stem.project(members.mean(dim=0)) if len(members) else torch.zeros(3)
            torch.testing.assert_close(pooled[group], expected, rtol=1e-5, atol=1e-5)


def test_spread_keeps_the_sum() -> None:
    stem = PoolStem(5, 3, 4, dropout=0.0)
    torch.testing.assert_close(stem.spread(torch.ones(1, 5), 20).sum(), torch.tensor(5.0))
    assert stem.spread(torch.ones(1, 6), 21).shape == (1, 21)
