"""Fitting one model: epochs, averaged weights, the best epoch, checkpoints, in one process or several."""

from __future__ import annotations

import copy
import logging
import signal
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from edgeser.runtime.metrics import measure
from edgeser.training.checkpoint import HashedCheckpoints
from edgeser.training.dataset import EmotionDataset, collate
from edgeser.training.module import EmotionModule
from edgeser.training.ranks import Group
from edgeser.training.recipe import Recipe
from edgeser.training.sampler import RecordingSampler

log = logging.getLogger(__name__)

Selection = dict[str, Any]
"""The epoch that was kept, from 1 on, by which accuracy, and its value on the validation split."""


def fit(
    module: EmotionModule,
    training_set: EmotionDataset,
    validation_set: EmotionDataset | None,
    folder: Path,
    group: Group,
) -> Selection | None:
    """Train a module, on from the last checkpoint in a folder; it ends with the weights that are to be kept.

    Returns:
        Which epoch was kept; `None` without a validation split, where it is the last.

    Raises:
        KeyboardInterrupt: It was interrupted; the checkpoint of the last whole epoch stays.
    """
    _silence()
    recipe = module.recipe
    sampler = RecordingSampler(training_set.utterances, recipe.sampling, group.rank, group.size)
    has_more = len(sampler) > recipe.batch_size
    loader = DataLoader(training_set, recipe.batch_size, sampler=sampler, drop_last=has_more, collate_fn=collate)
    averaging = EMAWeightAveraging(decay=recipe.average_decay) if recipe.average_decay else None
    best = BestEpoch(recipe) if validation_set is not None else None
    # The best epoch is asked before the averaging puts the trained weights back.
    callbacks: list[Callback] = [
        one for one in (_EpochClock(training_set, sampler), best, averaging) if one is not None
    ]
    has_idle = group.size > 1 and has_idle_parameters(module, training_set)
    trainer = _trainer(recipe, callbacks, folder, group, has_idle)
    if group.size > 1:
        log.info("%d processes, %d steps an epoch", group.size, len(loader))
    last = folder / "last.ckpt"
    checkpoint = last if last.is_file() else None
    validation = None if validation_set is None else DataLoader(validation_set, recipe.batch_size)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You defined a `validation_step` but have no `val_dataloader`")
            trainer.fit(module, loader, validation, ckpt_path=checkpoint, weights_only=checkpoint is not None or None)
    except SystemExit as error:  # Lightning's answer to Ctrl-C, after which it leaves SIGINT ignored
        signal.signal(signal.SIGINT, handler)
        log.info("stopped in epoch %d; the same command goes on from the last whole one", trainer.current_epoch)
        raise KeyboardInterrupt from error
    if averaging is not None:
        averaging.on_train_end(trainer, module)  # a run that was cut off after its last epoch does not get there
    return None if best is None else best.keep(module)


def has_idle_parameters(module: EmotionModule, training_set: EmotionDataset) -> bool:
    """Whether the loss leaves parameters without a gradient: DDP waits for them unless it is told to look."""
    model = copy.deepcopy(module.model).train()
    batch = default_collate([training_set[0], training_set[len(training_set) - 1]])
    output = model(batch)
    sum((part.sum() for part in output.parts.values()), output.logits.sum()).backward()
    return any(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def _trainer(
    recipe: Recipe, callbacks: list[Callback], folder: Path, group: Group, has_idle: bool
) -> lightning.Trainer:
    distributed: dict[str, Any] = {}
    if group.size > 1:
        strategy = DDPStrategy(find_unused_parameters=has_idle, cluster_environment=LightningEnvironment())
        distributed = {"strategy": strategy, "num_nodes": group.nodes, "use_distributed_sampler": False}
    checkpoint = ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    return lightning.Trainer(
        max_epochs=recipe.epochs,
        accelerator="auto",
        devices=group.devices,
        logger=False,
        enable_model_summary=False,
        plugins=[HashedCheckpoints()],
        gradient_clip_val=recipe.gradient_clip or None,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, checkpoint, TQDMProgressBar(leave=True)],
        **distributed,
    )


def _silence() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they advertise


class BestEpoch(Callback):
    """Measures the validation split after every epoch, keeps the best weights, and stops when patience is at its end.

    What it keeps is part of every checkpoint, so that a resumed run chooses as an uninterrupted one.

    Args:
        recipe: Says what is best, and how long to wait.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._epoch = -1
        self._value = -1.0
        self._weights: dict[str, Tensor] = {}
        self._since = 0
        self._rows: list[dict[str, Tensor]] = []

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        trainer.should_stop = self._is_over()

    def on_validation_batch_end(self, trainer: lightning.Trainer, *arguments: Any) -> None:
        _, rows, *_ = arguments
        self._rows.append({name: value.cpu() for name, value in rows.items()})

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Every process measures all of the split; the first one's figure counts, lest they disagree by a rounding.
        value = trainer.strategy.broadcast(self._measure())
        self._since += 1
        if value > self._value:
            self._value, self._epoch, self._since = value, trainer.current_epoch, 0
            self._weights = {name: tensor.detach().cpu().clone() for name, tensor in pl_module.state_dict().items()}
        trainer.should_stop = trainer.should_stop or self._is_over()

    def keep(self, module: EmotionModule) -> Selection:
        """Give a module the best epoch's weights."""
        module.load_state_dict(self._weights)
        return {"epoch": self._epoch + 1, "by": self._recipe.select_by, "value": round(self._value, 4)}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "value": self._value, "weights": self._weights, "since": self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._epoch, self._value = state_dict["epoch"], state_dict["value"]
        self._weights, self._since = state_dict["weights"], state_dict["since"]

    def _measure(self) -> float:
        labels, predicted = (torch.cat([row[name] for row in self._rows]).tolist() for name in ("label", "predicted"))
        self._rows = []
        classes = sorted({*labels, *predicted})
        metrics = measure([str(p) for p in predicted], [str(c) for c in labels], [str(c) for c in classes])
        return float(getattr(metrics, self._recipe.select_by))

    def _is_over(self) -> bool:
        return 0 < self._recipe.patience <= self._since


class _EpochClock(Callback):
    """Tells data and sampler which epoch it is, also after a resumption."""

    def __init__(self, training_set: EmotionDataset, sampler: RecordingSampler) -> None:
        self._clocked = (training_set, sampler)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        for clocked in self._clocked:
            clocked.epoch = trainer.current_epoch
