"""Scaled dot-product attention, dense and key-sparse, and the multi-head module around them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

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


def kept_keys(key_count: int, keep_rate: float) -> int:
    """Return how many of `key_count` keys a keep rate leaves: `int(key_count * keep_rate)`, at least 1."""
    return max(1, int(key_count * keep_rate))


class MultiHeadAttention(nn.Module):
    """Multi-head attention, dense or key-sparse (longer KS-Transformer paper, equation 3).

    Args:
        width: Width of queries and output.
        heads: Number of heads; divides `width`.
        keep_rate: Share of the keys that stay, 0 to 1; `None` for dense attention.
        dropout: Dropout on the attention weights, in training.
        key_width: Width of keys and values in cross attention; `None` for self attention, which projects
            query, key and value from one input at once.
    """

    def __init__(
        self, width: int, heads: int, keep_rate: float | None, dropout: float, key_width: int | None = None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.keep_rate = keep_rate
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
        if self.keep_rate is None:
            context, importance = dense_attention(q, k, v, key_length, self.scale, dropout)
        else:
            keep = kept_keys(k.shape[2], self.keep_rate)
            context, importance = key_sparse_attention(q, k, v, key_length, keep, self.scale, dropout)
        attended: Tensor = self.project_out(context.transpose(1, 2).flatten(2))
        return attended, importance

    def _split(self, x: Tensor) -> Tensor:
        heads = x.reshape(x.shape[0], x.shape[1], self.heads, -1)
        return heads.transpose(1, 2)  # (N, H, T, D)
