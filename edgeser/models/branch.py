"""A modality's way into a model, which several families share."""

from __future__ import annotations

from dataclasses import dataclass

from edgeser.models.base import InputSpec
from edgeser.nn.stems import ConvStem, LinearStem, PoolStem, Stem
from edgeser.runtime.errors import InputError

_STEMS = ("none", "linear", "conv", "pool")
_POOLED = {"audio": 8, "text": 1}  # rows of an encoder that become one: 160 ms of speech, one token of text


@dataclass(frozen=True)
class BranchConfig:
    """One modality's branch.

    Attributes:
        length: Input rows.
        dim: Width of an input row.
        width: Width inside the model.
        ffn: Hidden width of the feed-forward networks.
        stem: `none` (width = dim), `linear`, `conv` (convolutions, one row for eight), or `pool` (the mean of
            `pool` rows, projected).
        frontend: Kind of the frontend that delivers the rows.
        pool: Rows in for one row out of a `pool` stem.
    """

    length: int
    dim: int
    width: int
    ffn: int
    stem: str = "linear"
    frontend: str = ""
    pool: int = 1

    def check(self, where: str, heads: int) -> None:
        """Raise `InputError` where widths, heads and stem do not fit; `where` names family and modality."""
        if heads < 1 or self.width % heads:
            raise InputError(f"{where}: width {self.width} is no multiple of {heads} heads")
        if self.stem not in _STEMS or (self.stem == "none" and self.width != self.dim):
            raise InputError(
                f"{where}: stem {self.stem!r} with dim {self.dim} and width {self.width}: "
                f"expected one of {', '.join(_STEMS)}, 'none' only where dim equals width"
            )

    @classmethod
    def of(cls, modality: str, spec: InputSpec, width: int, ffn: int, *, compact: bool) -> BranchConfig:
        """Return the branch for an input; a compact one shortens audio eightfold on its way in."""
        if compact and spec.frontend in ("log-mel", "onnx-encoder"):
            stem = "conv" if spec.frontend == "log-mel" else "pool"
        else:
            stem = "none" if spec.dim == width else "linear"
        return cls(spec.length, spec.dim, width, ffn, stem, spec.frontend, _POOLED.get(modality, 1))

    @property
    def input(self) -> InputSpec:
        """The input as the frontend delivers it."""
        return InputSpec(self.length, self.dim, self.frontend)

    def build_stem(self, dropout: float) -> Stem:
        """Return the stem with fresh weights."""
        if self.stem == "pool":
            return PoolStem(self.dim, self.width, self.pool, dropout)
        if self.stem == "conv":
            return ConvStem(self.dim, self.width, dropout)
        return LinearStem(self.dim, self.width if self.stem == "linear" else None)
