"""Batches of real utterances, augmented, in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from edgeser.corpora import Utterance
from edgeser.runtime.frontends import AudioFrontend, Features, Frontend, Rows, Statistics, fit_length
from edgeser.training.augment import keep_rows
from edgeser.training.domains import Shifts, shifted
from edgeser.training.features import LineFeatures, RecordingFeatures
from edgeser.training.lines import Lines
from edgeser.training.recipe import Recipe
from edgeser.training.sampler import Draw

Sample = dict[str, Tensor]
_WHOLE_LINE = "sentence"  # one row, which no single word can be left out of


def collate(samples: Sequence[Sample]) -> Sample:
    """Stack samples into a batch, copying only their valid rows: most of a batch of short clips is padding."""
    batch: Sample = {}
    for name, first in samples[0].items():
        if f"{name}_length" not in samples[0]:
            batch[name] = torch.stack([sample[name] for sample in samples])
            continue
        stacked = np.zeros((len(samples), *first.shape), np.float32)
        for place, sample in zip(stacked, samples, strict=True):
            valid = int(sample[f"{name}_length"])
            place[:valid] = sample[name][:valid].numpy()
        batch[name] = torch.from_numpy(stacked)
    return batch


class EmotionDataset(Dataset[Sample]):
    """Utterances as model inputs, by index, or by what a `RecordingSampler` drew.

    Args:
        utterances: Labelled utterances.
        frontends: By modality, with the statistics of the training split.
        features: Rows by modality; those with a row for each word have the same words in the same rows.
        labels: Emotions in the order of the classes.
        recipe: Augments with it; `None` for evaluation, which changes nothing.
        shifts: What is taken out of the standardised rows of audio; `None` for nothing.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        frontends: Mapping[str, Frontend],
        features: Mapping[str, RecordingFeatures | LineFeatures],
        labels: Sequence[str],
        recipe: Recipe | None = None,
        shifts: Shifts | None = None,
    ) -> None:
        self.utterances = utterances
        self.frontends = frontends
        self.recipe = recipe
        self.epoch = 0
        self._features = features
        self._shifts = shifts
        spoken = {name: features[name] for name in frontends}
        self._lines = {name: source for name, source in spoken.items() if isinstance(source, LineFeatures)}
        self._classes = [labels.index(u.emotion or "") for u in utterances]
        self._borrowed = Lines(utterances)

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def classes(self) -> list[int]:
        """The class of each utterance."""
        return self._classes

    def __getitem__(self, draw: int | Draw) -> Sample:
        index, before = (draw, 0) if isinstance(draw, int) else draw
        features = self._plain(index) if self.recipe is None else self._augmented(index, before, self.recipe)
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
                rows[name] = self._statistics(frontend, index).normalise(rows[name])
        return {name: fit_length(rows[name], self.frontends[name].length) for name in self.frontends}

    def _augmented(self, index: int, before: int, recipe: Recipe) -> dict[str, Features]:
        # Seeded by epoch and place, so that a resumed run draws what an uninterrupted one would have drawn.
        rng = np.random.default_rng((recipe.seed, self.epoch, index, *([before] if before else [])))
        dropped = self._dropped_modalities(recipe, rng)
        utterance = self._borrowed.lend(self.utterances[index], recipe.borrow, rng)
        if not utterance.transcript and dropped == ("audio",):
            dropped = ()  # or nothing would be left of it
        if "audio" not in dropped:
            utterance = self._borrowed.neutralize(utterance, recipe.neutral_lines, rng)
        rows: dict[str, Rows] = {}
        for name, frontend in self.frontends.items():
            source = self._features[name]
            if isinstance(source, RecordingFeatures):
                assert isinstance(frontend, AudioFrontend)
                augmentation = recipe.augmentation(frontend.kind)
                speed = float(rng.choice(augmentation.speeds))
                statistics = self._statistics(frontend, index, rng)
                rows[name] = augmentation.rows(source.rows(utterance, speed), statistics, rng)
            elif name not in rows:
                rows.update(self._augmented_line(utterance, recipe, rng))
        return {
            name: fit_length(rows[name][:0] if name in dropped else rows[name], frontend.length)
            for name, frontend in self.frontends.items()
        }

    def _statistics(self, frontend: AudioFrontend, index: int, rng: np.random.Generator | None = None) -> Statistics:
        """Return what standardises the rows and takes out of them what is drawn: without `rng`, always the same."""
        if self._shifts is None:
            return frontend.statistics
        rng = rng or np.random.default_rng(index)
        return shifted(frontend.statistics, self._shifts.draw(self.utterances[index], rng))

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
