"""Multi-granularity model: the multilevel transformer beside a pretrained sentence embedding (He et al. 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeser.models.base import EmotionModel, InputSpec, LogMelShape, ModelOutput
from edgeser.models.multilevel import MultilevelConfig, MultilevelEncoder
from edgeser.nn.positions import valid_rows
from edgeser.runtime.errors import InputError


@dataclass(frozen=True)
class MultigranularityConfig:
    """All that fixes a multi-granularity model's shape.

    Attributes:
        sentence: The input with one row for the whole line, BERT's CLS embedding in the paper.
        multilevel: The fine-grained part; `None` for the sentence alone ("Bert" in table 3).
        classes: Emotions.
        projection: Width that each part is projected to before they are joined.
        dropout: In training, on the joined parts.
    """

    sentence: InputSpec
    multilevel: MultilevelConfig | None
    classes: int = 4
    projection: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.sentence.length != 1:
            raise InputError(
                f"multigranularity: got {self.sentence.length} rows of sentence, expected 1: "
                "run `edgeser export-encoder` with --pool"
            )
        if self.projection < 1:
            raise InputError(f"multigranularity: got projection {self.projection}, expected at least 1")


class Multigranularity(EmotionModel):
    """Late fusion (paper, figure 2): both embeddings are projected, joined, and classified by one layer.

    Without words the sentence counts as zeros.
    """

    family = "multigranularity"
    modes = (("audio", "text", "phonemes", "sentence"), ("sentence",))
    log_mel = LogMelShape(bins=128, length=625, hop_ms=12)

    def __init__(self, config: MultigranularityConfig) -> None:
        super().__init__()
        self.config = config
        fine = config.multilevel
        self.inputs = {**(fine.inputs if fine else {}), "sentence": config.sentence}
        self.importances = fine.importances if fine else ()
        self.project_sentence = nn.Linear(config.sentence.dim, config.projection)
        self.encoder = MultilevelEncoder(fine) if fine else None
        parts = 1
        if fine:
            self.project_fine = nn.Linear(fine.width, config.projection)
            parts = 2
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(parts * config.projection, config.classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> ModelOutput:
        sentence = inputs["sentence"][:, 0] * valid_rows(inputs["sentence_length"], 1)
        parts = [self.project_sentence(sentence)]
        importance: dict[str, Tensor] = {}
        if self.encoder is not None:
            found = self.encoder(inputs)
            parts.append(self.project_fine(found.rows))
            importance = found.importance
        return ModelOutput(self.classifier(self.dropout(torch.cat(parts, dim=-1))), importance)

    @classmethod
    def preset(cls, name: str, inputs: Mapping[str, InputSpec], classes: int, **changes: Any) -> Multigranularity:
        """Build `paper` or `compact`, with the multilevel part of the same preset; `changes` reach both parts."""
        if name not in cls.presets:
            raise InputError(f"multigranularity: got preset {name!r}, expected one of {', '.join(cls.presets)}")
        if set(inputs) not in map(set, cls.modes):
            modes = " or ".join(",".join(mode) for mode in cls.modes)
            raise InputError(f"multigranularity: got modalities {','.join(inputs)}, expected {modes}")
        own: dict[str, Any] = {} if name == "paper" else {"projection": 64, "dropout": 0.2}
        own.update({field: changes[field] for field in ("projection", "dropout") if field in changes})
        rest = {field: value for field, value in changes.items() if field != "projection"}
        fine = {modality: spec for modality, spec in inputs.items() if modality != "sentence"}
        make = MultilevelConfig if name == "paper" else MultilevelConfig.compact
        multilevel = make(fine, **rest) if fine else None
        if multilevel is None and set(rest) - {"dropout"}:
            raise InputError(f"multigranularity: got {', '.join(rest)}, which the sentence alone has no use for")
        return cls(MultigranularityConfig(inputs["sentence"], multilevel, classes, **own))

    def configuration(self) -> dict[str, Any]:
        return dataclasses.asdict(self.config)

    @classmethod
    def restore(cls, configuration: Mapping[str, Any]) -> Multigranularity:
        fields = dict(configuration)
        fields["sentence"] = InputSpec(**fields["sentence"])
        if fields["multilevel"] is not None:
            fields["multilevel"] = MultilevelConfig.restore(fields["multilevel"])
        return cls(MultigranularityConfig(**fields))
