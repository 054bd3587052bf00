"""ILT: an LSTM beside the transformer in place of positional encoding (He, Minematsu and Saito)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgeser.models.base import ModelOutput
from edgeser.models.filter_bank import COMPACT, FilterBankConfig, FilterBankModel, pooled
from edgeser.nn.recurrent import AttentionPooling, Recurrence
from edgeser.nn.transformer import Stream
from edgeser.runtime.errors import InputError

ARRANGEMENTS = ("parallel", "cascaded", "no-lstm")
FUSIONS = ("concatenation", "plus", "trainable-plus")


@dataclass(frozen=True)
class ILTConfig(FilterBankConfig):
    """All that fixes an ILT's shape.

    Attributes:
        arrangement: `parallel`, an LSTM beside the transformer (ILT itself); `cascaded`, between the convolutions and
            the transformer (the paper's baseline 2); or `no-lstm` (baseline 1).
        fusion: How the parallel branches come together: `concatenation` (equation 12), `plus` (13) or
            `trainable-plus` (14 to 16).
        alpha: The LSTM's share in `plus`, 0 to 1.
    """

    family: ClassVar[str] = "ilt"
    arrangement: str = "parallel"
    fusion: str = "trainable-plus"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.one_of("arrangement", ARRANGEMENTS)
        self.one_of("fusion", FUSIONS)
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(f"ilt: got alpha {self.alpha}, expected 0 to 1, the LSTM's share")


class Fusion(nn.Module):
    """Two vectors made one (equations 12 to 16).

    Args:
        kind: One of `FUSIONS`.
        alpha: The first one's share in `plus`; in `trainable-plus` both begin with a half.
    """

    def __init__(self, kind: str, alpha: float = 0.5) -> None:
        super().__init__()
        self.kind = kind
        self.alpha = alpha
        if kind == "trainable-plus":
            self.weights = nn.Parameter(torch.zeros(2))  # W_A and W_B

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return `(N, width)`, or `(N, 2 width)` from `concatenation`, for two `(N, width)`."""
        if self.kind == "concatenation":
            return torch.cat([first, second], dim=-1)
        if self.kind == "plus":
            return self.alpha * first + (1.0 - self.alpha) * second
        share = torch.softmax(self.weights, dim=0)
        return share[0] * first + share[1] * second


class ILT(FilterBankModel):
    """ILT and the baselines of its paper, by `arrangement`.

    A convolutional network, then a bidirectional LSTM with attention pooling beside a transformer with a mean over
    time, their fusion, one fully connected layer. Paper, figure 1.

    The importance of a row is its weight beta in the attention pooling (equation 9); without an LSTM branch, its
    share of the attention in the transformer's last layer.
    """

    family = "ilt"
    configured = ILTConfig
    variants: ClassVar = {
        "cnn-transformer": {"arrangement": "no-lstm"},
        "cnn-transformer-positions": {"arrangement": "no-lstm", "positions": True},
        "cnn-lstm-transformer": {"arrangement": "cascaded"},
        "cnn-lstm-transformer-positions": {"arrangement": "cascaded", "positions": True},
        "concatenation": {"fusion": "concatenation"},
        "concatenation-positions": {"fusion": "concatenation", "positions": True},
        "plus": {"fusion": "plus"},
        "plus-positions": {"fusion": "plus", "positions": True},
        "trainable-plus-positions": {"positions": True},
    }
    sizes: ClassVar = {"paper": {}, "compact": COMPACT}

    def __init__(self, config: ILTConfig) -> None:
        super().__init__(config)
        self.config = config
        self.cnn = self._convolutions()
        self._register_positions("cnn", self.cnn)
        self.transformer = self._transformer()
        if config.arrangement != "no-lstm":
            self.lstm = Recurrence(config.width, config.width)
        if config.arrangement == "parallel":
            self.pooling = AttentionPooling(config.width)
            self.fusion = Fusion(config.fusion, config.alpha)
            if config.fusion == "concatenation":
                self.classifier[1] = nn.Linear(2 * config.width, config.classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> ModelOutput:
        rows, length = self.cnn(inputs["audio"], self._open(inputs))  # C of equation 5
        hidden = rows if self.config.arrangement == "no-lstm" else self.lstm(rows, length)
        attended = rows if self.config.arrangement == "parallel" else hidden
        utterance, importance = pooled(self.transformer, Stream(attended, self.get_buffer("cnn_positions"), length))
        if self.config.arrangement == "parallel":
            recurrent, importance = self.pooling(hidden, length)
            utterance = self.fusion(recurrent, utterance)
        logits = self.classifier(utterance)
        if self.training:
            return ModelOutput(logits, {})
        return ModelOutput(logits, {"audio": self._per_input_row(self.cnn, importance, inputs)})
