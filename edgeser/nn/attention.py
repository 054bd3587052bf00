"""Scaled dot-product attention, dense, key-sparse and drop, and the multi-head module around the first two."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, float, float], tuple[Tensor, Tensor]]
"""`(q, k, v, key_length, scale, dropout) -> (context, importance)`; shapes as in `dense_attention`."""

_MASKED_SCORE = -1e4  # far below any real score, and still a number in FP16


def attention_weights(q: Tensor, k: Tensor, key_length: Tensor, scale: float) -> Tensor:
    """Return softmax(q k^T * scale) over the valid keys.

    Args:
        q: `(N, H, Tq, D)`.
        k: `(N, H, Tk, D)`.
        key_length: `(N,)` integer; keys from there on are padding and weigh exactly 0.
        scale: Usually `1 / sqrt(D)`.

    Returns:
        `(N, H, Tq, Tk)`; rows sum to 1, or to 0 where every key is padding.
    """
    valid = torch.arange(k.shape[2], device=k.device) < key_length[:, None]  # (N, Tk)
    valid = valid[:, None, None, :]
    scores = torch.matmul(q, k.transpose(2, 3)) * scale
    weights = torch.softmax(scores.masked_fill(~valid, _MASKED_SCORE), dim=-1)
    return weights * valid


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, key_length: Tensor, scale: float, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Vanilla attention (KS-Transformer paper, equations 1 and 2), with the column sums beside it.

    Returns:
        Context `(N, H, Tq, D)` and importance `(N, H, Tk)`, the sum of each key's weights over the queries.
    """
    weights = attention_weights(q, k, key_length, scale)
    return torch.matmul(functional.dropout(weights, dropout), v), weights.sum(dim=2)


