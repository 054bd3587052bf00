"""Highway network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Highway(nn.Module):
    """Layers that gate between a transformation and a copy: `H(u) T(u) + u (1 - T(u))` (Srivastava et al. 2015).

    Multilevel Transformer paper, equation 3.

    Args:
        width: Width of input and output.
        layers: How many.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        for gate in self.gates:
            nn.init.constant_(gate.bias, -1.0)  # type: ignore[arg-type]  # at first mostly a copy, as in the source

    def forward(self, u: Tensor) -> Tensor:
        """Take `(…, width)`, return the same shape."""
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            opened = torch.sigmoid(gate(u))
            u = torch.relu(transform(u)) * opened + u * (1.0 - opened)
        return u
