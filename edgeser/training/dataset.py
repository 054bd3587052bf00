"""Batches of real utterances, augmented, in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from edgeser.corpora import Utterance
from edgeser.runtime.frontends import AudioFrontend, Features, Frontend, fit_length
from edgeser.training.augment import drop_rows
from edgeser.training.features import LineFeatures, RecordingFeatures, audio_key
from edgeser.training.recipe import Recipe

Sample = dict[str, Tensor]


class EmotionDataset(Dataset[Sample]):
    """Utterances as model inputs.

    Args:
        utterances: Labelled utterances.
        frontends: By modality, with the statistics of the training split.
        features: Rows by modality.
        labels: Emotions in the order of the classes.
        recipe: Augments with it; `None` for evaluation, which changes nothing.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        frontends: Mapping[str, Frontend],
        features: Mapping[str, RecordingFeatures | LineFeatures],
        labels: Sequence[str],
        recipe: Recipe | None = None,
    ) -> None:
        self.utterances = utterances
        self.frontends = frontends
        self.recipe = recipe
        self.epoch = 0
        self._features = features
        self._classes = [labels.index(u.emotion or "") for u in utterances]

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

    def _plain(self, index: int) -> dict[str, Features]:
        rows = {}
        for name, source in self._features.items():
            rows[name] = source.rows(self.utterances[index])
            frontend = self.frontends[name]
            if isinstance(frontend, AudioFrontend):
                rows[name] = frontend.statistics.normalise(rows[name])
        return {name: fit_length(rows[name], self.frontends[name].length) for name in self.frontends}

    def _augmented(self, index: int, recipe: Recipe) -> dict[str, Features]:
        # Seeded by epoch and place, so that a resumed run draws what an uninterrupted one would have drawn.
        rng = np.random.default_rng((recipe.seed, self.epoch, index))
        utterance = self.utterances[index]
        dropped = self._dropped_modality(recipe, rng)
        features = {}
        for name, frontend in self.frontends.items():
            source = self._features[name]
            if isinstance(source, RecordingFeatures):
                assert isinstance(frontend, AudioFrontend)
                augmentation = recipe.augmentation(frontend.kind)
                speed = float(rng.choice(augmentation.speeds))
                rows = augmentation.rows(source.rows(utterance, speed), frontend.statistics, rng)
            else:
                rows = source.rows(utterance, unmarked=rng.random() < recipe.mark_drop)
                rows = drop_rows(rows, recipe.word_drop, rng)
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
