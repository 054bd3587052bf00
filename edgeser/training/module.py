"""The Lightning module: loss, optimiser, schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import lightning
import torch
from torch import Tensor
from torch.nn import functional

from edgeser.models import EmotionModel, ModelOutput
from edgeser.training.dataset import Sample
from edgeser.training.recipe import Recipe


class EmotionModule(lightning.LightningModule):
    """Trains one model by a recipe.

    Args:
        model: The model.
        recipe: Numbers to train by.
        class_weights: `(classes,)`, the loss weight of each class.
    """

    def __init__(self, model: EmotionModel, recipe: Recipe, class_weights: Tensor) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.register_buffer("class_weights", class_weights, persistent=False)

    def training_step(self, batch: Sample, _: int) -> Tensor:
        # Dropout is drawn by step, so that a resumed run equals an uninterrupted one, and otherwise in every process.
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.global_step + (self.global_rank << 40))
        label = batch.pop("label")
        output: ModelOutput = self.model(batch)
        loss = self._loss(output.logits, label)
        for part in output.parts.values():
            loss = loss + self.recipe.part_weight * self._loss(part, label)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Sample, _: int) -> dict[str, Tensor]:
        """Return labels and predicted classes, each `(N,)`."""
        label = batch.pop("label")
        output: ModelOutput = self.model(batch)
        return {"label": label, "predicted": output.logits.argmax(dim=1)}

    def _loss(self, logits: Tensor, label: Tensor) -> Tensor:
        weights = self.get_buffer("class_weights")
        return functional.cross_entropy(logits, label, weights, label_smoothing=self.recipe.label_smoothing)

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        optimizer = make_optimizer(self.recipe, self.model)
        factor = learning_rate_factor(self.recipe, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_optimizer(recipe: Recipe, model: EmotionModel) -> torch.optim.Optimizer:
    """Return a recipe's optimiser of all of a model's parameters."""
    parameters, rate, decay = model.parameters(), recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=recipe.momentum, weight_decay=decay)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, betas=recipe.betas, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=rate, betas=recipe.betas, weight_decay=decay)


def learning_rate_factor(recipe: Recipe, steps: int) -> Callable[[int], float]:
    """Return what the learning rate is multiplied with at each of a run's `steps`."""
    warmup = max(1, round(steps * recipe.warmup_share))
    epoch = max(1, steps // recipe.epochs)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if recipe.schedule == "step":
            return float(recipe.step_factor ** (step // epoch // recipe.step_epochs))
        if recipe.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return factor


def balanced_weights(classes: list[int], count: int) -> Tensor:
    """Return loss weights `(count,)` that make every class weigh the same, 1 on average over the samples."""
    frequency = torch.bincount(torch.tensor(classes), minlength=count).clamp(min=1)
    return len(classes) / (count * frequency.float())
