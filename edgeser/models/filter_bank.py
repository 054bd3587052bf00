"""What ILT and CAT (He, Minematsu and Saito) share: log-mels, a convolutional network, transformer layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgeser.models.base import EmotionModel, InputSpec, LogMelShape
from edgeser.nn.convolution import ConvolutionBranch
from edgeser.nn.positions import masked_mean, sinusoids, valid_rows
from edgeser.nn.stems import Stem
from edgeser.nn.transformer import LayerSizes, Stream, TransformerLayer
from edgeser.runtime.errors import InputError

COMPACT: Mapping[str, Any] = MappingProxyType(
    {
        "channels": (8, 16, 32),
        "pools": (2, 2, 2),
        "step": 2,
        "width": 96,
        "ffn": 192,
        "layers": 1,
        "mask_padding": True,
        "dropout": 0.1,
        "attention_dropout": 0.0,
    }
)
"""What the preset `compact` changes of the papers' sizes, which are the configuration's defaults."""


@dataclass(frozen=True)
class FilterBankConfig:
    """All that fixes the shape of a model that reads log-mels.

    Attributes:
        length: Input rows.
        dim: Mel bins.
        frontend: Kind of the frontend; only `log-mel` will do.
        classes: Emotions.
        channels: Of each block of the convolutional network.
        pools: Rows that each block averages into one.
        step: Of the first convolution, in time and frequency.
        width: Width of every branch's rows; both directions of a bidirectional LSTM share it.
        ffn: Hidden width of the feed-forward networks.
        heads: Attention heads.
        layers: Transformer layers.
        positions: Sinusoidal positions in the transformer (equations 3 and 4).
        mask_padding: Leave padded rows out of attention and pooling. The published systems mask nothing.
        dropout: In training, behind convolutions, on sublayer outputs and before the classifier.
        attention_dropout: In training, on attention weights.
    """

    family: ClassVar[str]
    length: int = 750
    dim: int = 40
    frontend: str = "log-mel"
    classes: int = 4
    channels: tuple[int, ...] = (32, 64, 128, 128)
    pools: tuple[int, ...] = (2, 2, 2, 2)
    step: int = 1
    width: int = 256
    ffn: int = 512
    heads: int = 4
    layers: int = 2
    positions: bool = False
    mask_padding: bool = False
    dropout: float = 0.3
    attention_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("channels", "pools"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists
        if self.frontend != "log-mel":
            raise InputError(
                f"{self.family}: got audio rows of frontend {self.frontend!r}, expected log-mel: this family reads "
                "log-mels, train it without a speech encoder"
            )
        sizes = (self.length, self.dim, self.classes, self.step, self.width, self.ffn, self.heads, self.layers)
        if min(*sizes, *self.channels, *self.pools) < 1:
            raise InputError(f"{self.family}: got sizes {(*sizes, *self.channels, *self.pools)}, expected at least 1")
        if not self.channels or len(self.channels) != len(self.pools):
            raise InputError(
                f"{self.family}: got channels {self.channels} and pools {self.pools}, expected as many of either"
            )
        if self.width % 2 or self.width % self.heads:
            raise InputError(
                f"{self.family}: got width {self.width}, expected an even multiple of its {self.heads} heads"
            )
        for name in ("dropout", "attention_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"{self.family}: got {name} {getattr(self, name)}, expected 0 to below 1")

    def one_of(self, name: str, choices: tuple[str, ...]) -> None:
        """Check a closed choice."""
        if getattr(self, name) not in choices:
            raise InputError(f"{self.family}: got {name} {getattr(self, name)!r}, expected one of {', '.join(choices)}")


class FilterBankModel(EmotionModel):
    """Base of the families that read log-mels alone.

    Attributes:
        sizes: Its presets: fields of the configuration.
        configured: The class of its configuration.
    """

    modes = (("audio",),)
    log_mel = LogMelShape(bins=40, length=750)
    sizes: ClassVar[Mapping[str, Mapping[str, Any]]]
    configured: ClassVar[type[FilterBankConfig]]

    def __init__(self, config: FilterBankConfig) -> None:
        super().__init__()
        self._config = config
        self.inputs = {"audio": InputSpec(config.length, config.dim, config.frontend)}
        self.importances = ("audio",)
        self.classifier = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.width, config.classes))

    def _convolutions(self) -> ConvolutionBranch:
        config = self._config
        return ConvolutionBranch(config.dim, config.width, config.channels, config.pools, config.dropout, config.step)

    def _transformer(self, *, is_cross: bool = False) -> nn.ModuleList:
        config = self._config
        sizes = LayerSizes(config.width, config.ffn, config.heads, config.dropout, config.attention_dropout)
        key_width = config.width if is_cross else None
        return nn.ModuleList(TransformerLayer(sizes, None, key_width) for _ in range(config.layers))

    def _register_positions(self, name: str, stem: Stem) -> None:
        rows, width = stem.rows(self._config.length), self._config.width
        positions = sinusoids(rows, width) if self._config.positions else torch.zeros(1, width)
        self.register_buffer(f"{name}_positions", positions, persistent=False)

    def _open(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return how many input rows `(N,)` the model may read: the valid ones, or all of them."""
        length = inputs["audio_length"]
        return length if self._config.mask_padding else length * 0 + self._config.length

    def _per_input_row(self, stem: Stem, importance: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Bring the importance `(N, K)` of a branch's rows back to the input's: `(N, length)`, 0 in padding."""
        length = self._config.length
        return stem.spread(importance, length) * valid_rows(inputs["audio_length"], length)

    @classmethod
    def preset(cls, name: str, inputs: Mapping[str, InputSpec], classes: int, **changes: Any) -> FilterBankModel:
        """Build `paper` or `compact` for the log-mels that `inputs` describes."""
        if name not in cls.sizes:
            raise InputError(f"{cls.family}: got preset {name!r}, expected one of {', '.join(cls.presets)}")
        if set(inputs) != {"audio"}:
            raise InputError(f"{cls.family}: got modalities {list(inputs)}, expected audio alone: it reads log-mels")
        spec = inputs["audio"]
        own = {"length": spec.length, "dim": spec.dim, "frontend": spec.frontend, "classes": classes}
        return cls(cls.configured(**{**own, **cls.sizes[name], **changes}))

    def configuration(self) -> dict[str, Any]:
        return dataclasses.asdict(self._config)

    @classmethod
    def restore(cls, configuration: Mapping[str, Any]) -> FilterBankModel:
        return cls(cls.configured(**configuration))


def pooled(layers: nn.ModuleList, stream: Stream, other: Stream | None = None) -> tuple[Tensor, Tensor]:
    """Run a transformer and average over time.

    Returns:
        `(N, width)`, and of the last layer the share of the attention that each attended row gets, mean over heads
        and queries: `(N, Tk)`, in sum 1 or 0.
    """
    importance = stream.rows.new_zeros(())
    for layer in layers:
        stream, importance = layer(stream, other)
    return masked_mean(stream.rows, stream.length), importance.mean(dim=1) / stream.rows.shape[1]
