"""A skip from the statistics of input rows straight to the logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeser.nn.positions import masked_mean, masked_statistics
from edgeser.nn.relevance import mean_contribution, statistics_contribution

STATISTICS = ("mean-deviation", "mean")
"""What a skip reads of a modality's rows; an encoder's deviations over time tell the corpus more than the emotion."""


class StatisticsSkip(nn.Module):
    """A linear classifier on statistics of a modality's input rows, standardised over the training split.

    With a pretrained encoder and a small corpus, most of what can be learned is linear in these statistics.

    Args:
        dim: Width of an input row.
        classes: Emotions.
        dropout: On the statistics, in training.
        statistics: One of `STATISTICS`: mean and deviation, `width` 2 dim, or the mean alone, `width` dim.
    """

    def __init__(self, dim: int, classes: int, dropout: float, statistics: str = STATISTICS[0]) -> None:
        super().__init__()
        self.is_mean = statistics == "mean"
        width = dim if self.is_mean else 2 * dim
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(width, classes)

    def measure(self, rows: Tensor, length: Tensor) -> Tensor:
        """Return the statistics `(N, width)` of the first `length[n]` of `(N, T, dim)` rows."""
        if self.training and rows.shape[0]:
            # Padding is most of a batch of short clips; an exported graph has a fixed length and keeps it.
            rows = rows[:, : max(1, int(length.max()))]
        return masked_mean(rows, length) if self.is_mean else masked_statistics(rows, length)

    def fit(self, statistics: Tensor) -> None:
        """Take mean and scale from the `(N, width)` statistics of a training split; nothing from an empty one."""
        if statistics.shape[0] == 0:
            return
        self.get_buffer("mean").copy_(statistics.mean(dim=0))
        self.get_buffer("scale").copy_(1.0 / statistics.std(dim=0, correction=0).clamp(min=1e-3))

    def forward(self, statistics: Tensor, length: Tensor) -> Tensor:
        """Return logits `(N, classes)` for `(N, width)` statistics; a modality without rows gives the bias alone."""
        present = (length > 0).to(statistics.dtype)[:, None]
        standard = (statistics - self.get_buffer("mean")) * self.get_buffer("scale") * present
        logits: Tensor = self.classify(self.dropout(standard))
        return logits

    def gradient(self, direction: Tensor) -> Tensor:
        """Return the gradient `(N, width)` of the logits along `direction` `(N, classes)`."""
        return torch.matmul(direction, self.classify.weight) * self.get_buffer("scale")

    def contribution(self, rows: Tensor, statistics: Tensor, length: Tensor, direction: Tensor) -> Tensor:
        """Return what each of `(N, T, dim)` rows adds to the logits along `direction`, to first order: `(N, T)`."""
        along = self.gradient(direction)
        if self.is_mean:
            return mean_contribution(rows, length, along)
        return statistics_contribution(rows, statistics, length, along)
