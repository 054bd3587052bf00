"""What every encoder is to the exporter."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgeser.export_tools.encoders.layers import LayerChoice
from edgeser.runtime.errors import InputError


class Encoder(nn.Module):
    """An encoder with inputs of fixed length, as its graph will have them.

    Attributes:
        architecture: For example `whisper`.
        layers: How many layers it has.
        learned: The checkpoint's `layer_weights`, where it has some.
        choice: What becomes rows.
        masks_padding: Whether the graph takes the valid length too.
        outputs: Names of what `forward` returns.
    """

    input: ClassVar[str]
    architecture: str
    layers: int
    learned: tuple[float, ...] | None
    choice: LayerChoice
    masks_padding: bool
    outputs: tuple[str, ...] = ("rows",)

    @abstractmethod
    def hidden(self, values: Tensor, valid: Tensor | None, depth: int) -> list[Tensor]:
        """Return the hidden states of layers 0 to `depth`, `(N, rows, dim)` each."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what the frontend's description says of this encoder, beside its name and layer."""

    def forward(self, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the rows of the chosen layers, `(N, rows, dim)`."""
        return self.choice.pick(self.hidden(values, valid, self.choice.depth))


def load_pretrained(folder: Path, kind: Any, unneeded: tuple[str, ...]) -> tuple[Any, set[str]]:
    """Read a folder that `transformers` wrote, in single precision, without running a pickle.

    Args:
        folder: The folder.
        kind: `AutoModel`, or another class of `transformers`.
        unneeded: How the names of those weights begin that an encoder does without.

    Returns:
        The model, and the names of weights that it has no place for.

    Raises:
        InputError: It is not readable, or lacks weights: `transformers` would make them up.
    """
    try:
        model, report = kind.from_pretrained(
            folder,
            local_files_only=True,
            weights_only=True,
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers, safetensors and torch raise many unrelated types
        detail = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: not readable by transformers: {detail}") from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(unneeded))
    if missing:
        raise InputError(f"{folder}: lacks {len(missing)} of the encoder's weights, {missing[0]} among them")
    return model.eval(), set(report["unexpected_keys"])


def additive_mask(valid: Tensor, rows: int) -> Tensor:
    """Return `(N, 1, 1, rows)`, 0 for the first `valid[n]` keys and far below any score for the others."""
    padding = torch.arange(rows, device=valid.device) >= valid[:, None]
    return (padding.float() * -1e4)[:, None, None, :]


def layer_weights(tensors: Mapping[str, Tensor]) -> tuple[float, ...] | None:
    """Return a checkpoint's learned weights of a sum of layers, before their softmax."""
    found = tensors.get("layer_weights")
    return None if found is None else tuple(float(weight) for weight in found)
