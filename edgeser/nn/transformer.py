"""Transformer layer and cascaded cross-attention block of the KS-Transformer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from edgeser.nn.attention import MultiHeadAttention


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
        ffn: Hidden width of the feed-forward network.
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
        keep_rate: Share of the keys that key-sparse attention keeps; `None` for vanilla attention.
        key_width: Width of the other modality's rows, for cross attention; `None` for self attention.
    """

    def __init__(self, sizes: LayerSizes, keep_rate: float | None, key_width: int | None = None) -> None:
        super().__init__()
        width, ffn, dropout = sizes.width, sizes.ffn, sizes.dropout
        self.norm_query = nn.LayerNorm(width)
        self.norm_key = None if key_width is None else nn.LayerNorm(key_width)
        self.attention = MultiHeadAttention(width, sizes.heads, keep_rate, sizes.attention_dropout, key_width)
        self.norm_attention = nn.LayerNorm(width)
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
        rows = self.norm_ffn(rows + self.dropout(self.ffn(rows)))
        return x.with_rows(rows), importance


class CrossAttentionBlock(nn.Module):
    """CCAB: key-sparse cross attention to the other modality, then key-sparse self attention.

    KS-Transformer paper, section 2.2, left part of figure 4.

    Args:
        sizes: Widths, heads and dropout of the modality that asks.
        key_width: Width of the other modality's rows.
        keep_rate: Share of the keys that stay; `None` for vanilla attention.
        mask_padding: Whether the self attention leaves padded rows out; the published system does not.
    """

    def __init__(self, sizes: LayerSizes, key_width: int, keep_rate: float | None, mask_padding: bool) -> None:
        super().__init__()
        self.cross = TransformerLayer(sizes, keep_rate, key_width)
        self.fuse = TransformerLayer(sizes, keep_rate)
        self.mask_padding = mask_padding

    def forward(self, x: Stream, other: Stream) -> Stream:
        x, _ = self.cross(x, other)
        fused, _ = self.fuse(x if self.mask_padding else unmasked(x))
        return x.with_rows(fused.rows)


def unmasked(x: Stream) -> Stream:
    """Return `x` with every row, padded or not, open to attention."""
    return Stream(x.rows, x.positions, x.length * 0 + x.rows.shape[1])
