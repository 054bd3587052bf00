"""Which weights an attention keeps, as configurations that a transformer layer takes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgeser.nn.attention import drop_attention, kept_keys, key_sparse_attention
from edgeser.runtime.errors import InputError


@dataclass(frozen=True)
class KeySparse:
    """Key-sparse attention (KS-Transformer paper, section 2.1.2).

    Attributes:
        keep_rate: Share of the keys that stay, above 0 to 1.
    """

    keep_rate: float

    def __post_init__(self) -> None:
        if not 0.0 < self.keep_rate <= 1.0:
            raise InputError(f"keep_rate: got {self.keep_rate}, expected above 0 and at most 1")

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, key_length: Tensor, scale: float, dropout: float
    ) -> tuple[Tensor, Tensor]:
        return key_sparse_attention(q, k, v, key_length, kept_keys(k.shape[2], self.keep_rate), scale, dropout)


@dataclass(frozen=True)
class DropMask:
    """Drop attention (DropFormer paper, section 2.1).

    Attributes:
        keep_rate: Share of the rows that the dynamic mask keeps, above 0 to 1; `None` for no dynamic mask.
        offsets: Distances that the static mask keeps; none for no static mask.
    """

    keep_rate: float | None
    offsets: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.keep_rate is not None and not 0.0 < self.keep_rate <= 1.0:
            raise InputError(f"keep_rate: got {self.keep_rate}, expected above 0 and at most 1")
        if self.keep_rate is None and not self.offsets:
            raise InputError("drop attention: got neither a dynamic nor a static mask, which drops every weight")

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, key_length: Tensor, scale: float, dropout: float
    ) -> tuple[Tensor, Tensor]:
        keep = 0 if self.keep_rate is None else kept_keys(k.shape[2], self.keep_rate)
        return drop_attention(q, k, v, key_length, keep, self.offsets, scale, dropout)
