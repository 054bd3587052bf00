"""A trained model as a folder: configuration, weights, frontends. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from edgeser.corpora import Utterance
from edgeser.corpora.splits import ALL, SESSIONS, make_folds
from edgeser.models import EmotionModel, restore_model
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import replacing, write_text
from edgeser.runtime.frontends import Frontend, read_frontend, write_frontend

_DESCRIPTION = "model.json"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class TrainedModel:
    """What training gives and exporting takes.

    Attributes:
        model: With its trained weights, in evaluation mode.
        preset: The preset it started from.
        frontends: By modality, with the statistics of the training split.
        labels: Emotions in the order of the classes.
        training: How it was trained: corpus, protocol, the fold that was held out, recipe. Plain JSON values.
    """

    model: EmotionModel
    preset: str
    frontends: Mapping[str, Frontend]
    labels: tuple[str, ...]
    training: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Write the model into a folder; the description comes last, so a folder that has one is whole."""
        for name, frontend in self.frontends.items():
            write_frontend(folder / "frontends" / name, frontend)
        with replacing(folder / _WEIGHTS) as part:
            save_file({k: v.contiguous() for k, v in self.model.state_dict().items()}, part)
        description = {
            "family": self.model.family,
            "preset": self.preset,
            "config": self.model.configuration(),
            "labels": list(self.labels),
            "frontends": list(self.frontends),
            "training": dict(self.training),
        }
        write_text(folder / _DESCRIPTION, json.dumps(description, indent=2) + "\n")

    def held_out(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """Return those of its corpus's utterances that the model was tested on; none where it was trained on all.

        Raises:
            InputError: This is another corpus: the model's protocol gives it no such fold.
        """
        name, protocol = self.training.get("held_out"), str(self.training.get("protocol", SESSIONS))
        if name is None or name == protocol == ALL or not self.training.get("hold_out", True):
            return []
        excluded = set(self.training.get("exclude", ()))
        usable = [u for u in utterances if u.emotion in self.labels and u.id not in excluded]
        (fold,) = make_folds(protocol, usable, [str(name)], int(self.training.get("split_seed", 1)))
        return list(fold.test)

    @classmethod
    def load(cls, folder: Path) -> TrainedModel:
        """Read what `save` wrote.

        Raises:
            InputError: The folder holds no trained model.
        """
        if not (folder / _DESCRIPTION).is_file():
            raise InputError(f"{folder}: holds no trained model ({_DESCRIPTION} is missing): run `edgeser train` first")
        description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        model = restore_model(description["family"], description["config"])
        model.load_state_dict(load_file(folder / _WEIGHTS))
        frontends = {name: read_frontend(folder / "frontends" / name) for name in description["frontends"]}
        return cls(
            model.eval(), description["preset"], frontends, tuple(description["labels"]), description["training"]
        )
