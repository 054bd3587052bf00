"""What the attention operators have in common on a GPU: the same tensors, and four kernels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from edgeser.export_tools.plugins.launches import AttentionProblem
from edgeser.export_tools.plugins.operators import Dim, Operator, Shape, kernels


class AttentionOperator(Operator):
    """Attention with a mask of its own.

    Inputs q `(N, H, Tq, D)`, k and v `(N, H, Tk, D)`, the valid keys `(N,)` INT32; outputs context `(N, H, Tq, D)` and
    importance `(N, H, Tk)`. D is at most 128.
    """

    input_count: ClassVar[int] = 4
    lengths: ClassVar[tuple[int, ...]] = (3,)

    def output_shapes(self, inputs: Sequence[Sequence[Dim]]) -> list[list[Dim]]:
        q, k = inputs[0], inputs[1]
        return [[*q], [q[0], q[1], k[2]]]

    def workspace_bytes(self, inputs: Sequence[Shape], is_half: bool) -> int:
        return self.problem(inputs, is_half).workspace_bytes

    def run(
        self,
        inputs: Sequence[Shape],
        is_half: bool,
        addresses: tuple[Sequence[int], Sequence[int], int],
        stream: int,
    ) -> None:
        problem = self.problem(inputs, is_half)
        loaded = kernels(problem.source, HEAD_DIM=problem.head_dim)
        loaded.run(problem.launches(*addresses, loaded.cuda.processors), stream)

    @abstractmethod
    def problem(self, inputs: Sequence[Shape], is_half: bool) -> AttentionProblem:
        """Return what there is to compute for inputs of these shapes."""
