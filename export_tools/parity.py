"""Parity: the exported graphs against PyTorch, on real utterances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeser.models import EmotionModel
from edgeser.runtime.engines import Engine
from edgeser.runtime.errors import InputError, ParityError

TOLERANCE = 1e-4
"""Largest |logit difference| in FP32."""

MINIMUM = 32
"""Fewest real utterances that count as a comparison."""


@dataclass(frozen=True)
class ParityReport:
    """How far a graph is from PyTorch.

    Attributes:
        graph: The lowering.
        utterances: How many were compared.
        max_logit_difference: Largest |difference| of a logit.
        mean_logit_difference: Mean |difference|.
        max_importance_difference: Largest |difference| of a row's importance.
        label_agreement: Share of the utterances with the same label.
    """

    graph: str
    utterances: int
    max_logit_difference: float
    mean_logit_difference: float
    max_importance_difference: float
    label_agreement: float

    def check(self) -> None:
        """Raise `ParityError` when the graph does not compute the model."""
        if not self.max_logit_difference <= TOLERANCE or self.label_agreement < 1.0:
            raise ParityError(
                f"{self.graph} graph: logits differ from PyTorch by up to {self.max_logit_difference:.2e}, labels "
                f"agree on {self.label_agreement:.1%} of {self.utterances} utterances, "
                f"expected at most {TOLERANCE:.0e} and 100%: the export is wrong, nothing was written"
            )


def reference(
    model: EmotionModel, inputs: Mapping[str, NDArray[Any]], temperature: float = 1.0
) -> dict[str, NDArray[Any]]:
    """Run PyTorch and name its outputs as the graph does; logits are divided by `temperature`."""
    with torch.inference_mode():
        output = model.eval()({name: torch.from_numpy(value) for name, value in inputs.items()})
    named = {"logits": (output.logits / temperature).numpy()}
    named.update({f"{name}_importance": value.numpy() for name, value in output.importance.items()})
    return named


def compare(
    graph: str, engine: Engine, inputs: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]
) -> ParityReport:
    """Run one graph and measure how far it is from the reference; judging is `ParityReport.check`.

    Raises:
        InputError: Fewer than 32 utterances: that would compare nothing.
    """
    count = expected["logits"].shape[0]
    if count < MINIMUM:
        raise InputError(f"parity: got {count} utterances, expected at least {MINIMUM}")
    actual = engine.run(inputs)
    difference = np.abs(actual["logits"] - expected["logits"])
    importances = [name for name in expected if name.endswith("_importance")]
    return ParityReport(
        graph=graph,
        utterances=count,
        max_logit_difference=float(difference.max()),
        mean_logit_difference=float(difference.mean()),
        max_importance_difference=max(
            (float(np.abs(actual[name] - expected[name]).max()) for name in importances), default=0.0
        ),
        label_agreement=float((actual["logits"].argmax(1) == expected["logits"].argmax(1)).mean()),
    )
