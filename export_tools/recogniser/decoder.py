"""Whisper's decoder in two modules that become graphs: what the encoder's rows turn into once, and one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeser.runtime.errors import InputError

_MASKED = -1e4  # far below any score, and finite in half precision


class CrossAttentionCache(nn.Module):
    """Keys and values of every decoder layer from the encoder's last hidden state: once an utterance.

    Args:
        decoder: `transformers`' `WhisperDecoder`.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.layers: Any = decoder.layers
        self.heads: int = self.layers[0].encoder_attn.num_heads

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` returns, in order."""
        return [f"cross_{kind}_{i}" for kind in ("keys", "values") for i in range(len(self.layers))]

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return keys `(N, heads, dim, rows)` of all layers, then values `(N, heads, rows, dim)`.

        Args:
            hidden: `(N, rows, width)`, after the encoder's final norm.
        """
        keys, values = [], []
        for layer in self.layers:
            attention = layer.encoder_attn
            keys.append(_heads(attention.k_proj(hidden), self.heads).permute(0, 2, 3, 1))
            values.append(_heads(attention.v_proj(hidden), self.heads).transpose(1, 2))
        return *keys, *values


class DecoderStep(nn.Module):
    """One token in, the next one's logits out. What was said before is in a cache that the caller keeps.

    The table of tokens lies the way the output product wants it, `(width, tokens)`: looking a token up takes one
    column, and one table serves both ends, as they are tied.

    Args:
        decoder: `transformers`' `WhisperDecoder`.
        size: Places of the cache: the longest sequence, prompt and end included.
        alignment_heads: `(layer, head)` whose cross-attention follows the words in time.

    Raises:
        InputError: There are fewer positions, or no such head.
    """

    def __init__(self, decoder: Any, size: int, alignment_heads: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.layers: Any = decoder.layers
        self.norm: Any = decoder.layer_norm
        self.heads: int = self.layers[0].self_attn.num_heads
        self.size = size
        positions = decoder.embed_positions.weight
        if not 1 <= size <= positions.shape[0]:
            raise InputError(f"the decoder's cache: got {size} places, expected 1 to {positions.shape[0]}")
        for layer, head in alignment_heads:
            if not (0 <= layer < len(self.layers) and 0 <= head < self.heads):
                raise InputError(
                    f"alignment heads: got ({layer}, {head}), expected layers below {len(self.layers)} and heads "
                    f"below {self.heads}"
                )
        self.alignment_heads = tuple(sorted(alignment_heads))
        table = decoder.embed_tokens.weight.detach()
        self.register_buffer("table", table.T.contiguous())
        self.register_buffer("positions", positions[:size].detach().clone())

    @property
    def inputs(self) -> list[str]:
        """Names of what `forward` takes, in order."""
        layers = range(len(self.layers))
        caches = [f"{whose}_{kind}_{i}" for whose in ("past", "cross") for kind in ("keys", "values") for i in layers]
        return ["token", "position", "heard", *caches]

    def forward(self, token: Tensor, position: Tensor, heard: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Return logits `(N, tokens)`, this token's keys and values `(N, layers, heads, dim)` and the alignment.

        Args:
            token: `(N,)` int32.
            position: `(N,)` int32, its place, from 0: so many places of the cache count.
            heard: `(N,)` int32: so many of the encoder's rows count.
            caches: Of every layer: past keys `(N, heads, dim, size)`, past values `(N, heads, size, dim)`, then
                cross keys and values as `CrossAttentionCache` gives them.

        Returns:
            The alignment is the cross-attention of each alignment head, `(N, alignment heads, rows)`.
        """
        count = len(self.layers)
        past_keys, past_values, cross_keys, cross_values = (caches[i * count : (i + 1) * count] for i in range(4))
        past_mask = _mask(position, self.size)
        cross_mask = _mask(heard, cross_keys[0].shape[-1])
        table = self.get_buffer("table")
        # (N, 1, width)
        state = (table.index_select(1, token).T + self.get_buffer("positions").index_select(0, position))[:, None]
        keys, values, weights = [], [], []
        for i, layer in enumerate(self.layers):
            own = layer.self_attn
            normed = layer.self_attn_layer_norm(state)
            key, value = (_heads(p(normed), self.heads) for p in (own.k_proj, own.v_proj))  # (N, 1, heads, dim)
            query = _heads(own.q_proj(normed) * own.scaling, self.heads).transpose(1, 2)  # (N, heads, 1, dim)
            # Scores of the past and of this token apart: nothing of the cache is copied.
            past = torch.matmul(query, past_keys[i]) + past_mask
            now = torch.matmul(query, key.permute(0, 2, 3, 1))
            attention = torch.softmax(torch.cat([past, now], dim=-1), dim=-1)
            past, now = attention[..., :-1], attention[..., -1:]
            context = torch.matmul(past, past_values[i]) + now * value.transpose(1, 2)
            state = state + own.out_proj(_joined(context))
            keys.append(key)
            values.append(value)

            cross = layer.encoder_attn
            query = cross.q_proj(layer.encoder_attn_layer_norm(state)) * cross.scaling
            scores = torch.matmul(_heads(query, self.heads).transpose(1, 2), cross_keys[i]) + cross_mask
            attention = torch.softmax(scores, dim=-1)  # (N, heads, 1, rows)
            state = state + cross.out_proj(_joined(torch.matmul(attention, cross_values[i])))
            weights += [attention[:, head] for j, head in self.alignment_heads if j == i]

            wide = functional.gelu(layer.fc1(layer.final_layer_norm(state)))
            state = state + layer.fc2(wide)
        logits = torch.matmul(self.norm(state)[:, 0], table)
        return logits, torch.cat(keys, dim=1), torch.cat(values, dim=1), torch.cat(weights, dim=1)


def _heads(values: Tensor, heads: int) -> Tensor:
    """Cut `(N, T, width)` into `(N, T, heads, dim)`."""
    return values.reshape(*values.shape[:2], heads, values.shape[2] // heads)


def _joined(context: Tensor) -> Tensor:
    """Bring `(N, heads, 1, dim)` back to `(N, 1, width)`."""
    return context.transpose(1, 2).flatten(2)


def _mask(count: Tensor, size: int) -> Tensor:
    """Return `(N, 1, 1, size)`, 0 for the first `count[n]` places and far below any score for the others."""
    beyond = torch.arange(size, dtype=torch.int32, device=count.device) >= count[:, None]
    return (beyond.float() * _MASKED)[:, None, None, :]
