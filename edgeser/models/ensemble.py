"""Several networks of one family that answer together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeser.models.base import EmotionModel, InputSpec, ModelOutput
from edgeser.nn.skip import StatisticsSkip
from edgeser.runtime.errors import InputError

MOST_MEMBERS = 16


class Ensemble(EmotionModel):
    """Networks of one configuration with weights of their own, trained side by side (a deep ensemble).

    On voices that no network met, networks that differ in nothing but their first weights disagree by more than most
    recipes do; their mean is better than each. Its logits are the mean of its members', which is the geometric mean of
    their probabilities, its importances the mean of theirs. In training every member also answers for itself.

    Made by `edgeser.models.build_model` and `restore_model`; `family` is that of the members.

    Args:
        members: Two or more, of one configuration.
    """

    def __init__(self, members: Sequence[EmotionModel]) -> None:
        super().__init__()
        first = members[0]
        self.family = first.family
        self.inputs = first.inputs
        self.importances = first.importances
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Mapping[str, Tensor]) -> ModelOutput:
        outputs: list[ModelOutput] = [member(inputs) for member in self.members]
        logits = torch.stack([output.logits for output in outputs])
        importance = {
            name: torch.stack([output.importance[name] for output in outputs]).mean(dim=0)
            for name in outputs[0].importance
        }
        parts = {}
        if self.training:
            for number, output in enumerate(outputs):
                parts[f"{number}"] = output.logits
                parts |= {f"{number}.{name}": part for name, part in output.parts.items()}
        return ModelOutput(logits.mean(dim=0), importance, parts)

    def prepare(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Have one member measure; it depends on the batches alone, so the others take it over."""
        first, *others = self.members
        cast(EmotionModel, first).prepare(batches)
        measured = dict(first.named_buffers())
        for member in others:
            for name, buffer in member.named_buffers():
                buffer.copy_(measured[name])

    def voice_skips(self) -> list[StatisticsSkip]:
        return [skip for member in self.members for skip in cast(EmotionModel, member).voice_skips()]

    @classmethod
    def preset(cls, name: str, inputs: Mapping[str, InputSpec], classes: int, **changes: Any) -> Ensemble:
        """Build `members` presets of the family `member`; the other `changes` are those of its configuration."""
        member, members = changes.pop("member"), changes.pop("members")
        return cls([member.preset(name, inputs, classes, **changes) for _ in range(members)])

    @classmethod
    def restore(cls, configuration: Mapping[str, Any]) -> Ensemble:
        """Build `members` models of the family `member` that the rest of the configuration describes."""
        own = dict(configuration)
        member, members = own.pop("member"), checked(own.pop("members"))
        return cls([member.restore(own) for _ in range(members)])

    def configuration(self) -> dict[str, Any]:
        return {**cast(EmotionModel, self.members[0]).configuration(), "members": len(self.members)}


def checked(members: Any) -> int:
    """Return how many members are asked for.

    Raises:
        InputError: It is no number of members.
    """
    if not isinstance(members, int) or isinstance(members, bool) or not 1 <= members <= MOST_MEMBERS:
        raise InputError(f"members: got {members!r}, expected a whole number from 1 to {MOST_MEMBERS}")
    return members
