"""Training: from a corpus to one trained model per fold, resumable at any time."""

from __future__ import annotations

import csv
import json
import logging
import platform
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from torch.utils.data import DataLoader

from edgeser.corpora import Fold, Utterance, leave_one_session_out, read_corpus, train_on_all
from edgeser.models import InputSpec, build_model
from edgeser.runtime.errors import InputError
from edgeser.runtime.files import replacing, write_text
from edgeser.runtime.frontends import Frontend
from edgeser.runtime.metrics import Metrics, measure
from edgeser.training.dataset import EmotionDataset, OnePerRecording, Sample
from edgeser.training.evaluation import read_predictions
from edgeser.training.features import LineFeatures, RecordingFeatures, audio_key
from edgeser.training.frontends import open_features
from edgeser.training.module import EmotionModule, balanced_weights
from edgeser.training.options import TrainOptions
from edgeser.training.trained import TrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldResult:
    """One fold, trained.

    Attributes:
        name: The session held out, or `all`.
        folder: Where the trained model and its predictions lie.
        metrics: On the held-out session; `None` where nothing was held out.
    """

    name: str
    folder: Path
    metrics: Metrics | None


def train(options: TrainOptions) -> list[FoldResult]:
    """Train every fold that is not there yet; resume the one that was interrupted.

    Raises:
        InputError: The corpus or an option is not usable, or the folder holds a run with other options.
    """
    utterances = usable(read_corpus(options.corpus), options)
    folds = leave_one_session_out(utterances, options.sessions) if options.hold_out else [train_on_all(utterances)]
    _claim(options)
    is_done = all((fold_folder(options.out, fold.name) / "model.json").is_file() for fold in folds)
    features = {} if is_done else open_features(options)
    for source in features.values():
        if isinstance(source, RecordingFeatures):
            source.prepare(utterances, options.recipe.augmentation(source.frontend.kind).speeds)
        else:
            source.prepare(utterances)
    return [_train_fold(fold, options, features) for fold in folds]


def usable(utterances: Sequence[Utterance], options: TrainOptions) -> list[Utterance]:
    """Leave out excluded utterances and those with other labels; every label must remain."""
    chosen = [u for u in utterances if u.emotion in options.labels and u.id not in options.exclude]
    missing = [label for label in options.labels if not any(u.emotion == label for u in chosen)]
    if missing:
        raise InputError(f"corpus: {options.corpus} has no utterances for {', '.join(missing)}")
    return chosen


def fold_folder(out: Path, name: str) -> Path:
    """Return where a run keeps the fold that holds out session `name`, or `all`."""
    return out / f"fold-{name}"


def _claim(options: TrainOptions) -> None:
    """Make the run's folder, or check that what lies there is the same run."""
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "run.json"
    mine = {"options": options.as_dict()}
    if file.is_file():
        theirs = json.loads(file.read_text(encoding="utf-8"))
        different = [k for k, v in mine["options"].items() if theirs.get("options", {}).get(k) != v]
        if different:
            raise InputError(
                f"{options.out}: holds a run with other {', '.join(different)}: choose another --out, or delete it"
            )
        return
    versions = {"python": platform.python_version(), "torch": torch.__version__, "lightning": lightning.__version__}
    write_text(file, json.dumps({**mine, "versions": versions}, indent=2) + "\n")


def _train_fold(
    fold: Fold, options: TrainOptions, features: Mapping[str, RecordingFeatures | LineFeatures]
) -> FoldResult:
    folder = fold_folder(options.out, fold.name)
    if not (folder / "model.json").is_file():
        frontends = _fit_frontends(fold, features)
        recipe, labels = options.recipe, options.labels
        training_set = EmotionDataset(fold.train, frontends, features, labels, recipe)
        lightning.seed_everything(recipe.seed, verbose=False)
        inputs = {n: InputSpec(f.length, f.dim, f.kind) for n, f in frontends.items()}
        model = build_model(options.family, options.preset, inputs, len(labels), **options.changes)
        once = list({audio_key(u): u for u in fold.train}.values())
        model.prepare(DataLoader(EmotionDataset(once, frontends, features, labels), recipe.batch_size))
        log.info("fold %s: %d parameters, %d utterances", fold.name, model.parameter_count(), len(fold.train))
        _fit(EmotionModule(model, recipe, balanced_weights(training_set.classes, len(labels))), training_set, folder)
        trained = TrainedModel(
            model.eval(), options.preset, frontends, labels, {**options.as_dict(), "held_out": fold.name}
        )
        if fold.test:
            test_set = EmotionDataset(fold.test, frontends, features, labels)
            write_predictions(folder / "predictions.csv", fold.test, predict(trained, test_set), labels)
        trained.save(folder)
    metrics = None
    if fold.test:
        rows = read_predictions(folder / "predictions.csv")
        metrics = measure([r["label"] for r in rows], [r["emotion"] for r in rows], options.labels)
    return FoldResult(fold.name, folder, metrics)


def _fit_frontends(fold: Fold, features: Mapping[str, RecordingFeatures | LineFeatures]) -> dict[str, Frontend]:
    """Statistics come from the training split alone."""
    frontends: dict[str, Frontend] = {}
    for name, source in features.items():
        if isinstance(source, RecordingFeatures):
            frontends[name] = source.frontend.with_statistics(source.statistics(fold.train))
        else:
            frontends[name] = source.frontend
    return frontends


def _fit(module: EmotionModule, training_set: EmotionDataset, folder: Path) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it advertises
    recipe = module.recipe
    sampler = OnePerRecording(training_set.utterances, recipe.seed)
    loader = DataLoader(training_set, recipe.batch_size, sampler=sampler, drop_last=len(sampler) > recipe.batch_size)
    checkpoint = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    trainer = lightning.Trainer(
        max_epochs=recipe.epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        callbacks=[
            _EpochClock(training_set, sampler),
            EMAWeightAveraging(decay=recipe.average_decay),
            checkpoint,
            TQDMProgressBar(leave=True),
        ],
    )
    last = folder / "last.ckpt"
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, loader, ckpt_path=last if last.is_file() else None, weights_only=last.is_file() or None)
    except SystemExit as error:  # Lightning's answer to Ctrl-C, after which it leaves SIGINT ignored
        signal.signal(signal.SIGINT, handler)
        log.info("stopped in epoch %d; the same command goes on from the last whole one", trainer.current_epoch)
        raise KeyboardInterrupt from error


class _EpochClock(Callback):
    """Tells data and sampler which epoch it is, also after a resumption."""

    def __init__(self, training_set: EmotionDataset, sampler: OnePerRecording) -> None:
        self._clocked = (training_set, sampler)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        for clocked in self._clocked:
            clocked.epoch = trainer.current_epoch


def predict(trained: TrainedModel, data: EmotionDataset, batch_size: int = 32) -> torch.Tensor:
    """Return probabilities `(len(data), classes)`."""
    batches: Iterator[Sample] = iter(DataLoader(data, batch_size))
    with torch.inference_mode():
        return torch.cat([trained.model(batch).logits.softmax(dim=-1) for batch in batches])


def write_predictions(
    path: Path, utterances: Sequence[Utterance], probabilities: torch.Tensor, labels: Sequence[str]
) -> None:
    """Write one row per utterance: id, session, emotion, label and every class's probability."""
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "session", "emotion", "label", *(f"p_{label}" for label in labels)])
        for utterance, row in zip(utterances, probabilities.tolist(), strict=True):
            label = labels[max(range(len(labels)), key=row.__getitem__)]
            writer.writerow([utterance.id, utterance.session, utterance.emotion, label, *(f"{p:.6f}" for p in row)])
