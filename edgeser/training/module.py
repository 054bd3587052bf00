"""The Lightning module: loss, optimiser, schedule."""

from __future__ import annotations

import math

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
        # Dropout is drawn by step, so that a resumed run equals an uninterrupted one.
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.global_step)
        label = batch.pop("label")
        output: ModelOutput = self.model(batch)
        loss = self._loss(output.logits, label)
        for part in output.parts.values():
            loss = loss + self.recipe.part_weight * self._loss(part, label)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def _loss(self, logits: Tensor, label: Tensor) -> Tensor:
        weights = self.get_buffer("class_weights")
        return functional.cross_entropy(logits, label, weights, label_smoothing=self.recipe.label_smoothing)

    def configure_optimizers(self) -> lightning.pytorch.utilities.types.OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, round(steps * self.recipe.warmup_share))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def balanced_weights(classes: list[int], count: int) -> Tensor:
    """Return loss weights `(count,)` that make every class weigh the same, 1 on average over the samples."""
    frequency = torch.bincount(torch.tensor(classes), minlength=count).clamp(min=1)
    return len(classes) / (count * frequency.float())
