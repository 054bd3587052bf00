"""A convolutional network over time and frequency: from filter-bank rows to fewer, wider ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeser.nn.positions import valid_rows
from edgeser.nn.stems import Stem


class ConvolutionBranch(Stem):
    """Blocks of convolution, batch norm, ReLU, average pooling and dropout, then one projection.

    He et al., section 2.2 and equation 5; the paper gives no sizes and no ReLU. Kernels are 3 x 3 (5 x 5 where they
    step); pooling shortens time by a block's `pools`, and halves the bins as long as that loses none.

    Args:
        dim: Bins of the filter bank.
        width: Width of the rows that come out.
        channels: Of each block.
        pools: Rows that each block averages into one.
        dropout: Behind each block.
        step: Of the first convolution, in time and frequency. Most of the work is there: 2 takes a quarter of it.
    """

    def __init__(
        self, dim: int, width: int, channels: Sequence[int], pools: Sequence[int], dropout: float, step: int = 1
    ) -> None:
        super().__init__()
        self.stride = step * math.prod(pools)
        blocks: list[nn.Module] = []
        before, bins = 1, (dim + step - 1) // step
        for size, pool in zip(channels, pools, strict=True):
            halved = 2 if bins % 2 == 0 else 1
            blocks.append(_block(before, size, 1 if blocks else step, (pool, halved), dropout))
            before, bins = size, bins // halved
        self.blocks = nn.Sequential(*blocks)
        # A third faster on a CPU: average pooling runs along channels.
        nn.utils.convert_conv2d_weight_memory_format(self.blocks, torch.channels_last)
        self.project = nn.Linear(before * bins, width)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Take `(N, T, dim)`, return `(N, T / stride, width)`, 0 in padding, and the valid rows `(N,)`, rounded up."""
        rows = self.rows(x.shape[1])
        whole = functional.pad(x, (0, 0, 0, rows * self.stride - x.shape[1]))
        maps = self.blocks(whole[:, None])  # (N, C, rows, bins)
        out = self.project(maps.transpose(1, 2).flatten(2))
        length = shortened(length, self.stride)
        return out * valid_rows(length, rows)[:, :, None], length

    def rows(self, length: int) -> int:
        return (length + self.stride - 1) // self.stride

    def spread(self, importance: Tensor, length: int) -> Tensor:
        return shared_out(importance, self.stride, length)


def shortened(length: Tensor, stride: int) -> Tensor:
    """Return `(N,)` valid rows after one row for `stride`, rounded up, in the type they came in."""
    return torch.div(length + stride - 1, stride, rounding_mode="floor").to(length.dtype)


def shared_out(importance: Tensor, stride: int, length: int) -> Tensor:
    """Share the importance `(N, K)` of each row among the `stride` rows that it stands for: `(N, length)`."""
    return (importance / stride).repeat_interleave(stride, dim=1)[:, :length]


def _block(channels_in: int, channels: int, step: int, pool: tuple[int, int], dropout: float) -> nn.Sequential:
    reach = 1 if step == 1 else 2
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 2 * reach + 1, step, reach, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AvgPool2d(pool),
        nn.Dropout2d(dropout),
    )
