"""CAT: cross attention between a convolutional and a recurrent branch (He, Minematsu and Saito)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from edgeser.models.base import ModelOutput
from edgeser.models.filter_bank import COMPACT, FilterBankConfig, FilterBankModel, pooled
from edgeser.nn.positions import masked_mean
from edgeser.nn.recurrent import RecurrentBranch
from edgeser.nn.stems import Stem
from edgeser.nn.transformer import Stream
from edgeser.runtime.errors import InputError

# The branches that ask and answer in each transformer; a branch that asks itself has self attention.
_PAIRS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "both": (("cnn", "lstm"), ("lstm", "cnn")),
    "cnn-to-lstm": (("cnn", "lstm"),),
    "lstm-to-cnn": (("lstm", "cnn"),),
    "cnn": (("cnn", "cnn"),),
    "lstm": (("lstm", "lstm"),),
    "no-transformer": (),
}
ARRANGEMENTS = tuple(_PAIRS)


@dataclass(frozen=True)
class CATConfig(FilterBankConfig):
    """All that fixes a CAT's shape.

    Attributes:
        arrangement: `both`, cross attention either way (CAT itself); `cnn-to-lstm` or `lstm-to-cnn`, one way, the
            first branch asking; `cnn` or `lstm`, self attention in that branch alone; `no-transformer`, the sum of
            the branches.
        stride: Rows that the convolution before the LSTM makes one.
        bidirectional: Whether the LSTM reads backward too.
    """

    family: ClassVar[str] = "cat"
    arrangement: str = "both"
    stride: int = 8
    bidirectional: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.one_of("arrangement", ARRANGEMENTS)
        if self.stride < 1:
            raise InputError(f"cat: got stride {self.stride}, expected at least 1, for example 8")


class CAT(FilterBankModel):
    """CAT and the ablations of its paper, by `arrangement`.

    The input goes through a convolutional network and, shortened by a 1-D convolution, through an LSTM; in CtoL the
    network's rows ask and the LSTM's rows answer, in LtoC the other way round; both outputs, means over time, are
    added; one fully connected layer. Paper, figure 2.

    The importance of a row is its share of the attention in the last layers, mean of both directions; without a
    transformer there is none.
    """

    family = "cat"
    configured = CATConfig
    variants: ClassVar = {
        "cnn-transformer": {"arrangement": "cnn", "positions": True},
        "lstm-transformer": {"arrangement": "lstm"},
        "cnn+lstm": {"arrangement": "no-transformer"},
        "cnn-to-lstm": {"arrangement": "cnn-to-lstm"},
        "lstm-to-cnn": {"arrangement": "lstm-to-cnn"},
    }
    sizes: ClassVar = {"paper": {}, "compact": {**COMPACT, "stride": 16}}

    def __init__(self, config: CATConfig) -> None:
        super().__init__(config)
        self.config = config
        pairs = _PAIRS[config.arrangement]
        self.branches = nn.ModuleDict()
        if config.arrangement != "lstm":
            self.branches["cnn"] = self._convolutions()
        if config.arrangement != "cnn":
            self.branches["lstm"] = RecurrentBranch(
                config.dim, config.width, config.stride, config.dropout, config.bidirectional
            )
        self.transformers = nn.ModuleDict(
            {asking: self._transformer(is_cross=asking != answering) for asking, answering in pairs}
        )
        for name in self.branches:
            self._register_positions(name, self._branch(name))
        self.importances = ("audio",) if pairs else ()

    def forward(self, inputs: Mapping[str, Tensor]) -> ModelOutput:
        streams: dict[str, Stream] = {}
        for name in self.branches:
            rows, length = self._branch(name)(inputs["audio"], self._open(inputs))
            streams[name] = Stream(rows, self.get_buffer(f"{name}_positions"), length)
        utterances, importances = [], []
        for asking, answering in _PAIRS[self.config.arrangement]:
            other = None if asking == answering else streams[answering]
            utterance, importance = pooled(self._layers(asking), streams[asking], other)
            utterances.append(utterance)
            importances.append(self._per_input_row(self._branch(answering), importance, inputs))
        if not utterances:
            utterances = [masked_mean(stream.rows, stream.length) for stream in streams.values()]
        logits = self.classifier(sum(utterances[1:], start=utterances[0]))
        if self.training or not importances:
            return ModelOutput(logits, {})
        return ModelOutput(logits, {"audio": torch.stack(importances).mean(dim=0)})

    def _branch(self, name: str) -> Stem:
        branch = self.branches[name]
        assert isinstance(branch, Stem)
        return branch

    def _layers(self, asking: str) -> nn.ModuleList:
        layers = self.transformers[asking]
        assert isinstance(layers, nn.ModuleList)
        return layers
