"""Positions and padding along the time axis."""

from __future__ import annotations

import torch
from torch import Tensor


def sinusoids(length: int, width: int) -> Tensor:
    """Return the sinusoidal positions `(length, width)` of Vaswani et al. 2017.

    `pos / 10000^(2 * (j // 2) / width)`, sine in even columns and cosine in odd ones.
    """
    column = torch.arange(width)
    rate = torch.pow(10_000.0, -2.0 * (column // 2) / width)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * rate
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


def valid_rows(length: Tensor, rows: int) -> Tensor:
    """Return `(N, rows)` float: 1 for the first `length[n]` rows, 0 for the padding after them."""
    return (torch.arange(rows, device=length.device) < length[:, None]).float()


def masked_mean(x: Tensor, length: Tensor) -> Tensor:
    """Return the mean `(N, D)` over the first `length[n]` rows of `(N, T, D)`; 0 where there are none."""
    mask = valid_rows(length, x.shape[1])[:, :, None]
    return (x * mask).sum(dim=1) / length[:, None].clamp(min=1)


def masked_max(x: Tensor, length: Tensor) -> Tensor:
    """Return the maximum `(N, D)` over the first `length[n]` rows of `(N, T, D)`; 0 where there are none."""
    mask = valid_rows(length, x.shape[1])[:, :, None]
    present = (length > 0).to(x.dtype)[:, None]
    return (x * mask + (mask - 1.0) * 1e4).amax(dim=1) * present


def masked_statistics(x: Tensor, length: Tensor) -> Tensor:
    """Return mean and deviation `(N, 2 D)` over the first `length[n]` rows of `(N, T, D)`; 0 where there are none."""
    share = (valid_rows(length, x.shape[1]) / length[:, None].clamp(min=1)).to(x.dtype)[:, None]  # (N, 1, T)
    mean = torch.matmul(share, x)[:, 0]
    variance = torch.matmul(share, x * x)[:, 0] - mean * mean
    present = (length > 0).to(x.dtype)[:, None]
    return torch.cat([mean, torch.sqrt(variance.clamp(min=0.0) + 1e-5) * present], dim=-1)
