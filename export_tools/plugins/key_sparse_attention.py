"""`edgeser::KeySparseAttention` on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgeser.export_tools.plugins.attention import AttentionOperator
from edgeser.export_tools.plugins.launches import AttentionProblem
from edgeser.export_tools.plugins.operators import Shape


@dataclass(frozen=True)
class KeySparseAttention(AttentionOperator):
    """Attention that keeps only the most attended keys (KS-Transformer paper, section 2.1.2, equation 3).

    `export_tools.key_sparse` defines what it computes.

    Attributes:
        keep: How many keys stay, at least 1.
        scale: Factor on the scores.
    """

    name: ClassVar[str] = "KeySparseAttention"

    keep: int
    scale: float

    def problem(self, inputs: Sequence[Shape], is_half: bool) -> AttentionProblem:
        batch, heads, queries, dim = inputs[0]
        return AttentionProblem(batch, heads, queries, inputs[1][2], dim, self.keep, self.scale, is_half)
