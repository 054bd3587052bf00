"""Stems: from a frontend's rows to a model's width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeser.nn.positions import valid_rows


class Stem(nn.Module):
    """Base of all stems: `forward` takes `(N, T, dim)` and the valid rows `(N,)`, and returns the same, narrower."""

    def rows(self, length: int) -> int:
        """Return how many rows come out for `length` rows in."""
        return length

    def spread(self, importance: Tensor, length: int) -> Tensor:
        """Bring the importance of the rows that came out, `(N, rows(length))`, back to `(N, length)`."""
        return importance


class LinearStem(Stem):
    """One projection, row by row; none at all where `width` is `None`."""

    def __init__(self, dim: int, width: int | None) -> None:
        super().__init__()
        self.project = nn.Identity() if width is None else nn.Linear(dim, width)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(N, T, width)` and the valid rows `(N,)`."""
        return self.project(x), length


class PoolStem(Stem):
    """The mean over every few rows, projected.

    Rows of a pretrained encoder (20 ms) are finer than emotion needs and wide: pooled first, the projection and all
    attention after it cost a fraction.

    Args:
        dim: Width of an input row.
        width: Width of the rows that come out.
        stride: Rows in for one row out.
        dropout: On the rows that come out.
    """

    def __init__(self, dim: int, width: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.project = nn.Linear(dim, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Take `(N, T, dim)`, return `(N, T / stride, width)` and the valid rows `(N,)`, rounded up."""
        rows = x.shape[1]
        groups = self.rows(rows)
        place = torch.arange(rows, device=x.device) // self.stride
        members = (place == torch.arange(groups, device=x.device)[:, None]).to(x.dtype)  # (groups, T)
        inside = members * valid_rows(length, rows)[:, None]  # (N, groups, T)
        mean = torch.matmul(inside / inside.sum(dim=2, keepdim=True).clamp(min=1.0), x)
        pooled = self.dropout(self.project(mean))
        length = torch.div(length + self.stride - 1, self.stride, rounding_mode="floor").to(length.dtype)
        return pooled * valid_rows(length, groups)[:, :, None], length

    def rows(self, length: int) -> int:
        return (length + self.stride - 1) // self.stride

    def spread(self, importance: Tensor, length: int) -> Tensor:
        """Share each row's importance among the rows that it stands for: `(N, length)`."""
        return (importance / self.stride).repeat_interleave(self.stride, dim=1)[:, :length]


class ConvStem(Stem):
    """Three convolutions over time and frequency, one row out for eight in, then one projection.

    Filter-bank rows of 10 ms are finer than emotion needs: attention over an eighth of them costs a 64th.

    Args:
        dim: Bins of the filter bank.
        width: Width of the rows that come out.
        dropout: On the rows that come out.
        channels: Channels after the first convolution, doubled after it.
    """

    stride = 8

    def __init__(self, dim: int, width: int, dropout: float, channels: int = 16) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, channels, 5, stride=2, padding=2),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.Conv2d(2 * channels, 2 * channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
        )
        bins = dim
        for _ in range(3):
            bins = (bins + 1) // 2
        self.project = nn.Linear(2 * channels * bins, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Take `(N, T, dim)`, return `(N, T / 8, width)` and the valid rows `(N,)`, rounded up."""
        maps = self.convolutions(x[:, None])  # (N, C, T / 8, dim / 8)
        rows = self.dropout(self.project(maps.transpose(1, 2).flatten(2)))
        length = torch.div(length + self.stride - 1, self.stride, rounding_mode="floor").to(length.dtype)
        return rows * valid_rows(length, rows.shape[1])[:, :, None], length

    def rows(self, length: int) -> int:
        return (length + self.stride - 1) // self.stride

    def spread(self, importance: Tensor, length: int) -> Tensor:
        """Share each row's importance among the eight rows that it stands for: `(N, length)`."""
        return (importance / self.stride).repeat_interleave(self.stride, dim=1)[:, :length]
