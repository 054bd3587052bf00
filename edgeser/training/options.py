"""What to train, on what, how."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeser.models import family
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.training.recipe import Recipe


@dataclass(frozen=True)
class TrainOptions:
    """What to train, on what, how.

    Attributes:
        corpus: For example `manifest:corpus.csv`.
        out: Folder of the run; a run that is there already is resumed.
        family: Model family.
        preset: The family's preset.
        changes: Fields of the model's configuration that differ from the preset.
        modalities: What the model gets, one of the family's modes; empty for its first, which is all of them.
        sessions: Sessions to hold out, one fold each; empty for every one.
        hold_out: `False` trains one model on all sessions.
        exclude: Ids of utterances that are left out altogether.
        labels: Emotions to tell apart; utterances with others are left out.
        audio_encoder: Folder of a speech encoder (`edgeser export-encoder`); `None` for log-mel energies.
        text_encoder: Folder of a text encoder; `None` for word vectors.
        sentence_encoder: Folder of a text encoder with one row for the whole line, for families that take one.
        bins: Mel bins, where there is no speech encoder; `None` for the family's own.
        word_vectors: GloVe text file, where there is no text encoder; `None` for GloVe 6B 50d.
        recipe: Numbers to train by.
    """

    corpus: str
    out: Path
    family: str = "ks-transformer"
    preset: str = "compact"
    changes: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    hold_out: bool = True
    exclude: frozenset[str] = frozenset()
    labels: tuple[str, ...] = FOUR_EMOTIONS
    audio_encoder: Path | None = None
    text_encoder: Path | None = None
    sentence_encoder: Path | None = None
    bins: int | None = None
    word_vectors: Path | None = None
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        modes = family(self.family).modes
        mode = next((m for m in modes if set(m) == set(self.modalities)), None) if self.modalities else modes[0]
        if mode is None:
            known = " or ".join(",".join(one) for one in modes)
            raise InputError(f"modalities: got {','.join(self.modalities)}, {self.family} takes {known}")
        object.__setattr__(self, "modalities", mode)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without what may change between a run and its resumption."""
        values = dataclasses.asdict(self)
        for name in ("out", "sessions"):
            del values[name]
        values["exclude"] = sorted(self.exclude)
        for name in ("word_vectors", "audio_encoder", "text_encoder", "sentence_encoder"):
            values[name] = None if values[name] is None else str(values[name])
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain
