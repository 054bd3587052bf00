"""Which of an encoder's layers become rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeser.runtime.errors import InputError


@dataclass(frozen=True)
class LayerChoice:
    """A hidden layer, several side by side, or a weighted sum of them.

    Layers count as in `transformers`: 0 is what goes into the first layer, `n` is the output of layer `n`, the last
    one after the encoder's final norm where it has one.

    Attributes:
        weights: `(layer, weight)` of every layer that takes part, in the order of the layers.
        is_sum: Whether they are summed; otherwise they stand side by side, and rows are wider.
    """

    weights: tuple[tuple[int, float], ...]
    is_sum: bool = True

    @classmethod
    def parse(cls, text: str, layers: int, learned: Sequence[float] | None = None) -> LayerChoice:
        """Read a user's choice.

        Args:
            text: A layer's number; `last`; several numbers with `+` between them, side by side; `layers + 1`
                comma-separated weights from layer 0 on, divided by their sum; or `learned`: the weights that came
                with the checkpoint.
            layers: How many layers the encoder has.
            learned: `layer_weights` of the checkpoint, before their softmax; `None` where it has none.

        Raises:
            InputError: It is none of these.
        """
        if text == "learned":
            if learned is None or len(learned) != layers + 1:
                raise InputError(
                    "--layer learned: the checkpoint has no layer_weights: give a layer's number, or weights"
                )
            top = max(learned)
            return cls._normalised([math.exp(weight - top) for weight in learned])
        if "," in text:
            try:
                weights = [float(part) for part in text.split(",")]
            except ValueError:
                weights = []
            if len(weights) != layers + 1 or not all(w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
                raise InputError(f"--layer: got {text!r}, expected {layers + 1} weights, one for each layer from 0 on")
            return cls._normalised(weights)
        if "+" in text:
            numbers = [part.strip() for part in text.split("+")]
            if not all(n.isascii() and n.isdigit() and int(n) <= layers for n in numbers):
                raise InputError(f"--layer: got {text!r}, expected numbers from 0 to {layers} with + between them")
            return cls(tuple((layer, 1.0) for layer in sorted({int(n) for n in numbers})), is_sum=False)
        if text != "last" and not (text.isascii() and text.isdigit() and int(text) <= layers):
            raise InputError(
                f"--layer: got {text!r}, expected 0 to {layers}, last, 1+2, learned, or {layers + 1} weights"
            )
        return cls(((layers if text == "last" else int(text), 1.0),))

    @classmethod
    def _normalised(cls, weights: Sequence[float]) -> LayerChoice:
        total = sum(weights)
        return cls(tuple((layer, weight / total) for layer, weight in enumerate(weights) if weight > 0))

    @property
    def depth(self) -> int:
        """The uppermost layer that is needed; those above it need not be exported."""
        return max(layer for layer, _ in self.weights)

    def __str__(self) -> str:
        if len(self.weights) == 1 and self.weights[0][1] == 1.0:
            return str(self.weights[0][0])
        if not self.is_sum:
            return "+".join(str(layer) for layer, _ in self.weights)
        return " + ".join(f"{weight:.4f} x {layer}" for layer, weight in self.weights)

    def pick(self, hidden: Sequence[Tensor]) -> Tensor:
        """Return the rows, from the hidden states of layers 0 to `depth`."""
        if len(self.weights) == 1:
            return hidden[self.weights[0][0]]
        if not self.is_sum:
            return torch.cat([hidden[layer] for layer, _ in self.weights], dim=-1)
        first, *others = (hidden[layer] * weight for layer, weight in self.weights)
        return sum(others, first)
