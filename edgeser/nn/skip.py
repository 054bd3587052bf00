"""A skip from the statistics of input rows straight to the logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StatisticsSkip(nn.Module):
    """A linear classifier on the mean and deviation of a modality's input rows, standardised over the training split.

    With a pretrained encoder and a small corpus, most of what can be learned is linear in these statistics.

    Args:
        dim: Width of an input row.
        classes: Emotions.
        dropout: On the statistics, in training.
    """

    def __init__(self, dim: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2 * dim))
        self.register_buffer("scale", torch.ones(2 * dim))
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(2 * dim, classes)

    def fit(self, statistics: Tensor) -> None:
        """Take mean and scale from the `(N, 2 dim)` statistics of a training split; nothing from an empty one."""
        if statistics.shape[0] == 0:
            return
        self.get_buffer("mean").copy_(statistics.mean(dim=0))
        self.get_buffer("scale").copy_(1.0 / statistics.std(dim=0, correction=0).clamp(min=1e-3))

    def forward(self, statistics: Tensor, length: Tensor) -> Tensor:
        """Return logits `(N, classes)` for `(N, 2 dim)` statistics; a modality without rows gives the bias alone."""
        present = (length > 0).to(statistics.dtype)[:, None]
        standard = (statistics - self.get_buffer("mean")) * self.get_buffer("scale") * present
        logits: Tensor = self.classify(self.dropout(standard))
        return logits

    def gradient(self, direction: Tensor) -> Tensor:
        """Return the gradient `(N, 2 dim)` of the logits along `direction` `(N, classes)`."""
        return torch.matmul(direction, self.classify.weight) * self.get_buffer("scale")
