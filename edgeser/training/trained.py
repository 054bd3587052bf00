"""A trained model as a folder: configuration, weights, frontends. No pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from edgeser.corpora import Utterance
from edgeser.corpora.splits import SESSIONS, make_folds
from edgeser.models import EmotionModel, restore_model
from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.files import read_json, write_together
from edgeser.runtime.frontends import Frontend, read_frontend, write_frontend

_DESCRIPTION = "model.json"
_WEIGHTS = "model.safetensors"
_TODO = "delete this folder, and the command that trained it does so again"
_SHOWN = 200  # characters of another library's error


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
        """Write the model into a folder; the description comes last, so a folder that has one is whole.

        Raises:
            EdgeSerError: It cannot be written, for want of room for example.
        """
        for name, frontend in self.frontends.items():
            write_frontend(folder / "frontends" / name, frontend)
        weights = save({k: v.contiguous() for k, v in self.model.state_dict().items()})
        description = {
            "family": self.model.family,
            "preset": self.preset,
            "config": self.model.configuration(),
            "labels": list(self.labels),
            "frontends": list(self.frontends),
            "sha256": {_WEIGHTS: hashlib.sha256(weights).hexdigest(), **_hashes(folder, self.frontends)},
            "training": dict(self.training),
        }
        text = json.dumps(description, indent=2) + "\n"
        write_together(folder, {_WEIGHTS: weights, _DESCRIPTION: text.encode()})

    def held_out(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """Return those of its corpus's utterances that the model was tested on; none where it was trained on all.

        Raises:
            InputError: This is another corpus: the model's protocol gives it no such fold.
        """
        name, protocol = self.training.get("held_out"), str(self.training.get("protocol", SESSIONS))
        if name is None or not self.training.get("hold_out", True):
            return []
        excluded = set(self.training.get("exclude", ()))
        usable = [u for u in utterances if u.emotion in self.labels and u.id not in excluded]
        (fold,) = make_folds(protocol, usable, [str(name)], int(self.training.get("split_seed", 1)))
        return list(fold.test)

    @classmethod
    def load(cls, folder: Path) -> TrainedModel:
        """Read what `save` wrote.

        Raises:
            InputError: The folder holds no trained model, or a damaged one.
        """
        if not (folder / _DESCRIPTION).is_file():
            raise InputError(f"{folder}: holds no trained model ({_DESCRIPTION} is missing): run `edgeser train` first")
        description = read_json(folder / _DESCRIPTION, _TODO)
        try:
            for name, expected in description.get("sha256", {}).items():
                if _sha256(folder / name) != expected:
                    raise InputError(
                        f"{folder / name}: is damaged, its SHA-256 is not the one in {_DESCRIPTION}: {_TODO}"
                    )
            model = restore_model(description["family"], description["config"])
            model.load_state_dict(load((folder / _WEIGHTS).read_bytes()))
            frontends = {name: read_frontend(folder / "frontends" / name) for name in description["frontends"]}
            labels, training = tuple(description["labels"]), description["training"]
            return cls(model.eval(), description["preset"], frontends, labels, training)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError, OSError) as error:
            if isinstance(error, EdgeSerError):
                raise
            what = " ".join(str(error).split())[:_SHOWN]
            raise InputError(
                f"{folder}: the trained model is damaged ({type(error).__name__}: {what}): {_TODO}"
            ) from error


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the hashes of the frontends' files, by their paths in the folder."""
    files = sorted(file for name in names for file in (folder / "frontends" / name).rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): _sha256(file) for file in files}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
