"""KS-Transformer: key-sparse attention, cascaded cross-attention blocks, deep fusion (Chen et al., ICASSP 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeser.models.base import EmotionModel, InputSpec, ModelOutput
from edgeser.nn.positions import masked_mean, sinusoids, valid_rows
from edgeser.nn.stems import ConvStem, LinearStem, Stem
from edgeser.nn.transformer import CrossAttentionBlock, LayerSizes, Stream, TransformerLayer, unmasked
from edgeser.runtime.errors import InputError

_STEMS = ("none", "linear", "conv")


@dataclass(frozen=True)
class BranchConfig:
    """One modality's branch.

    Attributes:
        length: Input rows.
        dim: Width of an input row.
        width: Width inside the model.
        ffn: Hidden width of the feed-forward networks.
        stem: `none` (width = dim), `linear`, or `conv` (convolutions, one row for eight).
        frontend: Kind of the frontend that delivers the rows.
    """

    length: int
    dim: int
    width: int
    ffn: int
    stem: str = "linear"
    frontend: str = ""


@dataclass(frozen=True)
class KSTransformerConfig:
    """All that fixes a KS-Transformer's shape.

    Attributes:
        branches: By modality, `audio`, `text` or both.
        classes: Emotions.
        layers: Layers in feature extraction, CCABs in modality interaction, layers in deep fusion.
        heads: Attention heads.
        keep_rate: Share of the keys that key-sparse attention keeps, above 0 to 1.
        sparse: `False` replaces key-sparse by vanilla attention everywhere (the ablation).
        mask_padding: Leave padded rows out of every attention and of the mean. The published system masks
            them in feature extraction and cross attention only.
        dropout: In training, on sublayer outputs and in the classifier.
        attention_dropout: In training, on attention weights.
    """

    branches: Mapping[str, BranchConfig]
    classes: int = 4
    layers: tuple[int, int, int] = (5, 3, 2)
    heads: int = 8
    keep_rate: float = 0.5
    sparse: bool = True
    mask_padding: bool = False
    dropout: float = 0.5
    attention_dropout: float = 0.5

    def __post_init__(self) -> None:
        if not self.branches or not set(self.branches) <= {"audio", "text"}:
            raise InputError(f"ks-transformer: got modalities {list(self.branches)}, expected audio, text or both")
        if not 0.0 < self.keep_rate <= 1.0:
            raise InputError(f"ks-transformer: got keep_rate {self.keep_rate}, expected above 0 and at most 1")
        if len(self.layers) != 3 or min(self.layers) < 0:
            raise InputError(f"ks-transformer: got layers {self.layers}, expected three counts, for example 5,3,2")
        for name, branch in self.branches.items():
            if branch.width % self.heads:
                raise InputError(f"ks-transformer: {name} width {branch.width} is no multiple of {self.heads} heads")
            if branch.stem not in _STEMS or (branch.stem == "none" and branch.width != branch.dim):
                raise InputError(
                    f"ks-transformer: {name} stem {branch.stem!r} with dim {branch.dim} and width {branch.width}: "
                    f"expected one of {', '.join(_STEMS)}, 'none' only where dim equals width"
                )


class KSTransformer(EmotionModel):
    """The KS-Transformer, for audio and text or one of them.

    Input stems, feature extraction (vanilla transformers), modality interaction (CCABs both ways, added to
    each modality's own features), deep fusion (KS-Transformers), mean over time, classifier. Paper, figure 2;
    the facts it leaves open are listed in `docs/models.md`.

    The importance of a row is the mean over heads of its column sums in the last deep fusion layer
    (in the last layer there is, when deep fusion has none).
    """

    family = "ks-transformer"
    presets = ("paper", "compact")

    def __init__(self, config: KSTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.inputs = {n: InputSpec(b.length, b.dim, b.frontend) for n, b in config.branches.items()}
        extraction, ccabs, fusion = config.layers
        keep_rate = config.keep_rate if config.sparse else None
        self.stems = nn.ModuleDict({n: _build_stem(b, config.dropout) for n, b in config.branches.items()})
        self.extraction = nn.ModuleDict({n: self._layers(b, extraction, None) for n, b in config.branches.items()})
        self.interaction = nn.ModuleDict()
        if len(config.branches) == 2:
            for name, branch in config.branches.items():
                other = next(b for n, b in config.branches.items() if n != name)
                self.interaction[name] = nn.ModuleList(
                    CrossAttentionBlock(self._sizes(branch), other.width, keep_rate, config.mask_padding)
                    for _ in range(ccabs)
                )
        self.fusion = nn.ModuleDict({n: self._layers(b, fusion, keep_rate) for n, b in config.branches.items()})
        self.importances = tuple(config.branches) if extraction + fusion else ()
        self.classifier = _classifier(sum(b.width for b in config.branches.values()), config.classes, config.dropout)
        for name, branch in config.branches.items():
            rows = self._stem(name).rows(branch.length)
            self.register_buffer(f"{name}_positions", sinusoids(rows, branch.width), persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> ModelOutput:
        importance: dict[str, Tensor | None] = {}
        streams: dict[str, Stream] = {}
        for name in self.inputs:
            rows, length = self._stem(name)(inputs[name], inputs[f"{name}_length"])
            stream = Stream(rows, self.get_buffer(f"{name}_positions"), length)
            streams[name], importance[name] = _through(self.extraction[name], stream)
        if self.interaction:
            streams = {name: self._interact(name, streams) for name in streams}
        means = []
        for name, stream in streams.items():
            fused, last = _through(self.fusion[name], stream if self.config.mask_padding else unmasked(stream))
            importance[name] = importance[name] if last is None else last
            means.append(masked_mean(fused.rows, fused.length))
        logits = self.classifier(torch.cat(means, dim=-1))
        spread = {n: self._per_input_row(n, i, inputs) for n, i in importance.items() if i is not None}
        return ModelOutput(logits, spread)

    def _interact(self, name: str, streams: Mapping[str, Stream]) -> Stream:
        own = streams[name]
        other = next(stream for n, stream in streams.items() if n != name)
        fused = own
        for block in self.interaction[name].children():
            fused = block(fused, other)
        if fused is own:
            return own
        # The stack skips from its input to its output, and the sum is added to the modality's own features.
        return own.with_rows(own.rows + (own.rows + fused.rows))

    def _per_input_row(self, name: str, importance: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Spread `(N, H, T)` column sums over the rows that went into the stem, padding at 0."""
        spread = self._stem(name).spread(importance.mean(dim=1), self.inputs[name].length)
        return spread * valid_rows(inputs[f"{name}_length"], self.inputs[name].length)

    def _stem(self, name: str) -> Stem:
        return cast(Stem, self.stems[name])

    def _layers(self, branch: BranchConfig, count: int, keep_rate: float | None) -> nn.ModuleList:
        return nn.ModuleList(TransformerLayer(self._sizes(branch), keep_rate) for _ in range(count))

    def _sizes(self, branch: BranchConfig) -> LayerSizes:
        config = self.config
        return LayerSizes(branch.width, branch.ffn, config.heads, config.dropout, config.attention_dropout)

    @classmethod
    def preset(cls, name: str, inputs: Mapping[str, InputSpec], classes: int, **changes: Any) -> KSTransformer:
        """Build `paper` (85.3 M parameters with 512- and 1024-wide inputs) or `compact` (0.7 M)."""
        if name == "paper":
            sizes = {"audio": (512, 256), "text": (1024, 512)}
            base: dict[str, Any] = {"layers": (5, 3, 2), "heads": 8, "dropout": 0.5, "attention_dropout": 0.5}
        elif name == "compact":
            sizes = {"audio": (96, 192), "text": (96, 192)}
            base = {"layers": (1, 1, 1), "heads": 4, "dropout": 0.2, "attention_dropout": 0.0, "mask_padding": True}
        else:
            raise InputError(f"ks-transformer: got preset {name!r}, expected one of {', '.join(cls.presets)}")
        branches = {
            modality: BranchConfig(
                length=spec.length,
                dim=spec.dim,
                width=width,
                ffn=ffn,
                stem=_stem_kind(name, spec, width),
                frontend=spec.frontend,
            )
            for modality, spec in inputs.items()
            for width, ffn in [sizes.get(modality, sizes["audio"])]
        }
        return cls(KSTransformerConfig(branches, classes, **{**base, **changes}))

    def configuration(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    @classmethod
    def restore(cls, configuration: Mapping[str, Any]) -> KSTransformer:
        fields = dict(configuration)
        fields["branches"] = {name: BranchConfig(**branch) for name, branch in configuration["branches"].items()}
        fields["layers"] = tuple(configuration["layers"])
        return cls(KSTransformerConfig(**fields))


def _stem_kind(preset: str, spec: InputSpec, width: int) -> str:
    if preset == "compact" and spec.frontend == "log-mel":
        return "conv"
    return "none" if spec.dim == width else "linear"


def _through(layers: nn.Module, stream: Stream) -> tuple[Stream, Tensor | None]:
    """Run a stack of layers; the importance is the last one's, `None` for an empty stack."""
    importance = None
    for layer in layers.children():
        stream, importance = layer(stream)
    return stream, importance


def _build_stem(branch: BranchConfig, dropout: float) -> Stem:
    if branch.stem == "conv":
        return ConvStem(branch.dim, branch.width, dropout)
    return LinearStem(branch.dim, branch.width) if branch.stem == "linear" else LinearStem(branch.dim, None)


def _classifier(width: int, classes: int, dropout: float) -> nn.Sequential:
    """Halve the width twice, then classify: 1536 -> 768 -> 384 -> classes in the paper."""
    return nn.Sequential(
        nn.Linear(width, width // 2),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width // 2, width // 4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width // 4, classes),
    )
