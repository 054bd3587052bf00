"""Recurrent layers over time, and the attention that makes one vector of their rows."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeser.nn.convolution import shared_out, shortened
from edgeser.nn.positions import valid_rows
from edgeser.nn.stems import Stem

_MASKED_SCORE = -1e4  # far below any real score, and still a number in FP16


class Recurrence(nn.Module):
    """One LSTM layer, bidirectional or not (He et al., equations 6 to 8).

    It exports to a single ONNX `LSTM`. Padded rows come in as zeros and go out as zeros; the backward direction runs
    through their zeros first, so it knows how many there are but not what was in them.

    Args:
        dim: Width of the rows that come in.
        width: Width of the rows that go out; both directions share it.
        bidirectional: Whether to read backward too.
    """

    def __init__(self, dim: int, width: int, bidirectional: bool = True) -> None:
        super().__init__()
        hidden = width // 2 if bidirectional else width
        self.lstm = nn.LSTM(dim, hidden, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        """Take `(N, T, dim)` and the valid rows `(N,)`, return `(N, T, width)`."""
        valid = valid_rows(length, x.shape[1])[:, :, None]
        hidden: Tensor = self.lstm(x * valid)[0]
        return hidden * valid


class RecurrentBranch(Stem):
    """A 1-D convolution that shortens the input, then an LSTM (He et al., section 2.3).

    The convolution is the paper's, "simply for reducing the length": one row for `stride`, from twice as many, with a
    ReLU behind it.

    Args:
        dim: Width of an input row.
        width: Width of the rows that come out.
        stride: Rows in for one row out.
        dropout: On the shortened rows.
        bidirectional: Whether the LSTM reads backward too.
    """

    def __init__(self, dim: int, width: int, stride: int, dropout: float, bidirectional: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.shorten = nn.Conv1d(dim, width, 2 * stride, stride)
        self.dropout = nn.Dropout(dropout)
        self.recurrence = Recurrence(width, width, bidirectional)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Take `(N, T, dim)`, return `(N, T / stride, width)`, 0 in padding, and the valid rows `(N,)`, rounded up."""
        before = self.stride // 2  # what a row sees lies around the rows that it stands for
        after = (self.rows(x.shape[1]) + 1) * self.stride - x.shape[1] - before
        short = self.shorten(functional.pad(x.transpose(1, 2), (before, after)))  # (N, width, T / stride)
        length = shortened(length, self.stride)
        return self.recurrence(self.dropout(torch.relu(short)).transpose(1, 2), length), length

    def rows(self, length: int) -> int:
        return (length + self.stride - 1) // self.stride

    def spread(self, importance: Tensor, length: int) -> Tensor:
        return shared_out(importance, self.stride, length)


class AttentionPooling(nn.Module):
    """A weighted mean over time whose weights are learned (He et al., equations 9 and 10).

    Args:
        width: Width of the rows.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean `(N, width)` of `(N, T, width)` and the weights beta `(N, T)`: 0 in padding, in sum 1 or 0.

        Args:
            x: Rows.
            length: `(N,)` valid rows; 0 gives a mean and weights of 0.
        """
        valid = valid_rows(length, x.shape[1])
        scores = cast(Tensor, self.score(x))[:, :, 0].masked_fill(valid == 0, _MASKED_SCORE)
        beta = torch.softmax(scores, dim=1) * valid
        return torch.matmul(beta[:, None], x)[:, 0], beta
