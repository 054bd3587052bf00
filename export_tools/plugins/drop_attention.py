"""`edgeser::DropAttention` on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgeser.export_tools.plugins.attention import AttentionOperator
from edgeser.export_tools.plugins.launches import DropProblem
from edgeser.export_tools.plugins.operators import Shape

NO_OFFSETS = (-1,)  # stands for an empty list in a graph and in a plan


@dataclass(frozen=True)
class DropAttention(AttentionOperator):
    """Self attention among the most attended rows, and between near ones (DropFormer paper, equations 1 to 4).

    Tq and Tk are one T. `export_tools.drop_attention` defines what it computes.

    Attributes:
        keep: How many rows the dynamic mask keeps; 0 for the static mask alone.
        offsets: Distances that the static mask keeps, at most 63; (-1,) for the dynamic mask alone.
        scale: Factor on the scores.
    """

    name: ClassVar[str] = "DropAttention"

    keep: int
    offsets: tuple[int, ...]
    scale: float

    def problem(self, inputs: Sequence[Shape], is_half: bool) -> DropProblem:
        batch, heads, queries, dim = inputs[0]
        offsets = () if self.offsets == NO_OFFSETS else self.offsets
        return DropProblem(batch, heads, queries, inputs[1][2], dim, self.keep, self.scale, is_half, offsets)
