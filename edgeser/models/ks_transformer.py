"""KS-Transformer: key-sparse attention, cascaded cross-attention blocks, deep fusion (Chen et al., ICASSP 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeser.models.base import EmotionModel, InputSpec, ModelOutput
from edgeser.models.branch import BranchConfig
from edgeser.nn.attention import Attend
from edgeser.nn.classifier import build_classifier
from edgeser.nn.positions import masked_mean, sinusoids, valid_rows
from edgeser.nn.relevance import classifier_gradient, contrast, mean_contribution, relevance
from edgeser.nn.skip import STATISTICS, StatisticsSkip
from edgeser.nn.sparsity import KeySparse
from edgeser.nn.stems import Stem
from edgeser.nn.transformer import CrossAttentionBlock, LayerSizes, Stream, TransformerLayer, unmasked
from edgeser.runtime.errors import InputError

READOUTS = ("attention", "relevance")
MODULES = ("extraction", "interaction", "fusion")


@dataclass(frozen=True)
class KSTransformerConfig:
    """All that fixes a KS-Transformer's shape.

    Attributes:
        branches: By modality, `audio`, `text` or both.
        classes: Emotions.
        layers: Layers in feature extraction, CCABs in modality interaction, layers in deep fusion.
        modules: Those of `MODULES` that are there (table 2 of the longer paper).
        heads: Attention heads.
        keep_rate: Share of the keys that key-sparse attention keeps, above 0 to 1.
        sparse: `False` replaces key-sparse by vanilla attention everywhere (the ablation).
        mask_padding: Leave padded rows out of every attention and of the mean. The published system masks
            them in feature extraction and cross attention only.
        skip: Dropout on a skip from statistics of each modality's input rows straight to the logits;
            `None` for no skip. The published system has none: with a pretrained encoder and little data, most of
            what there is to learn is linear in these statistics, and the attention learns what they miss.
        skip_statistics: What the skip reads: `mean-deviation`, or the `mean` alone, which holds better on corpora that
            the model has not met.
        fusion_drop: In training, share of the samples for which a model with skips does without its fusion's logits;
            afterwards these logits weigh the other share. Skips and fusion see the same evidence: added in full,
            they count it twice.
        readout: What the importance of a row is: `attention`, the column sums of the last deep fusion layer, mean
            over heads, as published; or `relevance`, the row's contribution to the winning logit.
        dropout: In training, on sublayer outputs and in the classifier.
        attention_dropout: In training, on attention weights.
    """

    branches: Mapping[str, BranchConfig]
    classes: int = 4
    layers: tuple[int, int, int] = (5, 3, 2)
    modules: tuple[str, ...] = MODULES
    heads: int = 8
    keep_rate: float = 0.5
    sparse: bool = True
    mask_padding: bool = False
    skip: float | None = None
    skip_statistics: str = STATISTICS[0]
    fusion_drop: float = 0.0
    readout: str = "attention"
    dropout: float = 0.5
    attention_dropout: float = 0.5

    def __post_init__(self) -> None:
        if not self.branches or not set(self.branches) <= {"audio", "text"}:
            raise InputError(f"ks-transformer: got modalities {list(self.branches)}, expected audio, text or both")
        if not 0.0 < self.keep_rate <= 1.0:
            raise InputError(f"ks-transformer: got keep_rate {self.keep_rate}, expected above 0 and at most 1")
        if len(self.layers) != 3 or min(self.layers) < 0:
            raise InputError(f"ks-transformer: got layers {self.layers}, expected three counts, for example 5,3,2")
        if self.readout not in READOUTS:
            raise InputError(f"ks-transformer: got readout {self.readout!r}, expected {' or '.join(READOUTS)}")
        if self.skip_statistics not in STATISTICS:
            known = " or ".join(STATISTICS)
            raise InputError(f"ks-transformer: got skip_statistics {self.skip_statistics!r}, expected {known}")
        if not set(self.modules) <= set(MODULES):
            raise InputError(f"ks-transformer: got modules {list(self.modules)}, expected of {', '.join(MODULES)}")
        for name, branch in self.branches.items():
            branch.check(f"ks-transformer: {name}", self.heads)

    @property
    def depths(self) -> tuple[int, int, int]:
        """Layers, CCABs and layers of the three modules, 0 for one that is left out."""
        extraction, ccabs, fusion = (n if m in self.modules else 0 for m, n in zip(MODULES, self.layers, strict=True))
        return extraction, ccabs, fusion


class KSTransformer(EmotionModel):
    """The KS-Transformer, for audio and text or one of them.

    Input stems, feature extraction (vanilla transformers), modality interaction (CCABs both ways, added to
    each modality's own features), deep fusion (KS-Transformers), mean over time, classifier. Paper, figure 2;
    the facts it leaves open are listed in `docs/models.md`.

    The importance of a row is, by `readout`, the mean over heads of its column sums in the last deep fusion layer
    (in the last layer there is, when deep fusion has none), or its contribution to the winning logit.
    """

    family = "ks-transformer"
    modes = (("audio", "text"), ("audio",), ("text",))
    variants = MappingProxyType(
        {
            "dense attention": {"sparse": False},
            "w/o CCAB": {"modules": ("extraction", "fusion")},
            "MIM+DFM": {"modules": ("interaction", "fusion")},
            "FEM+MIM": {"modules": ("extraction", "interaction")},
        }
    )

    def __init__(self, config: KSTransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.inputs = {name: branch.input for name, branch in config.branches.items()}
        extraction, ccabs, fusion = config.depths
        sparsity = KeySparse(config.keep_rate) if config.sparse else None
        self.stems = nn.ModuleDict({n: b.build_stem(config.dropout) for n, b in config.branches.items()})
        self.extraction = nn.ModuleDict({n: self._layers(b, extraction, None) for n, b in config.branches.items()})
        self.interaction = nn.ModuleDict()
        if len(config.branches) == 2:
            for name, branch in config.branches.items():
                other = next(b for n, b in config.branches.items() if n != name)
                self.interaction[name] = nn.ModuleList(
                    CrossAttentionBlock(self._sizes(branch), other.width, sparsity, config.mask_padding)
                    for _ in range(ccabs)
                )
        self.fusion = nn.ModuleDict({n: self._layers(b, fusion, sparsity) for n, b in config.branches.items()})
        self.importances = tuple(config.branches) if extraction + fusion or config.readout == "relevance" else ()
        width = sum(branch.width for branch in config.branches.values())
        self.classifier = build_classifier(width, config.classes, config.dropout)
        self.skips = nn.ModuleDict()
        if config.skip is not None:
            for name, branch in config.branches.items():
                self.skips[name] = StatisticsSkip(branch.dim, config.classes, config.skip, config.skip_statistics)
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
        fused: dict[str, Stream] = {}
        for name, stream in streams.items():
            fused[name], last = _through(self.fusion[name], stream if self.config.mask_padding else unmasked(stream))
            importance[name] = importance[name] if last is None else last
        pooled = torch.cat([masked_mean(stream.rows, stream.length) for stream in fused.values()], dim=-1)
        logits = self.classifier(pooled)
        statistics: dict[str, Tensor] = {}
        parts = {"fusion": logits}
        if self.skips and self.training:
            logits = logits * (torch.rand_like(logits[:, :1]) >= self.config.fusion_drop)
        elif self.skips:
            logits = logits * self._fusion_share
        for name in self.skips:
            skip = self._skip(name)
            statistics[name] = skip.measure(inputs[name], inputs[f"{name}_length"])
            parts[name] = skip(statistics[name], inputs[f"{name}_length"])
            logits = logits + parts[name]
        if self.training:
            return ModelOutput(logits, {}, parts if self.skips else {})
        if self.config.readout == "relevance":
            return ModelOutput(logits, self._relevance(logits, pooled, fused, statistics, inputs))
        spread = {n: self._per_input_row(n, i.mean(dim=1), inputs) for n, i in importance.items() if i is not None}
        return ModelOutput(logits, spread)

    def _relevance(
        self,
        logits: Tensor,
        pooled: Tensor,
        fused: Mapping[str, Stream],
        statistics: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Return each input row's contribution to the winning logit, through deep fusion and through the skip."""
        direction = contrast(logits)
        gradients = classifier_gradient(self.classifier, pooled, direction)
        widths = [branch.width for branch in self.config.branches.values()]
        found = {}
        for (name, stream), gradient in zip(fused.items(), torch.split(gradients, widths, dim=-1), strict=True):
            through_fusion = mean_contribution(stream.rows, stream.length, gradient)
            contribution = self._stem(name).spread(through_fusion * self._fusion_share, self.inputs[name].length)
            length = inputs[f"{name}_length"]
            if name in statistics:
                through_skip = self._skip(name).contribution(inputs[name], statistics[name], length, direction)
                contribution = contribution + through_skip
            found[name] = relevance(contribution, length)
        return found

    @property
    def _fusion_share(self) -> float:
        return 1.0 - self.config.fusion_drop if self.skips else 1.0

    def prepare(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Standardise the skips by the training split."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.skips}
        for batch in batches if found else ():
            for name, statistics in found.items():
                length = batch[f"{name}_length"]
                statistics.append(self._skip(name).measure(batch[name], length)[length > 0])
        for name, statistics in found.items():
            self._skip(name).fit(torch.cat(statistics))

    def voice_skips(self) -> list[StatisticsSkip]:
        return [self._skip("audio")] if "audio" in self.skips else []

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
        """Spread `(N, T)` column sums over the rows that went into the stem, padding at 0."""
        spread = self._stem(name).spread(importance, self.inputs[name].length)
        return spread * valid_rows(inputs[f"{name}_length"], self.inputs[name].length)

    def _stem(self, name: str) -> Stem:
        return cast(Stem, self.stems[name])

    def _skip(self, name: str) -> StatisticsSkip:
        return cast(StatisticsSkip, self.skips[name])

    def _layers(self, branch: BranchConfig, count: int, attend: Attend | None) -> nn.ModuleList:
        return nn.ModuleList(TransformerLayer(self._sizes(branch), attend) for _ in range(count))

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
            if any(spec.frontend == "onnx-encoder" for spec in inputs.values()):
                sizes = {"audio": (64, 128), "text": (64, 128)}
                base.update(dropout=0.4, skip=0.3, fusion_drop=0.5, readout="relevance")
        else:
            raise InputError(f"ks-transformer: got preset {name!r}, expected one of {', '.join(cls.presets)}")
        branches = {
            modality: BranchConfig.of(modality, spec, *sizes.get(modality, sizes["audio"]), compact=name == "compact")
            for modality, spec in inputs.items()
        }
        if changes.get("skip") is False:  # files without a null say it so
            changes["skip"] = None
        return cls(KSTransformerConfig(branches, classes, **{**base, **changes}))

    def configuration(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    @classmethod
    def restore(cls, configuration: Mapping[str, Any]) -> KSTransformer:
        fields = dict(configuration)
        fields["branches"] = {name: BranchConfig(**branch) for name, branch in configuration["branches"].items()}
        fields["layers"] = tuple(configuration["layers"])
        fields["modules"] = tuple(configuration.get("modules", MODULES))  # bundles from before it do not have it
        return cls(KSTransformerConfig(**fields))


def _through(layers: nn.Module, stream: Stream) -> tuple[Stream, Tensor | None]:
    """Run a stack of layers; the importance is the last one's, `None` for an empty stack."""
    importance = None
    for layer in layers.children():
        stream, importance = layer(stream)
    return stream, importance