def key_sparse_attention(
    q: Tensor, k: Tensor, v: Tensor, key_length: Tensor, keep: int, scale: float, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Attention that keeps only the most attended keys (KS-Transformer paper, section 2.1.2, equation 3).

    A key's importance is the sum of its weights over all queries. Per head and sample, keys whose importance
    is below the `keep`-th largest weigh 0; ties at the threshold stay; the other weights are not renormalised.

    Args:
        q: `(N, H, Tq, D)`.
        k, v: `(N, H, Tk, D)`.
        key_length: `(N,)` int32, valid keys; padded keys weigh exactly 0, also when all are padded.
        keep: How many keys stay, 1 to Tk.
        scale: Factor on the scores.
        dropout: Probability of dropping a weight, after the mask.

    Returns:
        Context `(N, H, Tq, D)` and importance `(N, H, Tk)`.
    """
    if torch.onnx.is_in_onnx_export():
        # One opaque node; `export_tools.key_sparse` gives its meaning as an ONNX function.
        context, importance = torch.onnx.ops.symbolic_multi_out(
            "edgeser::KeySparseAttention",
            (q, k, v, key_length),
            attrs={"keep": keep, "scale": scale},
            dtypes=(q.dtype, q.dtype),
            shapes=(q.shape, (*q.shape[:2], k.shape[2])),
            version=1,
        )
        return context, importance
    weights = attention_weights(q, k, key_length, scale)
    importance = weights.sum(dim=2)  # (N, H, Tk)
    threshold = importance.topk(keep, dim=-1).values[..., -1:]
    kept = (importance >= threshold).unsqueeze(2)  # (N, H, 1, Tk)
    return torch.matmul(functional.dropout(weights * kept, dropout), v), importance


def drop_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    length: Tensor,
    keep: int,
    offsets: tuple[int, ...],
    scale: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Self attention among the most attended rows, and between near ones (DropFormer paper, equations 1 to 4).

    A row's importance is the sum of its column of weights. Per head and sample, a weight stays where both its query
    and its key are at or above the `keep`-th largest importance (dynamic mask; ties stay), or where they lie one of
    the `offsets` apart (static mask, figure 3). The others become 0; what stays is not renormalised.

    Args:
        q, k, v: `(N, H, T, D)`.
        length: `(N,)` int32, valid rows; padded rows weigh exactly 0 as keys, and neither vote nor attend as queries.
        keep: How many rows the dynamic mask keeps, all where it is above T; 0 for the static mask alone.
        offsets: Distances, at least 0, that the static mask keeps; none for the dynamic mask alone. With `keep` 0 and
            no offsets nothing stays: callers refuse that when they are made.
        scale: Factor on the scores.
        dropout: Probability of dropping a weight, after the mask.

    Returns:
        Context `(N, H, T, D)` and importance `(N, H, T)`.
    """
    if torch.onnx.is_in_onnx_export():
        # One opaque node; `export_tools.drop_attention` gives its meaning as an ONNX function.
        context, importance = torch.onnx.ops.symbolic_multi_out(
            "edgeser::DropAttention",
            (q, k, v, length),
            # No attribute can be an empty list; no two rows are -1 apart.
            attrs={"keep": keep, "offsets": list(offsets) or [-1], "scale": scale},
            dtypes=(q.dtype, q.dtype),
            shapes=(q.shape, q.shape[:3]),
            version=1,
        )
        return context, importance
    place = torch.arange(q.shape[2], device=q.device)
    padded = (place >= length[:, None])[:, None, :, None]  # (N, 1, T, 1)
    weights = attention_weights(q, k, length, scale).masked_fill(padded, 0.0)
    importance = weights.sum(dim=2)  # (N, H, T)
    distance = (place[:, None] - place).abs()
    stays = torch.zeros_like(distance, dtype=torch.bool)  # (T, T)
    for offset in offsets:
        stays = stays | (distance == offset)
    if keep > 0:
        threshold = importance.topk(min(keep, q.shape[2]), dim=-1).values[..., -1:]
        kept = importance >= threshold
        stays = stays | (kept.unsqueeze(3) & kept.unsqueeze(2))  # (N, H, T, T)
    return torch.matmul(functional.dropout(weights.masked_fill(~stays, 0.0), dropout), v), importance


def kept_keys(key_count: int, keep_rate: float) -> int:
    """Return how many of `key_count` keys a keep rate leaves: `int(key_count * keep_rate)`, at least 1."""
    return max(1, int(key_count * keep_rate))


class MultiHeadAttention(nn.Module):
    """Multi-head attention, dense or sparse (longer KS-Transformer paper, equation 3).

    Args:
        width: Width of queries and output.
        heads: Number of heads; divides `width`.
        attend: What each head computes, for example one of `edgeser.nn.sparsity`; `None` for dense attention.
        dropout: Dropout on the attention weights, in training.
        key_width: Width of keys and values in cross attention; `None` for self attention, which projects
            query, key and value from one input at once.
    """

    def __init__(
        self, width: int, heads: int, attend: Attend | None, dropout: float, key_width: int | None = None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attend = attend or dense_attention
        self.dropout = dropout
        self.scale = 1.0 / math.sqrt(width // heads)
        self.is_self_attention = key_width is None
        if key_width is None:
            self.project_qkv = nn.Linear(width, 3 * width)
        else:
            self.project_q = nn.Linear(width, width)
            self.project_k = nn.Linear(key_width, width)
            self.project_v = nn.Linear(key_width, width)
        self.project_out = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_length: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from `query` `(N, Tq, width)` to `key` and `value` `(N, Tk, key width)`.

        In self attention `query`, `key` and `value` are one tensor, and only `query` is read.

        Returns:
            `(N, Tq, width)` and the importance per head `(N, H, Tk)`.
        """
        if self.is_self_attention:
            projected = self.project_qkv(query).chunk(3, dim=-1)
        else:
            projected = (self.project_q(query), self.project_k(key), self.project_v(value))
        q, k, v = (self._split(x) for x in projected)
        dropout = self.dropout if self.training else 0.0
        context, importance = self.attend(q, k, v, key_length, self.scale, dropout)
        attended: Tensor = self.project_out(context.transpose(1, 2).flatten(2))
        return attended, importance

    def _split(self, x: Tensor) -> Tensor:
        heads = x.reshape(x.shape[0], x.shape[1], self.heads, -1)
        return heads.transpose(1, 2)  # (N, H, T, D)
