"""Pre-nets of Transformer TTS: what stands between embeddings and transformer layers."""

from __future__ import annotations

from torch import Tensor, nn

from edgeser.nn.positions import valid_rows
from edgeser.nn.stems import Stem


class EncoderPrenet(nn.Module):
    """Three convolutions over the words, then a projection (Multilevel Transformer paper, figure 1).

    Args:
        dim: Width of an input row.
        width: Width of the convolutions and of the rows that come out.
        dropout: After each convolution.
        kernel: Words that one filter sees.
    """

    def __init__(self, dim: int, width: int, dropout: float, kernel: int = 5) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(dim if layer == 0 else width, width, kernel, padding=kernel // 2),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Dropout(dropout),
            )
            for layer in range(3)
        )
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        """Take `(N, T, dim)` and the valid rows `(N,)`, return `(N, T, width)`; padding stays 0 all the way."""
        mask = valid_rows(length, x.shape[1])[:, None]
        rows = x.transpose(1, 2)
        for convolution in self.convolutions:
            rows = convolution(rows * mask) * mask
        projected: Tensor = self.project(rows.transpose(1, 2))
        return projected


class MelPrenet(Stem):
    """Two fully connected layers, row by row.

    Args:
        dim: Width of an input row.
        width: Width of the rows that come out.
        dropout: After each layer.
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(N, T, width)` and the valid rows `(N,)`."""
        return self.layers(x), length
