"""Training: from a corpus to one trained model per fold, resumable at any time."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import lightning
import torch
from torch.utils.data import DataLoader

from edgeser.corpora import Fold, Utterance, read_corpus
from edgeser.corpora.splits import make_folds
from edgeser.models import EmotionModel, build_model
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import check_folder, check_room
from edgeser.runtime.frontends import AudioFrontend, Frontend
from edgeser.runtime.metrics import Metrics, measure
from edgeser.training.building import check_model, input_specs
from edgeser.training.copies import Copy
from edgeser.training.dataset import EmotionDataset, Sample
from edgeser.training.domains import DomainMeans, run_shifts, standardised_means
from edgeser.training.evaluation import PREDICTIONS, RUN_PREDICTIONS, read_predictions, write_predictions
from edgeser.training.features import LineFeatures, RecordingFeatures, audio_key
from edgeser.training.fitting import fit
from edgeser.training.frontends import compute_features, corpus_copies, open_features
from edgeser.training.linear import fit_linear
from edgeser.training.module import EmotionModule, balanced_weights
from edgeser.training.options import TrainOptions, usable
from edgeser.training.ranks import Group, check_environment, run_ranks
from edgeser.training.recipe import Recipe
from edgeser.training.run_folder import Run, claim_run, find_run
from edgeser.training.sampler import RecordingSampler
from edgeser.training.trained import TrainedModel

log = logging.getLogger(__name__)

_BYTES = 4  # of a float32
_COPIES = 8  # of the weights: they, Adam's two moments and the average, in a checkpoint and in the one it replaces

Sources = Mapping[str, RecordingFeatures | LineFeatures]


@dataclass(frozen=True)
class FoldResult:
    """One fold, trained.

    Attributes:
        name: The fold's, for example the session that was held out.
        folder: Where the trained model and its predictions lie.
        metrics: On the test split; `None` where there is none.
    """

    name: str
    folder: Path
    metrics: Metrics | None


def train(options: TrainOptions, strict: bool = False) -> list[FoldResult]:
    """Train every fold that is not there yet; resume the one that was interrupted.

    Everything is checked before anything is written: options, encoders, model, corpus, room on the disk. Utterances
    that cannot be used are listed and left out, see `edgeser.corpora.checking`; a run that goes on leaves out the same.

    Several processes may train different folds of one run at the same time: they need the same options but for
    `folds`. With several `devices` or `nodes` this starts the processes, waits for them, and only the first one writes;
    a run goes on with another number of them than it started with.

    Args:
        options: What to train.
        strict: Refuse a corpus with an utterance that cannot be used.

    Returns:
        The folds of `options.folds`, in that order; those trained earlier are read from the run's folder.

    Raises:
        InputError: The corpus or an option is not usable, or the folder holds a run with other options.
        EdgeSerError: One of several processes failed, or there is no room on the disk.
        KeyboardInterrupt: It was interrupted; the same call goes on from the last whole epoch.
    """
    check_environment(options.devices, options.nodes)
    check_folder(options.out, "keep the run in")
    corpus = read_corpus(options.corpus)
    run = find_run(options)
    folds = _folds(options, corpus, () if run is None else run.left_out)
    missing = _missing(options, folds)
    if missing:
        features = open_features(options)
        check_room(options.out, _size(options, features))
        left_out = _prepare(options, corpus, features, run, strict)
        folds = _folds(options, corpus, left_out)
        missing = _missing(options, folds)
        claim_run(options, left_out)
        options = dataclasses.replace(options, exclude=options.exclude | left_out)
        if options.devices * options.nodes == 1:
            _train_folds(options, missing, features)
        else:
            todo = dataclasses.replace(options, folds=tuple(fold.name for fold in missing))
            run_ranks(partial(_work, todo), options.devices, options.nodes)
    return [_result(fold, options) for fold in folds]


def _folds(options: TrainOptions, corpus: Sequence[Utterance], left_out: Collection[str]) -> list[Fold]:
    utterances = [u for u in usable(corpus, options) if u.id not in left_out]
    return make_folds(options.protocol, utterances, options.folds, options.split_seed)


def _missing(options: TrainOptions, folds: Sequence[Fold]) -> list[Fold]:
    return [fold for fold in folds if not (fold_folder(options.out, fold.name) / "model.json").is_file()]


def _size(options: TrainOptions, features: Sources) -> int:
    """Return the bytes that a fold takes at least; the model is found wrong here, if it is."""
    frontends = {name: source.frontend for name, source in features.items()}
    model = check_model(options, input_specs(frontends))
    files = sum(len(content) for frontend in frontends.values() for content in frontend.files().values())
    return _COPIES * _BYTES * model.parameter_count() + files


def _prepare(
    options: TrainOptions, corpus: Sequence[Utterance], features: Sources, run: Run | None, strict: bool
) -> frozenset[str]:
    """Compute the features that are kept on disk, and return the ids of the utterances that are left out."""
    utterances = usable(corpus, options)
    if run is None:
        return frozenset(compute_features(options, utterances, features, strict))
    kept = [u for u in utterances if u.id not in run.left_out]
    unusable = compute_features(options, kept, features, strict=None)
    if unusable:
        name, why = next(iter(unusable.items()))
        raise InputError(
            f"{options.out}: the run began with {len(unusable)} utterances that cannot be used any more "
            f"({name}: {why}): bring them back, or choose another --out"
        )
    return run.left_out


def _work(options: TrainOptions) -> None:
    """Train all of the named folds as one of several processes; what they share is on disk by now."""
    utterances = usable(read_corpus(options.corpus), options)
    folds = make_folds(options.protocol, utterances, options.folds, options.split_seed)
    _train_folds(options, folds, open_features(options))


def _train_folds(options: TrainOptions, folds: Sequence[Fold], features: Sources) -> None:
    for source in features.values():
        if not isinstance(source, RecordingFeatures):
            source.prepare([u for fold in folds for u in (*fold.train, *fold.validation, *fold.test)])
    for fold in folds:
        _train_fold(fold, options, features)


def fold_folder(out: Path, name: str) -> Path:
    """Return where a run keeps the fold of a name."""
    return out / f"fold-{name}"


def _train_fold(fold: Fold, options: TrainOptions, features: Sources) -> None:
    """Train one fold; of several processes the first one writes, the others wait for it."""
    group = Group.here(options.devices, options.nodes)
    folder = fold_folder(options.out, fold.name)
    frontends = _fit_frontends(fold, features)
    recipe, labels = options.recipe, options.labels
    heard = [*fold.train, *_copies(fold, options)]
    shifts = _domain_means(heard, frontends, features, recipe)
    training_set = EmotionDataset(heard, frontends, features, labels, recipe, shifts)
    validation_set = EmotionDataset(fold.validation, frontends, features, labels) if fold.validation else None
    lightning.seed_everything(recipe.seed, verbose=False)
    model = build_model(options.family, options.preset, input_specs(frontends), len(labels), **options.changes)
    once = list({audio_key(u): u for u in fold.train}.values())
    unaugmented = EmotionDataset(once, frontends, features, labels, shifts=shifts)
    model.prepare(DataLoader(unaugmented, recipe.batch_size))
    _fit_linear(model, fold, frontends, features, options)
    log.info("fold %s: %d parameters, %d utterances", fold.name, model.parameter_count(), len(heard))
    drawn = training_set.classes
    if recipe.balance:
        drawn = [drawn[index] for index, _ in RecordingSampler(heard, recipe.sampling).draws()]
    weights = balanced_weights(drawn, len(labels)) if recipe.class_weights else torch.ones(len(labels))
    selected = fit(EmotionModule(model, recipe, weights), training_set, validation_set, folder, group)
    if group.rank == 0:
        training = {**options.as_dict(), "held_out": fold.name, **({"selected": selected} if selected else {})}
        trained = TrainedModel(model.eval(), options.preset, frontends, labels, training)
        if fold.test:
            _predict_test(fold, trained, features, folder)
        trained.save(folder)
    if group.size > 1:
        torch.distributed.barrier()


def _copies(fold: Fold, options: TrainOptions) -> list[Copy]:
    """Return the copies of a fold's training split; they are drawn from all, so that every fold has the same."""
    kept = {utterance.id for utterance in fold.train}
    everyone = (*fold.train, *fold.validation, *fold.test)
    return [copy for copy in corpus_copies(options, everyone) if copy.original in kept]


