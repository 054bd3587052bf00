"""Model families, by name; a new family registers here and everything else follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeser.models.base import EmotionModel, InputSpec, LogMelShape, ModelOutput
from edgeser.models.cat import CAT
from edgeser.models.dropformer import DropFormer
from edgeser.models.ensemble import Ensemble, checked
from edgeser.models.ilt import ILT
from edgeser.models.ks_transformer import KSTransformer
from edgeser.models.multigranularity import Multigranularity
from edgeser.models.multilevel import Multilevel
from edgeser.runtime.errors import InputError

FAMILIES: Mapping[str, type[EmotionModel]] = {
    model.family: model for model in (KSTransformer, DropFormer, CAT, ILT, Multilevel, Multigranularity)
}

__all__ = [
    "FAMILIES",
    "EmotionModel",
    "Ensemble",
    "InputSpec",
    "LogMelShape",
    "ModelOutput",
    "build_model",
    "family",
    "restore_model",
]


def family(name: str) -> type[EmotionModel]:
    """Return a family's class by its name."""
    if name not in FAMILIES:
        raise InputError(f"family: got {name!r}, expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def build_model(
    family_name: str, preset: str, inputs: Mapping[str, InputSpec], classes: int, members: int = 1, **changes: Any
) -> EmotionModel:
    """Build a family's preset with fresh weights; `changes` replaces fields of its configuration.

    With `members`, as many such networks answer together, see `Ensemble`.

    Raises:
        InputError: A field is unknown or does not fit.
    """
    chosen = family(family_name)
    try:
        if checked(members) > 1:
            return Ensemble.preset(preset, inputs, classes, member=chosen, members=members, **changes)
        return chosen.preset(preset, inputs, classes, **changes)
    except TypeError as error:
        raise InputError(f"{family_name}: unknown option among {sorted(changes)}: {error}") from error


def restore_model(family_name: str, configuration: Mapping[str, Any]) -> EmotionModel:
    """Build the model that `EmotionModel.configuration` described, with fresh weights."""
    chosen = family(family_name)
    if "members" in configuration:
        return Ensemble.restore({**configuration, "member": chosen})
    return chosen.restore(configuration)
