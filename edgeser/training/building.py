"""A run's model before it is trained: what it gets, and whether its options fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgeser.models import EmotionModel, InputSpec, build_model
from edgeser.runtime.frontends import Frontend
from edgeser.training.options import TrainOptions


def input_specs(frontends: Mapping[str, Frontend]) -> dict[str, InputSpec]:
    """Return what frontends give, by modality."""
    return {name: InputSpec(f.length, f.dim, f.kind) for name, f in frontends.items()}


def check_model(options: TrainOptions, inputs: Mapping[str, InputSpec]) -> EmotionModel:
    """Build a model without its weights.

    Raises:
        InputError: An option of its configuration is unknown, or does not go with the inputs.
    """
    with torch.device("meta"):
        return build_model(options.family, options.preset, inputs, len(options.labels), **options.changes)
