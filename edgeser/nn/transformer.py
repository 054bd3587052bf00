"""Transformer layer and cascaded cross-attention block of the KS-Transformer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor, nn

from edgeser.nn.attention import Attend, MultiHeadAttention


class Stream(NamedTuple):
    """One modality on its way through a model.

    Attributes:
        rows: `(N, T, width)`.
        positions: `(T, width)`, what is added to queries and keys.
        length: `(N,)` int32, rows that may be attended to.
    """

    rows: Tensor
    positions: Tensor
    length: Tensor

    def with_rows(self, rows: Tensor) -> Stream:
        return Stream(rows, self.positions, self.length)


@dataclass(frozen=True)
class LayerSizes:
    """What all layers of one modality share.

    Attributes:
        width: Width of the rows.
        ffn: Hidden width of the feed-forward network; 0 for layers without one.
        heads: Attention heads.
        dropout: On attention output and feed-forward layers.
        attention_dropout: On attention weights.
    """

    width: int
    ffn: int
    heads: int
    dropout: float
    attention_dropout: float


class TransformerLayer(nn.Module):
    """Attention and a feed-forward network, post-norm, with a LayerNorm on the inputs.

    The query input is normalised first. The residual is taken before positions are added; positions go to
    queries and keys, and in cross attention not to values. ReLU; dropout before and LayerNorm after each
    residual sum.

    Args:
        sizes: Widths, heads and dropout.
        attend: What the attention keeps, one of `edgeser.nn.sparsity`; `None` for vanilla attention.
        key_width: Width of the other modality's rows, for cross attention; `None` for self attention.
    """

    def __init__(self, sizes: LayerSizes, attend: Attend | None, key_width: int | None = None) -> None:
        super().__init__()
        width, ffn, dropout = sizes.width, sizes.ffn, sizes.dropout
        self.norm_query = nn.LayerNorm(width)
        self.norm_key = None if key_width is None else nn.LayerNorm(key_width)
        self.attention = MultiHeadAttention(width, sizes.heads, attend, sizes.attention_dropout, key_width)
        self.norm_attention = nn.LayerNorm(width)
        self.ffn: nn.Sequential | None = None
        if ffn:
            self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ffn, width))
            self.norm_ffn = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Stream, other: Stream | None = None) -> tuple[Stream, Tensor]:
        """Attend from `x` to `other`, or to itself.

        Returns:
            `x` with new rows, and the importance `(N, H, Tk)` of the attended rows.
        """
        residual = self.norm_query(x.rows)
        query = residual + x.positions
        if other is None or self.norm_key is None:
            attended, importance = self.attention(query, query, query, x.length)
        else:
            value = self.norm_key(other.rows)
            attended, importance = self.attention(query, value + other.positions, value, other.length)
        rows = self.norm_attention(residual + self.dropout(attended))
        if self.ffn is not None:
            rows = self.norm_ffn(rows + self.dropout(self.ffn(rows)))
        return x.with_rows(rows), importance


class DecoderLayer(nn.Module):
    """Self attention, then attention to another stream, then a feed-forward network (Vaswani et al. 2017).

    Args:
        sizes: Widths, heads and dropout of the stream that asks.
        key_width: Width of the other stream's rows.
    """

    def __init__(self, sizes: LayerSizes, key_width: int) -> None:
        super().__init__()
        self.own = TransformerLayer(replace(sizes, ffn=0), None)
        self.cross = TransformerLayer(sizes, None, key_width)

    def forward(self, x: Stream, other: Stream) -> tuple[Stream, Tensor, Tensor]:
        """Return `x` with new rows, the importance of its own rows `(N, H, T)` and of the other's `(N, H, Tk)`."""
        x, own = self.own(x)
        x, others = self.cross(x, other)
        return x, own, others


class CrossAttentionBlock(nn.Module):
    """CCAB: key-sparse cross attention to the other modality, then key-sparse self attention.

    KS-Transformer paper, section 2.2, left part of figure 4.

    Args:
        sizes: Widths, heads and dropout of the modality that asks.
        key_width: Width of the other modality's rows.
        attend: What both attentions keep; `None` for vanilla attention.
        mask_padding: Whether the self attention leaves padded rows out; the published system does not.
    """

    def __init__(self, sizes: LayerSizes, key_width: int, attend: Attend | None, mask_padding: bool) -> None:
        super().__init__()
        self.cross = TransformerLayer(sizes, attend, key_width)
        self.fuse = TransformerLayer(sizes, attend)
        self.mask_padding = mask_padding

    def forward(self, x: Stream, other: Stream) -> Stream:
        x, _ = self.cross(x, other)
        fused, _ = self.fuse(x if self.mask_padding else unmasked(x))
        return x.with_rows(fused.rows)


def unmasked(x: Stream) -> Stream:
    """Return `x` with every row, padded or not, open to attention."""
    return Stream(x.rows, x.positions, x.length * 0 + x.rows.shape[1])
