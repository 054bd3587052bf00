"""What to train, on what, how."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeser.corpora import Spec, Utterance, as_spec, corpus_text
from edgeser.corpora.splits import ALL, SESSIONS, check_protocol
from edgeser.models import family
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.training.recipe import Recipe


@dataclass(frozen=True)
class TrainOptions:
    """What to train, on what, how.

    Attributes:
        corpus: For example `manifest:corpus.csv`, or several, which are read as one.
        out: Folder of the run; a run that is there already is resumed.
        family: Model family.
        preset: The family's preset.
        changes: Fields of the model's configuration that differ from the preset.
        modalities: What the model gets, one of the family's modes; empty for its first, which is all of them.
        protocol: Which utterances train and which test, one of `edgeser.corpora.PROTOCOLS`.
        folds: Folds of the protocol to train; empty for every one.
        split_seed: Of protocols that draw; another one than the recipe's, so that repeated runs have the same splits.
        exclude: Ids of utterances that are left out altogether.
        labels: Emotions to tell apart; utterances with others are left out.
        audio_encoder: Folder of a speech encoder (`edgeser export-encoder`); `None` for log-mel energies.
        text_encoder: Folder of a text encoder; `None` for word vectors.
        sentence_encoder: Folder of a text encoder with one row for the whole line, for families that take one.
        bins: Mel bins, where there is no speech encoder; `None` for the family's own.
        word_vectors: GloVe text file, where there is no text encoder; `None` for GloVe 6B 50d.
        pronunciations: Pronouncing dictionary in CMUdict's form, for phonemes; `None` for CMUdict.
        noise: Manifest of noises and rooms for the recipe's `copies`, see `edgeser.training.noises`; `None` for none.
        recipe: Numbers to train by.
        devices: Processes on this machine, each with a GPU or a share of the cores.
        nodes: Machines; see `edgeser.training.ranks`.
    """

    corpus: Spec
    out: Path
    family: str = "ks-transformer"
    preset: str = "compact"
    changes: Mapping[str, Any] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    protocol: str = SESSIONS
    folds: tuple[str, ...] = ()
    split_seed: int = 1
    exclude: frozenset[str] = frozenset()
    labels: tuple[str, ...] = FOUR_EMOTIONS
    audio_encoder: Path | None = None
    text_encoder: Path | None = None
    sentence_encoder: Path | None = None
    bins: int | None = None
    word_vectors: Path | None = None
    pronunciations: Path | None = None
    noise: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    devices: int = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        check_protocol(self.protocol)
        object.__setattr__(self, "corpus", as_spec(self.corpus))
        if self.devices < 1 or self.nodes < 1:
            raise InputError(f"got {self.devices} devices and {self.nodes} nodes, expected at least 1 of each")
        if self.noise is not None and not self.recipe.copies:
            raise InputError(f"noise: got {self.noise} without copies that it could be in: give --copies N")
        modes = family(self.family).modes
        mode = next((m for m in modes if set(m) == set(self.modalities)), None) if self.modalities else modes[0]
        if mode is None:
            known = " or ".join(",".join(one) for one in modes)
            raise InputError(f"modalities: got {','.join(self.modalities)}, {self.family} takes {known}")
        object.__setattr__(self, "modalities", mode)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without what may change between a run and its resumption."""
        values = dataclasses.asdict(self)
        for name in ("out", "folds", "devices", "nodes"):
            del values[name]
        values["exclude"] = sorted(self.exclude)
        for name in ("word_vectors", "pronunciations", "audio_encoder", "text_encoder", "sentence_encoder"):
            values[name] = None if values[name] is None else str(values[name])
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


def usable(utterances: Sequence[Utterance], options: TrainOptions) -> list[Utterance]:
    """Leave out excluded utterances and those with other labels; every label must remain."""
    chosen = [u for u in utterances if u.emotion in options.labels and u.id not in options.exclude]
    missing = [label for label in options.labels if not any(u.emotion == label for u in chosen)]
    if missing:
        raise InputError(f"corpus: {corpus_text(options.corpus)} has no utterances for {', '.join(missing)}")
    return chosen


def differing(run: Mapping[str, Any], options: TrainOptions) -> list[str]:
    """Return the names of the options that a run has otherwise, `recipe.epochs` for example.

    Args:
        run: What `as_dict` gave when the run began; what an earlier version did not know is as it was then.
        options: What is asked for now.
    """
    then = TrainOptions("", Path()).as_dict()
    protocol = {} if run.get("hold_out", True) else {"protocol": ALL}
    theirs = _flat({**then, **protocol, **run, "recipe": {**then["recipe"], **run.get("recipe", {})}})
    return [name for name, value in _flat(options.as_dict()).items() if theirs.get(name) != value]


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    recipe = {f"recipe.{name}": value for name, value in options["recipe"].items()}
    return {**{name: value for name, value in options.items() if name != "recipe"}, **recipe}
