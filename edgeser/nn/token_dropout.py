"""Token dropout: the rows of a stream that carry least are left out, the others move together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgeser.nn.transformer import Stream


class Tokens(NamedTuple):
    """A stream that has lost rows.

    Attributes:
        stream: What is left.
        places: `(N, T)` int64, where each row stood before any was dropped.
    """

    stream: Stream
    places: Tensor


class TokenDropout(nn.Module):
    """Drops the least important rows and keeps the order of the others (DropFormer paper, equations 5 and 6).

    A stream of `rows` becomes one of `rows - int(rows * rate)`, always; of a sample's `n` valid rows,
    `n - int(n * rate)` stay, so that short utterances lose their share too and not only padding. Of equally important
    rows the first stay.

    Args:
        rows: Rows that come in.
        rate: Share that goes, 0 to below 1.
    """

    def __init__(self, rows: int, rate: float) -> None:
        super().__init__()
        self.rows = rows - int(rows * rate + 1e-4)
        self.rate = rate

    def forward(self, tokens: Tokens, importance: Tensor) -> Tokens:
        """Drop by the importance `(N, T)`, >= 0, of each row."""
        stream, length = tokens.stream, tokens.stream.length
        count = stream.rows.shape[1]
        place = torch.arange(count, device=importance.device)
        score = torch.where(place < length[:, None], importance, -1.0)
        left = length - (length.to(importance.dtype) * self.rate + 1e-4).floor().to(length.dtype)
        stays = self._first_largest(score, left[:, None])
        # What is left comes in its old order; behind it, as padding now, what else fills the fixed length. Places are
        # sorted as floating point, which every engine can.
        key = torch.where(stays, place, place + count).to(importance.dtype)
        ordered = torch.topk(key, self.rows, dim=1, largest=False).values
        kept = torch.where(ordered < count, ordered, ordered - count).long()
        rows = torch.gather(stream.rows, 1, kept[:, :, None].expand(-1, -1, stream.rows.shape[2]))
        places = torch.gather(tokens.places, 1, kept)
        return Tokens(Stream(rows, stream.positions[: self.rows], left), places)

    def _first_largest(self, score: Tensor, left: Tensor) -> Tensor:
        """Return `(N, T)`: whether a row is among the `left` `(N, 1)` of largest score, of equal ones the first.

        Engines agree on what values TopK gives, and not on the places of equal ones.
        """
        largest = torch.topk(score, self.rows, dim=1).values
        threshold = torch.gather(largest, 1, (left - 1).clamp(min=0).long())
        above, equal = score > threshold, score == threshold
        room = left - above.to(score.dtype).sum(dim=1, keepdim=True)
        return above | (equal & (equal.to(score.dtype).cumsum(dim=1) <= room))


def all_places(stream: Stream) -> Tensor:
    """Return the places `(N, T)` of a stream that has lost nothing."""
    count = stream.rows.shape[1]
    return torch.arange(count, device=stream.rows.device)[None] + torch.zeros_like(stream.length)[:, None].long()


def put_back(values: Tensor, tokens: Tokens, rows: int) -> Tensor:
    """Bring `(N, T)` values of the rows that are left back to their `(N, rows)` places; 0 for the others."""
    valid = torch.arange(values.shape[1], device=values.device) < tokens.stream.length[:, None]
    places = (tokens.places[:, :, None] == torch.arange(rows, device=values.device)).to(values.dtype)  # (N, T, rows)
    return torch.matmul((values * valid)[:, None], places)[:, 0]
