"""The classifier at the end of a model."""

from __future__ import annotations

from torch import nn


def build_classifier(width: int, classes: int, dropout: float) -> nn.Sequential:
    """Halve the width twice, then classify: 1536 -> 768 -> 384 -> classes in the KS-Transformer paper."""
    return nn.Sequential(
        nn.Linear(width, width // 2),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width // 2, width // 4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width // 4, classes),
    )
