"""Logistic regression on the rows that an experiment's models get: rows of its table that belong to no family."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeser.experiments.results import RowResult
from edgeser.experiments.spec import Row
from edgeser.training.baseline import has_mean
from edgeser.training.baseline_run import is_fitted
from edgeser.training.evaluation import PREDICTIONS, RUN_PREDICTIONS, measure_parts, read_predictions
from edgeser.training.frontends import log_mel
from edgeser.training.options import TrainOptions
from edgeser.training.recipe import Recipe

NAME = "logistic regression"
WARM = ", mean taken out"
"""Behind the name of a row whose test rows had the mean of their corpus taken out."""
_FOLDER = "baselines"


@dataclass(frozen=True)
class Baseline:
    """The baseline of all rows that get the same of the same utterances.

    Attributes:
        name: As the table shows it.
        options: What it is fitted on; `out` is its folder.
    """

    name: str
    options: TrainOptions

    def results(self) -> Iterator[RowResult]:
        """Yield what it has reached: of each utterance alone, and with the means taken out where it hears."""
        kinds = {self.name: PREDICTIONS}
        if "audio" in self.options.modalities:
            kinds[f"{self.name}{WARM}"] = RUN_PREDICTIONS
        for name, predictions in kinds.items():
            files = {fold: self.options.out / f"fold-{fold}" / predictions for fold in self.options.folds}
            is_there = is_fitted(self.options, self.options.out)
            found = {fold: read_predictions(file) for fold, file in files.items() if is_there and file.is_file()}
            row = Row(name, is_trained=False)
            yield RowResult(row, {Recipe.seed: measure_parts(found)}, len(self.options.folds))


def make_baselines(jobs: Sequence[TrainOptions], out: Path) -> list[Baseline]:
    """Return the baselines of an experiment's jobs, one for each kind of rows that their models get.

    Args:
        jobs: What trains each fold of each row.
        out: The experiment's folder.
    """
    groups: dict[tuple[object, ...], list[TrainOptions]] = {}
    for options in jobs:
        if any(map(has_mean, options.modalities)):
            groups.setdefault(_key(options), []).append(options)
    names = {key: _name(some[0]) if len(groups) > 1 else NAME for key, some in groups.items()}
    baselines = []
    for place, (key, some) in enumerate(groups.items(), 1):
        name = names[key] if list(names.values()).count(names[key]) == 1 else f"{names[key]} ({place})"
        prior = next((options.recipe.mean_prior for options in some if options.recipe.mean_prior), 0.0)
        folds = tuple(dict.fromkeys(options.folds[0] for options in some))
        options = dataclasses.replace(
            some[0], out=out / _FOLDER / Row(name).slug, folds=folds, recipe=Recipe(mean_prior=prior)
        )
        baselines.append(Baseline(name, options))
    return baselines


def _key(options: TrainOptions) -> tuple[object, ...]:
    """Return what two rows have to share to get the same of the same utterances."""
    hears_energies = "audio" in options.modalities and options.audio_encoder is None
    return (
        tuple(filter(has_mean, options.modalities)),
        (options.audio_encoder, options.text_encoder, options.sentence_encoder, options.word_vectors),
        repr((log_mel(options).options(), log_mel(options).length)) if hears_energies else "",
        (options.labels, options.exclude, options.split_seed),
    )


def _name(options: TrainOptions) -> str:
    """Name the rows that a baseline gets by where they come from."""
    encoders = {"audio": options.audio_encoder, "text": options.text_encoder, "sentence": options.sentence_encoder}
    others = {"audio": "log-mel", "text": "word vectors"}
    known = [(encoders[name], others.get(name, name)) for name in options.modalities if has_mean(name)]
    return f"{NAME} on {' + '.join(folder.name if folder else other for folder, other in known)}"
