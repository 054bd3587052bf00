"""`edgeser::TopKMask` on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgeser.export_tools.plugins.launches import MaskProblem
from edgeser.export_tools.plugins.operators import Dim, Operator, Shape, kernels


@dataclass(frozen=True)
class TopKMask(Operator):
    """The mask of key-sparse attention alone (KS-Transformer paper, equation 3), on weights that are already there.

    Input weights `(N, H, Tq, Tk)`, at least 0; outputs the weights with those of the keys zeroed whose sum over the
    queries is below the `keep`-th largest, and these sums, `(N, H, Tk)`. Ties stay.

    Attributes:
        keep: How many keys stay, at least 1.
    """

    name: ClassVar[str] = "TopKMask"
    input_count: ClassVar[int] = 1

    keep: int

    def output_shapes(self, inputs: Sequence[Sequence[Dim]]) -> list[list[Dim]]:
        weights = inputs[0]
        return [[*weights], [weights[0], weights[1], weights[3]]]

    def workspace_bytes(self, inputs: Sequence[Shape], is_half: bool) -> int:
        return self._problem(inputs, is_half).workspace_bytes

    def run(
        self,
        inputs: Sequence[Shape],
        is_half: bool,
        addresses: tuple[Sequence[int], Sequence[int], int],
        stream: int,
    ) -> None:
        kernels("top_k_mask").run(self._problem(inputs, is_half).launches(*addresses), stream)

    def _problem(self, inputs: Sequence[Shape], is_half: bool) -> MaskProblem:
        batch, heads, queries, keys = inputs[0]
        return MaskProblem(batch, heads, queries, keys, self.keep, is_half)
