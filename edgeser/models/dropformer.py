"""DropFormer: drop attention and the token dropout module (Mai et al., Interspeech 2024)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

from torch import Tensor, nn

from edgeser.models.base import EmotionModel, InputSpec, ModelOutput
from edgeser.models.branch import BranchConfig
from edgeser.nn.attention import Attend
from edgeser.nn.classifier import build_classifier
from edgeser.nn.positions import masked_mean, sinusoids, valid_rows
from edgeser.nn.sparsity import DropMask
from edgeser.nn.token_dropout import TokenDropout, Tokens, all_places, put_back
from edgeser.nn.transformer import LayerSizes, Stream, TransformerLayer
from edgeser.runtime.errors import InputError

NEAR = (0, 2)
"""Distances that the static mask keeps in the first half of the blocks (figure 3)."""
FAR = (0, 1, 3)
"""Distances in the second half, where rows resemble their neighbours less."""


@dataclass(frozen=True)
class DropFormerConfig:
    """All that fixes a DropFormer's shape.

    Attributes:
        audio: The branch.
        classes: Emotions.
        layers: DropFormer blocks.
        heads: Attention heads.
        dynamic: Whether attention keeps weights among the most attended rows (M_d).
        static: Whether it keeps weights between near rows (M_s); without both it is vanilla attention.
        keep_rate: Share of the rows that the dynamic mask keeps, above 0 to 1 (KR).
        drop_rate: Share of the rows that each block drops, 0 to below 1 (DR); 0 for no token dropout module.
        dropout: In training, on sublayer outputs and in the classifier.
        attention_dropout: In training, on attention weights.
    """

    audio: BranchConfig
    classes: int = 4
    layers: int = 4
    heads: int = 8
    dynamic: bool = True
    static: bool = True
    keep_rate: float = 0.1
    drop_rate: float = 0.1
    dropout: float = 0.5
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise InputError(f"dropformer: got {self.layers} layers, expected at least 1")
        if not 0.0 < self.keep_rate <= 1.0:
            raise InputError(f"dropformer: got keep_rate {self.keep_rate}, expected above 0 and at most 1")
        if not 0.0 <= self.drop_rate < 1.0:
            raise InputError(f"dropformer: got drop_rate {self.drop_rate}, expected 0 to below 1")
        self.audio.check("dropformer: audio", self.heads)

    def sparsity(self, layer: int) -> Attend | None:
        """Return what the attention of a block keeps; `None` for vanilla attention."""
        if not self.dynamic and not self.static:
            return None
        offsets = NEAR if layer < self.layers / 2 else FAR
        return DropMask(self.keep_rate if self.dynamic else None, offsets if self.static else ())


class DropFormer(EmotionModel):
    """The DropFormer: blocks of drop attention, each followed by the token dropout module, for audio.

    Paper, figure 2. What it leaves open and what was chosen is in `docs/models.md`. The importance of a row is the mean
    over heads of its column sums in the last block, 0 for rows that were dropped on the way there.
    """

    family = "dropformer"
    modes = (("audio",),)
    variants = MappingProxyType(
        {
            "w/o TDM": {"drop_rate": 0.0},
            "w/o TDM & Md": {"drop_rate": 0.0, "dynamic": False},
            "w/o TDM & Ms": {"drop_rate": 0.0, "static": False},
            "w/o DA": {"dynamic": False, "static": False},
            "vanilla transformer": {"drop_rate": 0.0, "dynamic": False, "static": False},
        }
    )
    importances = ("audio",)

    def __init__(self, config: DropFormerConfig) -> None:
        super().__init__()
        self.config = config
        audio = config.audio
        self.inputs = {"audio": audio.input}
        self.stem = audio.build_stem(config.dropout)
        sizes = LayerSizes(audio.width, audio.ffn, config.heads, config.dropout, config.attention_dropout)
        self.blocks = nn.ModuleList(TransformerLayer(sizes, config.sparsity(i)) for i in range(config.layers))
        rows = self.stem.rows(audio.length)
        self.register_buffer("positions", sinusoids(rows, audio.width), persistent=False)
        self.token_dropouts = nn.ModuleList()
        for _ in range(config.layers if config.drop_rate else 0):
            self.token_dropouts.append(TokenDropout(rows, config.drop_rate))
            rows = cast(TokenDropout, self.token_dropouts[-1]).rows
        self.classifier = build_classifier(audio.width, config.classes, config.dropout)

    def forward(self, inputs: Mapping[str, Tensor]) -> ModelOutput:
        rows, length = self.stem(inputs["audio"], inputs["audio_length"])
        stream = Stream(rows, self.get_buffer("positions"), length)
        before = tokens = Tokens(stream, all_places(stream))
        importance = rows[:, :, 0]
        for i, block in enumerate(self.blocks):
            before = tokens
            stream, by_head = block(tokens.stream)
            importance = by_head.mean(dim=1)
            tokens = tokens._replace(stream=stream)
            if self.config.drop_rate:
                tokens = self.token_dropouts[i](tokens, importance)
        logits = self.classifier(masked_mean(tokens.stream.rows, tokens.stream.length))
        if self.training:
            return ModelOutput(logits, {})
        length = self.config.audio.length
        attended = self.stem.spread(put_back(importance, before, rows.shape[1]), length)
        return ModelOutput(logits, {"audio": attended * valid_rows(inputs["audio_length"], length)})

    @classmethod
    def preset(cls, name: str, inputs: Mapping[str, InputSpec], classes: int, **changes: Any) -> DropFormer:
        """Build `paper` (the width of its features, 4 blocks) or `compact` (rows of 160 ms, 64 wide)."""
        if name not in cls.presets:
            raise InputError(f"dropformer: got preset {name!r}, expected one of {', '.join(cls.presets)}")
        if set(inputs) != {"audio"}:
            raise InputError(f"dropformer: got modalities {list(inputs)}, expected audio")
        spec = inputs["audio"]
        base: dict[str, Any] = {}
        width = spec.dim if spec.frontend == "onnx-encoder" and spec.dim % 8 == 0 else 512
        ffn = width // 2
        if name == "compact":
            base = {"heads": 4, "dropout": 0.3}
            width, ffn = 64, 128
        branch = BranchConfig.of("audio", spec, width, ffn, compact=name == "compact")
        return cls(DropFormerConfig(branch, classes, **{**base, **changes}))

    def configuration(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    @classmethod
    def restore(cls, configuration: Mapping[str, Any]) -> DropFormer:
        return cls(DropFormerConfig(**{**configuration, "audio": BranchConfig(**configuration["audio"])}))
