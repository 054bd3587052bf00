"""`edgeser::KeySparseAttention` on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from edgeser.export_tools.plugins.launches import AttentionProblem
from edgeser.export_tools.plugins.operators import Dim, Operator, Shape, kernels


@dataclass(frozen=True)
class KeySparseAttention(Operator):
    """Attention that keeps only the most attended keys (KS-Transformer paper, section 2.1.2, equation 3).

    Inputs q `(N, H, Tq, D)`, k and v `(N, H, Tk, D)`, key_length `(N,)` INT32; outputs context `(N, H, Tq, D)` and
    importance `(N, H, Tk)`. D is at most 128. `export_tools.key_sparse` defines what it computes.

    Attributes:
        keep: How many keys stay, at least 1.
        scale: Factor on the scores.
    """

    name: ClassVar[str] = "KeySparseAttention"
    input_count: ClassVar[int] = 4
    lengths: ClassVar[tuple[int, ...]] = (3,)

    keep: int
    scale: float

    def output_shapes(self, inputs: Sequence[Sequence[Dim]]) -> list[list[Dim]]:
        q, k = inputs[0], inputs[1]
        return [[*q], [q[0], q[1], k[2]]]

    def workspace_bytes(self, inputs: Sequence[Shape], is_half: bool) -> int:
        return self._problem(inputs, is_half).workspace_bytes

    def run(
        self,
        inputs: Sequence[Shape],
        is_half: bool,
        addresses: tuple[Sequence[int], Sequence[int], int],
        stream: int,
    ) -> None:
        problem = self._problem(inputs, is_half)
        loaded = kernels("key_sparse_attention", HEAD_DIM=problem.head_dim)
        loaded.run(problem.launches(*addresses, loaded.cuda.processors), stream)

    def _problem(self, inputs: Sequence[Shape], is_half: bool) -> AttentionProblem:
        batch, heads, queries, dim = inputs[0]
        return AttentionProblem(batch, heads, queries, inputs[1][2], dim, self.keep, self.scale, is_half)
