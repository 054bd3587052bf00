"""Batches of real utterances, augmented, in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from edgeser.corpora import Utterance
from edgeser.runtime.frontends import Features, LogMel, Token, WordVectors, fit_length
from edgeser.runtime.frontends.base import Rows
from edgeser.runtime.frontends.word_vectors import MARKS
from edgeser.training.augment import drop_words
from edgeser.training.features import audio_key
from edgeser.training.recipe import Recipe

Sample = dict[str, Tensor]


class EmotionDataset(Dataset[Sample]):
    """Utterances as model inputs.

    Args:
        utterances: Labelled utterances.
        frontends: By modality, with the statistics of the training split.
        energies: Audio features by `(audio key, speed)`; see `FeatureCache.corpus`.
        labels: Emotions in the order of the classes.
        recipe: Augments with it; `None` for evaluation, which changes nothing.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        frontends: Mapping[str, LogMel | WordVectors],
        energies: Mapping[tuple[str, float], Rows],
        labels: Sequence[str],
        recipe: Recipe | None = None,
    ) -> None:
        self.utterances = utterances
        self.frontends = frontends
        self.recipe = recipe
        self.epoch = 0
        self._energies = energies
        self._classes = [labels.index(u.emotion or "") for u in utterances]
        self._tokens = [self._cut(u) for u in utterances]

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def classes(self) -> list[int]:
        """The class of each utterance."""
        return self._classes

    def __getitem__(self, index: int) -> Sample:
        features = self._plain(index) if self.recipe is None else self._augmented(index, self.recipe)
        sample = {"label": torch.tensor(self._classes[index])}
        for name, one in features.items():
            sample[name] = torch.from_numpy(one.values)
            sample[f"{name}_length"] = torch.tensor(one.valid, dtype=torch.int32)
        return sample

    def _cut(self, utterance: Utterance) -> list[Token]:
        frontend = self.frontends.get("text")
        return frontend.tokens(utterance.transcript or "") if isinstance(frontend, WordVectors) else []

    def _plain(self, index: int) -> dict[str, Features]:
        features = {}
        for name, frontend in self.frontends.items():
            if isinstance(frontend, LogMel):
                rows = frontend.normalise(self._energies[audio_key(self.utterances[index]), 1.0])
            else:
                rows = frontend.rows(self._tokens[index])
            features[name] = fit_length(rows, frontend.length)
        return features

    def _augmented(self, index: int, recipe: Recipe) -> dict[str, Features]:
        # Seeded by epoch and place, so that a resumed run draws what an uninterrupted one would have drawn.
        rng = np.random.default_rng((recipe.seed, self.epoch, index))
        dropped = self._dropped_modality(recipe, rng)
        features = {}
        for name, frontend in self.frontends.items():
            if isinstance(frontend, LogMel):
                speed = float(rng.choice(recipe.augmentation.speeds))
                energies = self._energies[audio_key(self.utterances[index]), speed]
                rows = frontend.normalise(recipe.augmentation.energies(energies, rng))
                rows = recipe.augmentation.mask(rows, rng)
            else:
                tokens = self._tokens[index]
                if rng.random() < recipe.mark_drop:
                    tokens = [token for token in tokens if token.text not in MARKS]
                rows = drop_words(frontend.rows(tokens), recipe.word_drop, rng)
            features[name] = fit_length(rows[:0] if name == dropped else rows, frontend.length)
        return features

    def _dropped_modality(self, recipe: Recipe, rng: np.random.Generator) -> str | None:
        draw = rng.random()
        if len(self.frontends) < 2 or draw >= recipe.text_drop + recipe.audio_drop:
            return None
        return "text" if draw < recipe.text_drop else "audio"


class OnePerRecording(Sampler[int]):
    """Every recording once an epoch, in a new order, each with one of its utterances drawn.

    A corpus may pair one recording with several transcripts; going through all pairs would show each
    recording several times an epoch and overfit it.
    """

    def __init__(self, utterances: Sequence[Utterance], seed: int) -> None:
        groups: dict[str, list[int]] = {}
        for index, utterance in enumerate(utterances):
            groups.setdefault(audio_key(utterance), []).append(index)
        self._groups = list(groups.values())
        self._seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self._seed, self.epoch))
        for group in rng.permutation(len(self._groups)):
            yield int(rng.choice(self._groups[group]))
