"""Multilevel Transformer: voice fragments, words and phonemes, fused as in Transformer TTS (He et al. 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgeser.models.base import EmotionModel, InputSpec, LogMelShape, ModelOutput
from edgeser.nn.highway import Highway
from edgeser.nn.phonemes import PhonemeEmbedding
from edgeser.nn.positions import masked_max, sinusoids, valid_rows
from edgeser.nn.prenets import EncoderPrenet, MelPrenet
from edgeser.nn.stems import ConvStem, PoolStem, Stem
from edgeser.nn.transformer import DecoderLayer, LayerSizes, Stream, TransformerLayer
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import PHONEMES

COMBINATIONS = ("highway", "concatenation")
PRENETS = ("linear", "conv", "pool")
_MODES = (("audio", "text", "phonemes"), ("audio", "text"), ("audio", "phonemes"))


@dataclass(frozen=True)
class MultilevelConfig:
    """All that fixes the multilevel part's shape.

    Attributes:
        inputs: By modality: `audio`, and `text`, `phonemes` or both.
        width: Width of all transformer layers.
        ffn: Hidden width of their feed-forward networks.
        heads: Attention heads.
        depths: Layers of text encoder, cross-modality module and deep fusion (table 2); without deep fusion there is no
            dummy vector, and the maximum over time takes its place (table 1).
        combine: How words and phonemes come together: `highway` (two layers, equation 3) or `concatenation`.
        phoneme_dim: Width of a phoneme's embedding.
        phoneme_width: Width of a word's vector of phonemes.
        prenet: What stands before audio: `linear` (two fully connected layers, as published), `conv` or `pool` (one row
            for eight).
        dropout: In training, on sublayer outputs and in the pre-nets.
        attention_dropout: In training, on attention weights.
    """

    inputs: Mapping[str, InputSpec]
    width: int = 128
    ffn: int = 512
    heads: int = 4
    depths: tuple[int, int, int] = (1, 1, 2)
    combine: str = "highway"
    phoneme_dim: int = 64
    phoneme_width: int = 100
    prenet: str = "linear"
    dropout: float = 0.1
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        if set(self.inputs) not in map(set, _MODES):
            raise InputError(
                f"multilevel: got modalities {list(self.inputs)}, expected audio with text, phonemes or both"
            )
        if self.heads < 1 or self.width % self.heads:
            raise InputError(f"multilevel: width {self.width} is no multiple of {self.heads} heads")
        if len(self.depths) != 3 or min(self.depths) < 0 or self.depths[1] < 1:
            raise InputError(
                f"multilevel: got depths {list(self.depths)}, expected three counts, the middle one at least 1"
            )
        if self.combine not in COMBINATIONS or self.prenet not in PRENETS:
            raise InputError(
                f"multilevel: got combine {self.combine!r} and prenet {self.prenet!r}, "
                f"expected {' or '.join(COMBINATIONS)} and {' or '.join(PRENETS)}"
            )
        text, phonemes = self.inputs.get("text"), self.inputs.get("phonemes")
        if phonemes and phonemes.frontend not in ("", "phonemes"):
            raise InputError(f"multilevel: phonemes come from {phonemes.frontend!r}, expected phonemes")
        if text and phonemes and (text.length != phonemes.length or text.frontend not in ("", "word-vectors")):
            raise InputError(
                f"multilevel: got {text.length} rows of {text.frontend} and {phonemes.length} of phonemes: "
                "expected word vectors, a row for each row of phonemes"
            )

    @property
    def words(self) -> str:
        """The modality that says how many words there are."""
        return "text" if "text" in self.inputs else "phonemes"

    @property
    def importances(self) -> tuple[str, ...]:
        """The modalities that have an importance: phonemes share that of their words."""
        return ("audio", self.words)

    @classmethod
    def restore(cls, fields: Mapping[str, Any]) -> MultilevelConfig:
        """Make the configuration again from its plain values."""
        inputs = {name: InputSpec(**spec) for name, spec in fields["inputs"].items()}
        return cls(**{**fields, "inputs": inputs, "depths": tuple(fields["depths"])})

    @classmethod
    def compact(cls, inputs: Mapping[str, InputSpec], **changes: Any) -> MultilevelConfig:
        """Return the small one: one row of audio for eight, 64 wide."""
        audio = inputs.get("audio")
        base: dict[str, Any] = {
            "width": 64,
            "ffn": 128,
            "phoneme_dim": 16,
            "phoneme_width": 32,
            "prenet": "pool" if audio is not None and audio.frontend == "onnx-encoder" else "conv",
            "dropout": 0.2,
        }
        return cls(inputs, **{**base, **changes})


class Representation(NamedTuple):
    """What the multilevel part makes of an utterance: `rows` `(N, width)`, and the importance by modality."""

    rows: Tensor
    importance: dict[str, Tensor]


class MultilevelEncoder(nn.Module):
    """Everything before the classifier (paper, figure 1).

    Importance: for audio the mean over heads of the column sums in the last layer over audio, for the words those of
    the last attention from audio to them.
    """

    def __init__(self, config: MultilevelConfig) -> None:
        super().__init__()
        self.config = config
        width, dropout = config.width, config.dropout
        text_layers, cross_layers, fusion_layers = config.depths
        sizes = LayerSizes(width, config.ffn, config.heads, dropout, config.attention_dropout)
        words = 0
        if "phonemes" in config.inputs:
            self.phonemes = PhonemeEmbedding(len(PHONEMES) + 1, config.phoneme_dim, config.phoneme_width)
            words += config.phoneme_width
        words += config.inputs["text"].dim if "text" in config.inputs else 0
        self.combine = Highway(words, 2) if config.combine == "highway" else nn.Identity()
        self.text_prenet = EncoderPrenet(words, width, dropout)
        self.text_encoder = nn.ModuleList(TransformerLayer(sizes, None) for _ in range(text_layers))
        self.audio_stem = _audio_stem(config)
        self.cross = nn.ModuleList(DecoderLayer(sizes, width) for _ in range(cross_layers))
        self.fusion = nn.ModuleList(TransformerLayer(sizes, None) for _ in range(fusion_layers))
        audio = config.inputs["audio"]
        if fusion_layers:
            self.dummy = nn.Parameter(torch.randn(width) * 0.02)
        rows = 1 + self.audio_stem.rows(audio.length)
        self.register_buffer("audio_positions", sinusoids(rows, width), persistent=False)
        self.register_buffer("text_positions", sinusoids(config.inputs[config.words].length, width), persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Representation:
        text = self._text(inputs)
        audio = self._audio(inputs)
        for layer in self.cross:
            audio, heard, read = layer(audio, text)
        for layer in self.fusion:
            audio, heard = layer(audio)
        rows = audio.rows[:, 0] if self.fusion else masked_max(audio.rows, audio.length)
        if self.training:
            return Representation(rows, {})
        return Representation(rows, self._importance(heard, read, inputs))

    def _text(self, inputs: Mapping[str, Tensor]) -> Stream:
        levels = [self.phonemes(inputs["phonemes"])] if "phonemes" in self.config.inputs else []
        levels += [inputs["text"]] if "text" in self.config.inputs else []
        length = inputs[f"{self.config.words}_length"]
        rows = self.text_prenet(self.combine(torch.cat(levels, dim=-1)), length)
        stream = Stream(rows, self.get_buffer("text_positions"), length)
        for layer in self.text_encoder:
            stream, _ = layer(stream)
        return stream

    def _audio(self, inputs: Mapping[str, Tensor]) -> Stream:
        rows, length = self.audio_stem(inputs["audio"], inputs["audio_length"])
        if self.fusion:
            dummy = self.dummy.expand(rows.shape[0], 1, -1)
            rows, length = torch.cat([dummy, rows], dim=1), length + 1
        return Stream(rows, self.get_buffer("audio_positions")[: rows.shape[1]], length)

    def _importance(self, heard: Tensor, read: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        frames = heard.mean(dim=1)[:, 1:] if self.fusion else heard.mean(dim=1)
        length = self.config.inputs["audio"].length
        found = {"audio": self.audio_stem.spread(frames, length) * valid_rows(inputs["audio_length"], length)}
        found[self.config.words] = read.mean(dim=1)
        return found


class Multilevel(EmotionModel):
    """The multilevel transformer: the encoder, and a projection of its first row, that of the dummy mel vector."""

    family = "multilevel"
    modes = _MODES
    log_mel = LogMelShape(bins=128, length=625, hop_ms=12)
    variants = MappingProxyType(
        {"concatenation": {"combine": "concatenation"}, "w/o deep fusion module": {"depths": (1, 1, 0)}}
    )

    def __init__(self, config: MultilevelConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.inputs = config.inputs
        self.importances = config.importances
        self.encoder = MultilevelEncoder(config)
        self.classifier = nn.Linear(config.width, classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> ModelOutput:
        found = self.encoder(inputs)
        return ModelOutput(self.classifier(found.rows), found.importance)

    @classmethod
    def preset(cls, name: str, inputs: Mapping[str, InputSpec], classes: int, **changes: Any) -> Multilevel:
        """Build `paper` (128 wide, two layers before audio) or `compact` (64 wide, one row of audio for eight)."""
        if name not in cls.presets:
            raise InputError(f"multilevel: got preset {name!r}, expected one of {', '.join(cls.presets)}")
        make = MultilevelConfig if name == "paper" else MultilevelConfig.compact
        return cls(make(inputs, **changes), classes)

    def configuration(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.config), "classes": self.classifier.out_features}

    @classmethod
    def restore(cls, configuration: Mapping[str, Any]) -> Multilevel:
        fields = dict(configuration)
        classes = fields.pop("classes")
        return cls(MultilevelConfig.restore(fields), classes)


def _audio_stem(config: MultilevelConfig) -> Stem:
    dim = config.inputs["audio"].dim
    if config.prenet == "linear":
        return MelPrenet(dim, config.width, config.dropout)
    if config.prenet == "conv":
        # Half the usual channels: 625 rows of 128 bins cost twice as much as 460 of 80.
        return ConvStem(dim, config.width, config.dropout, channels=8)
    return PoolStem(dim, config.width, 8, config.dropout)
