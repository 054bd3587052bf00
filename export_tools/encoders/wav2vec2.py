"""wav2vec 2.0, HuBERT and WavLM: a convolutional extractor, convolutional positions, transformer layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeser.export_tools.encoders.encoder import Encoder, additive_mask, layer_weights, load_pretrained
from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.errors import InputError


class Wav2Vec2Encoder(Encoder):
    """wav2vec 2.0, HuBERT or WavLM.

    Args:
        model: `transformers`' model without a head.
        masks_padding: Whether the checkpoint wants its padding masked (those with layer norm in the extractor do).
        normalises: Whether it wants samples of zero mean and unit variance.
        learned: The checkpoint's weights of a sum of layers.
    """

    input = "speech"

    def __init__(
        self, model: nn.Module, masks_padding: bool, normalises: bool, learned: tuple[float, ...] | None
    ) -> None:
        super().__init__()
        self.model: Any = model
        config: Any = model.config
        self.architecture = config.model_type
        self.layers = config.num_hidden_layers
        self.learned = learned
        self.masks_padding = masks_padding
        self._normalises = normalises
        self._is_stable = config.do_stable_layer_norm
        self._kernels, self._strides = tuple(config.conv_kernel), tuple(config.conv_stride)
        encoder: Any = model.get_submodule("encoder")
        positions: nn.Module = encoder.pos_conv_embed.conv
        if nn.utils.parametrize.is_parametrized(positions):
            nn.utils.parametrize.remove_parametrizations(positions, "weight")

    def hidden(self, values: Tensor, valid: Tensor | None, depth: int) -> list[Tensor]:
        model, encoder = self.model, self.model.encoder
        rows = model.feature_projection(model.feature_extractor(values).transpose(1, 2))
        rows = rows[0] if isinstance(rows, tuple) else rows
        mask = None
        if valid is not None:
            for kernel, stride in zip(self._kernels, self._strides, strict=True):
                valid = torch.div(valid - kernel, stride, rounding_mode="floor") + 1
            inside = (torch.arange(rows.shape[1], device=rows.device) < valid[:, None]).float()
            rows = rows * inside[:, :, None]
            mask = inside if self.architecture == "wavlm" else additive_mask(valid, rows.shape[1])
        rows = rows + encoder.pos_conv_embed(rows)
        states = [rows if self._is_stable else encoder.layer_norm(rows)]
        bias: Tensor | None = None
        for index, layer in enumerate(encoder.layers[:depth]):
            if self.architecture == "wavlm":
                out, bias = layer(states[-1], attention_mask=mask, position_bias=bias, index=index)
            else:
                out = layer(states[-1], attention_mask=mask)
            states.append(out)
        if self._is_stable and depth == self.layers:
            states[-1] = encoder.layer_norm(states[-1])
        return states

    def describe(self) -> dict[str, Any]:
        hop, window = receptive_field(self._kernels, self._strides)
        return {
            "hop_s": hop / SAMPLE_RATE,
            "window_s": window / SAMPLE_RATE,
            "normalisation": "zero-mean-unit-variance" if self._normalises else "none",
        }


def wav2vec2_from_transformers(folder: Path, _: int) -> Wav2Vec2Encoder:
    """Read a folder that `transformers` wrote.

    Raises:
        InputError: It is not readable, or lacks weights.
    """
    from transformers import AutoModel

    model, unused = load_pretrained(folder, AutoModel, ("masked_spec_embed", "adapter."))
    config = model.config
    preprocessor = folder / "preprocessor_config.json"
    try:
        settings = json.loads(preprocessor.read_text(encoding="utf-8")) if preprocessor.is_file() else {}
    except ValueError as error:
        raise InputError(f"{preprocessor}: not readable as JSON: {error}") from error
    masks = settings.get("return_attention_mask", config.feat_extract_norm == "layer")
    learned = None
    if "layer_weights" in unused:
        learned = layer_weights(_weights(folder, "layer_weights"))
    return Wav2Vec2Encoder(model, bool(masks), bool(settings.get("do_normalize", True)), learned)


def receptive_field(kernels: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int]:
    """Return the hop and the window of a stack of convolutions, in samples."""
    hop, window = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        window += (kernel - 1) * hop
        hop *= stride
    return hop, window


def _weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of the file that holds `name`; large checkpoints come in several."""
    from safetensors.torch import load_file

    file, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not file.is_file() and index.is_file():
        file = folder / json.loads(index.read_text(encoding="utf-8"))["weight_map"][name]
    if file.is_file():
        return load_file(file)
    tensors: dict[str, Tensor] = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    return tensors
