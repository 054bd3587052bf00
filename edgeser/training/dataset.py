"""Batches of real utterances, augmented, in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from edgeser.corpora import Utterance
from edgeser.runtime.frontends import AudioFrontend, Features, Frontend, Rows, fit_length
from edgeser.training.augment import keep_rows
from edgeser.training.features import LineFeatures, RecordingFeatures, audio_key
from edgeser.training.recipe import Recipe

Sample = dict[str, Tensor]
_WHOLE_LINE = "sentence"  # one row, which no single word can be left out of


class EmotionDataset(Dataset[Sample]):
    """Utterances as model inputs.

    Args:
        utterances: Labelled utterances.
        frontends: By modality, with the statistics of the training split.
        features: Rows by modality; those with a row for each word have the same words in the same rows.
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
        spoken = {name: features[name] for name in frontends}
        self._lines = {name: source for name, source in spoken.items() if isinstance(source, LineFeatures)}
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
        dropped = self._dropped_modalities(recipe, rng)
        rows: dict[str, Rows] = {}
        for name, frontend in self.frontends.items():
            source = self._features[name]
            if isinstance(source, RecordingFeatures):
                assert isinstance(frontend, AudioFrontend)
                augmentation = recipe.augmentation(frontend.kind)
                speed = float(rng.choice(augmentation.speeds))
                rows[name] = augmentation.rows(source.rows(utterance, speed), frontend.statistics, rng)
            elif name not in rows:
                rows.update(self._augmented_line(utterance, recipe, rng))
        return {
            name: fit_length(rows[name][:0] if name in dropped else rows[name], frontend.length)
            for name, frontend in self.frontends.items()
        }

    def _augmented_line(self, utterance: Utterance, recipe: Recipe, rng: np.random.Generator) -> dict[str, Rows]:
        """Return the rows of all modalities of the transcript: the same marks and words are left out of each."""
        unmarked = bool(rng.random() < recipe.mark_drop)
        lines = {name: source.rows(utterance, unmarked) for name, source in self._lines.items()}
        kept: NDArray[np.intp] | None = None
        for name, rows in lines.items():
            if name != _WHOLE_LINE:
                kept = keep_rows(rows.shape[0], recipe.word_drop, rng) if kept is None else kept
                lines[name] = rows[kept]
        return lines

    def _dropped_modalities(self, recipe: Recipe, rng: np.random.Generator) -> tuple[str, ...]:
        draw = rng.random()
        if len(self._lines) in (0, len(self.frontends)) or draw >= recipe.text_drop + recipe.audio_drop:
            return ()
        return tuple(self._lines) if draw < recipe.text_drop else ("audio",)


class OnePerRecording(Sampler[int]):
    """Every recording once an epoch, in a new order, each with one of its utterances drawn.

    A corpus may pair one recording with several transcripts; going through all pairs would show each
    recording several times an epoch and overfit it.

    Args:
        utterances: All that train.
        seed: Of order and draws.
        rank: Which of several processes this is; each gets its share of one order.
        ranks: How many there are. All get equally many: where that does not come out, some recordings come twice.
    """

    def __init__(self, utterances: Sequence[Utterance], seed: int, rank: int = 0, ranks: int = 1) -> None:
        groups: dict[str, list[int]] = {}
        for index, utterance in enumerate(utterances):
            groups.setdefault(audio_key(utterance), []).append(index)
        self._groups = list(groups.values())
        self._seed = seed
        self._rank, self._ranks = rank, ranks
        self.epoch = 0

    def __len__(self) -> int:
        return (len(self._groups) + self._ranks - 1) // self._ranks

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self._seed, self.epoch))
        order = [int(rng.choice(self._groups[group])) for group in rng.permutation(len(self._groups))]
        for place in range(self._rank, len(self) * self._ranks, self._ranks):
            yield order[place % len(order)]
