"""The convolutional branch: lengths, padding, what its rows stand for."""

from __future__ import annotations

import pytest
import torch

from edgeser.nn.convolution import ConvolutionBranch, shared_out, shortened


@pytest.mark.parametrize("dim", [1, 5, 40, 128])
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 6, 50, 75])
def test_every_shape_gives_one_row_for_a_stride(dim: int, step: int, length: int) -> None:
    branch = ConvolutionBranch(dim, 6, (4, 8, 8), (2, 1, 3), 0.0, step).eval()
    assert branch.stride == 6 * step
    rows, valid = branch(torch.randn(2, length, dim), torch.tensor([length, 0], dtype=torch.int32))
    assert rows.shape == (2, branch.rows(length), 6)
    assert valid.tolist() == [branch.rows(length), 0]
    assert valid.dtype == torch.int32
    assert (rows[1] == 0).all()
    assert branch.spread(torch.ones(1, branch.rows(length)), length).shape == (1, length)


def test_a_block_is_convolution_norm_relu_and_average() -> None:
    """Against the definition, with sums in place of a convolution."""
    torch.manual_seed(0)
    branch = ConvolutionBranch(4, 3, (2,), (2,), 0.3).eval()
    x = torch.randn(1, 6, 4)
    kernel = branch.blocks[0][0].weight.detach()
    padded = torch.nn.functional.pad(x[0], (1, 1, 1, 1))
    maps = torch.stack(
        [
            torch.stack([(padded[t : t + 3, f : f + 3] * kernel[c, 0]).sum() for t in range(6) for f in range(4)])
            for c in range(2)
        ]
    )  # fresh batch norms divide by sqrt(1 + eps)
    maps = torch.relu(maps / (1.0 + 1e-5) ** 0.5).reshape(2, 3, 2, 2, 2).mean(dim=(2, 4))  # (C, T / 2, bins / 2)
    expected = branch.project(maps.permute(1, 0, 2).flatten(1))
    found, _ = branch(x, torch.tensor([6], dtype=torch.int32))
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)


def test_no_row_is_lost_at_the_end() -> None:
    """Rows that fill no whole stride, and bins that do not halve, still count."""
    torch.manual_seed(0)
    branch = ConvolutionBranch(5, 8, (4, 4), (2, 4), 0.0).eval()
    x, length = torch.randn(1, 9, 5), torch.tensor([9], dtype=torch.int32)
    before, _ = branch(x, length)
    for place in ((0, 8, 2), (0, 3, 4), (0, 0, 0)):
        changed = x.clone()
        changed[place] += 3.0
        assert (branch(changed, length)[0] - before).abs().max() > 1e-4


def test_lengths_round_up() -> None:
    length = torch.tensor([0, 1, 8, 9, 750], dtype=torch.int32)
    found = shortened(length, 8)
    assert found.tolist() == [0, 1, 1, 2, 94]
    assert found.dtype == torch.int32


def test_importance_is_shared_out_evenly() -> None:
    found = shared_out(torch.tensor([[2.0, 4.0]]), 2, 3)
    assert found.tolist() == [[1.0, 1.0, 2.0]]
