"""What every model family offers to training, export and evaluation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from edgeser.nn.skip import StatisticsSkip


@dataclass(frozen=True)
class InputSpec:
    """One modality as a frontend delivers it.

    Attributes:
        length: Rows, fixed.
        dim: Width of a row.
        frontend: The frontend's kind; presets choose their input layers by it.
    """

    length: int
    dim: int
    frontend: str


@dataclass(frozen=True)
class LogMelShape:
    """The filter bank that a family's paper reads.

    Attributes:
        bins: Mel bins.
        length: Rows.
        hop_ms: Milliseconds from one row to the next.
    """

    bins: int = 80
    length: int = 460
    hop_ms: int = 10


class ModelOutput(NamedTuple):
    """What a model returns.

    Attributes:
        logits: `(N, classes)`.
        importance: Per modality `(N, length)`, >= 0, 0 in padded rows; empty for families without one.
        parts: In training, logits `(N, classes)` of parts of the model that are to recognise emotion by themselves.
    """

    logits: Tensor
    importance: dict[str, Tensor]
    parts: dict[str, Tensor] = {}  # noqa: RUF012  (never changed)


class EmotionModel(nn.Module):
    """Base of all families.

    Attributes:
        family: Name in the registry.
        presets: Names that `preset` takes.
        modes: The modalities that the family takes together, the first being all that it can use.
        variants: Changes to the configuration that its paper compares, by name.
        log_mel: The filter bank of its paper, where no speech encoder takes its place.
        inputs: Length and width of each modality the model takes, in the order of the graph's inputs.
        importances: Modalities that `ModelOutput.importance` has.
    """

    family: str
    presets: ClassVar[tuple[str, ...]] = ("paper", "compact")
    modes: ClassVar[tuple[tuple[str, ...], ...]]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    log_mel: ClassVar[LogMelShape] = LogMelShape()
    inputs: Mapping[str, InputSpec]
    importances: tuple[str, ...]

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor]) -> ModelOutput:
        """Classify a batch.

        Args:
            inputs: For each modality `<name>` `(N, length, dim)` float32 and `<name>_length` `(N,)` int32.
        """

    def prepare(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Take from the training split what is measured, not learned; called once, before training.

        Args:
            batches: Inputs as `forward` takes them, not augmented.
        """

    def voice_skips(self) -> list[StatisticsSkip]:
        """Return the linear parts that read the statistics of the voice's rows, see `edgeser.training.linear`."""
        return []

    @classmethod
    @abstractmethod
    def preset(cls, name: str, inputs: Mapping[str, InputSpec], classes: int, **changes: Any) -> EmotionModel:
        """Build a preset for these inputs; `changes` replaces fields of its configuration."""

    @abstractmethod
    def configuration(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values; `restore` takes it back."""

    @classmethod
    @abstractmethod
    def restore(cls, configuration: Mapping[str, Any]) -> EmotionModel:
        """Build the model that a configuration describes, with fresh weights."""

    def parameter_count(self) -> int:
        """Return the number of trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