def _domain_means(
    utterances: Sequence[Utterance], frontends: Mapping[str, Frontend], features: Sources, recipe: Recipe
) -> DomainMeans | None:
    """Return what training draws the mean of a sample's domain from; `None` where none is taken out."""
    source, audio = features.get("audio"), frontends.get("audio")
    if not recipe.mean_prior or not isinstance(source, RecordingFeatures) or not isinstance(audio, AudioFrontend):
        return None
    return DomainMeans(utterances, standardised_means(utterances, source, audio), recipe.mean_shift)


def _fit_linear(
    model: EmotionModel, fold: Fold, frontends: Mapping[str, Frontend], features: Sources, options: TrainOptions
) -> None:
    """Fit what of a model is linear in the voice's mean row, where the recipe asks for it."""
    recipe, source, audio = options.recipe, features.get("audio"), frontends.get("audio")
    if not recipe.linear_c:
        return
    means = {}
    if isinstance(source, RecordingFeatures) and isinstance(audio, AudioFrontend):
        means = standardised_means(fold.train, source, audio)
    fit_linear(model.voice_skips(), fold.train, means, options.labels, recipe.linear_c, recipe.mean_prior)


def _predict_test(fold: Fold, trained: TrainedModel, features: Sources, folder: Path) -> None:
    """Write what a model makes of its test split: of each utterance alone, and having heard its corpus."""
    frontends, labels = trained.frontends, trained.labels
    test_set = EmotionDataset(fold.test, frontends, features, labels)
    write_predictions(folder / PREDICTIONS, fold.test, predict(trained, test_set).numpy(), labels)
    source, audio = features.get("audio"), frontends.get("audio")
    prior = float(trained.training["recipe"]["mean_prior"])
    if prior and isinstance(source, RecordingFeatures) and isinstance(audio, AudioFrontend):
        shifts = run_shifts(fold.test, source, audio, prior)
        heard = EmotionDataset(fold.test, frontends, features, labels, shifts=shifts)
        write_predictions(folder / RUN_PREDICTIONS, fold.test, predict(trained, heard).numpy(), labels)


def _result(fold: Fold, options: TrainOptions) -> FoldResult:
    folder = fold_folder(options.out, fold.name)
    if not fold.test:
        return FoldResult(fold.name, folder, None)
    rows = read_predictions(folder / PREDICTIONS)
    metrics = measure([r["label"] for r in rows], [r["emotion"] for r in rows], options.labels)
    return FoldResult(fold.name, folder, metrics)


def _fit_frontends(fold: Fold, features: Sources) -> dict[str, Frontend]:
    """Statistics come from the training split alone."""
    frontends: dict[str, Frontend] = {}
    for name, source in features.items():
        if isinstance(source, RecordingFeatures):
            frontends[name] = source.frontend.with_statistics(source.statistics(fold.train))
        else:
            frontends[name] = source.frontend
    return frontends


def predict(trained: TrainedModel, data: EmotionDataset, batch_size: int = 32) -> torch.Tensor:
    """Return probabilities `(len(data), classes)`."""
    batches: Iterator[Sample] = iter(DataLoader(data, batch_size))
    with torch.inference_mode():
        return torch.cat([trained.model(batch).logits.softmax(dim=-1) for batch in batches])
