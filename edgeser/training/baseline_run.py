"""The baseline of a run or of an experiment's rows: fitted once on the same folds, kept as predictions like theirs."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from edgeser.corpora import read_corpus
from edgeser.corpora.splits import make_folds
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import making, write_text
from edgeser.training.baseline import BaselineOptions, has_mean, predict_baseline
from edgeser.training.evaluation import PREDICTIONS, RUN_PREDICTIONS, write_predictions
from edgeser.training.features import LineFeatures, RecordingFeatures
from edgeser.training.frontends import compute_features, open_features
from edgeser.training.options import TrainOptions, usable
from edgeser.training.recipe import Recipe
from edgeser.training.run_folder import read_run

BASELINE = "baseline"
"""The folder of a run that keeps its baseline."""
MEAN_PRIOR = 5.0
"""Utterances that the training mean counts for where a recipe names no `mean_prior` of its own."""
_WHAT = "baseline.json"
_OPTIONS = (
    *("corpus", "modalities", "protocol", "split_seed", "exclude", "labels", "bins", "family"),
    *("audio_encoder", "text_encoder", "sentence_encoder", "word_vectors"),
)


def fit_baseline(options: TrainOptions, out: Path, left_out: Collection[str] | None = None) -> None:
    """Fit the baseline on every fold of a run's protocol, unless it lies there already.

    `out/fold-<name>/` gets `PREDICTIONS` and, where the run hears, `RUN_PREDICTIONS`, with the means taken out.

    Args:
        options: What the run trains on; its recipe's `mean_prior` is the baseline's.
        out: Folder of the baseline.
        left_out: Ids that the run could not use; `None` finds them out.

    Raises:
        InputError: The corpus or an encoder is not usable.
        EdgeSerError: It cannot be written, or scikit-learn is missing.
    """
    if is_fitted(options, out, left_out):
        return
    features = {name: source for name, source in open_features(options).items() if has_mean(name)}
    if not features:
        raise InputError(f"baseline: got {', '.join(options.modalities)}, expected audio or text: rows with a mean")
    utterances = usable(read_corpus(options.corpus), options)
    unusable = compute_features(options, utterances, features) if left_out is None else left_out
    utterances = [u for u in utterances if u.id not in unusable]
    folds = make_folds(options.protocol, utterances, options.folds, options.split_seed)
    for source in features.values():
        if isinstance(source, LineFeatures):
            source.prepare(utterances)
    hears = any(isinstance(source, RecordingFeatures) for source in features.values())
    kinds = {PREDICTIONS: None, **({RUN_PREDICTIONS: prior_of(options)} if hears else {})}
    for fold in folds:
        for name, prior in kinds.items():
            if fold.test:
                found = predict_baseline(fold, features, options.labels, BaselineOptions(mean_prior=prior))
                with making(out / f"fold-{fold.name}"):
                    write_predictions(out / f"fold-{fold.name}" / name, fold.test, found, options.labels)
    write_text(out / _WHAT, json.dumps(_identity(options, left_out), indent=2) + "\n")


def is_fitted(options: TrainOptions, out: Path, left_out: Collection[str] | None = None) -> bool:
    """Whether the baseline of these options lies in a folder, whole; see `fit_baseline`."""
    try:
        found = json.loads((out / _WHAT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == _identity(options, left_out))


def baseline_of_run(run: Path, folds: Collection[str]) -> Path:
    """Return the folder of a trained run's baseline; it is fitted where it is not there.

    Raises:
        EdgeSerError: It cannot be: its corpus or encoders are not there any more, for example.
    """
    found = read_run(run)
    if found is None:
        raise InputError(f"{run}: is no run: it has no run.json")
    options = dataclasses.replace(_restored(found.options, run), folds=tuple(folds))
    fit_baseline(options, run / BASELINE, found.left_out)
    return run / BASELINE


def prior_of(options: TrainOptions) -> float:
    """Return how many utterances the training mean counts for: the recipe's, where it names it."""
    return options.recipe.mean_prior or MEAN_PRIOR


def _identity(options: TrainOptions, left_out: Collection[str] | None) -> dict[str, Any]:
    """Return what a baseline depends on, as plain JSON values."""
    values = options.as_dict()
    kept = {name: values.get(name) for name in _OPTIONS}
    if options.audio_encoder is not None or "audio" not in options.modalities:
        del kept["family"], kept["bins"]  # they say which log-mel energies there are
    kept["modalities"] = [name for name in options.modalities if has_mean(name)]
    baseline = dataclasses.asdict(BaselineOptions(mean_prior=prior_of(options)))
    ids = None if left_out is None else sorted(left_out)
    return {**kept, **baseline, "folds": sorted(options.folds), "left_out": ids}


def _restored(values: Mapping[str, Any], out: Path) -> TrainOptions:
    """Return what a run that was read trains on."""
    hints = typing.get_type_hints(TrainOptions)
    kept: dict[str, Any] = {}
    for name in (*_OPTIONS, "pronunciations"):
        value = values.get(name)
        if value is not None:
            origin = typing.get_origin(hints[name])
            kind = Path if Path in typing.get_args(hints[name]) else origin if origin in (tuple, frozenset) else None
            kept[name] = value if kind is None else kind(value)
    recipe = Recipe(mean_prior=values.get("recipe", {}).get("mean_prior", Recipe.mean_prior))
    if "corpus" not in kept:
        raise InputError(f"{out}: its run.json names no corpus")
    return TrainOptions(**{**kept, "out": out, "recipe": recipe})
