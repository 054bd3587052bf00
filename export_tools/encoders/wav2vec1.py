"""wav2vec 1.0 (Schneider et al., Interspeech 2019), which the KS-Transformer's published results stand on.

A convolutional extractor (512 features every 10 ms) and a causal convolutional aggregator. Written from the paper and
from the layout of fairseq's checkpoints, since no library keeps it.
"""

from __future__ import annotations

import argparse
import ast
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeser.export_tools.encoders.encoder import Encoder
from edgeser.export_tools.encoders.wav2vec2 import receptive_field
from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.errors import InputError

Shape = tuple[int, int, int]  # channels, kernel, stride

# fairseq's architecture `wav2vec`, and what `wav2vec_large.pt` was trained with.
_EXTRACTOR: tuple[Shape, ...] = tuple((512, k, s) for k, s in ((10, 5), (8, 4), (4, 2), (4, 2), (4, 2), (1, 1), (1, 1)))
_AGGREGATOR: tuple[Shape, ...] = tuple((512, k, 1) for k in range(2, 14))
_MOST_LAYERS = 100  # a damaged file may ask for any number


class _Block(nn.Module):
    """A convolution, one norm over all channels and valid frames, ReLU."""

    def __init__(self, width: int, shape: Shape, causal: bool, zero_pad: bool, bias: bool, affine: bool) -> None:
        super().__init__()
        channels, self.kernel, self.stride = shape
        self.padding = self.kernel - 1 if causal else 0
        self.zero_pad = zero_pad
        self.convolution = nn.Conv1d(width, channels, self.kernel, stride=self.stride, bias=bias)
        self.norm = nn.GroupNorm(1, channels, affine=affine)

    def frames(self, frames: Tensor) -> Tensor:
        """Return how many valid frames come out for so many in."""
        return torch.div(frames + self.padding - self.kernel, self.stride, rounding_mode="floor") + 1

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Take `(N, C, T)` of which the first `valid[n]` output frames count."""
        if self.padding:
            x = functional.pad(x, (self.padding, 0), mode="constant" if self.zero_pad else "replicate")
        x = self.convolution(x)
        inside = (torch.arange(x.shape[2], device=x.device) < valid[:, None]).float()[:, None, :]
        count = inside.sum(dim=(1, 2), keepdim=True).clamp(min=1.0) * x.shape[1]
        mean = (x * inside).sum(dim=(1, 2), keepdim=True) / count
        variance = ((x - mean) * inside).square().sum(dim=(1, 2), keepdim=True) / count
        x = (x - mean) * torch.rsqrt(variance + self.norm.eps)
        if self.norm.affine:
            x = x * self.norm.weight[:, None] + self.norm.bias[:, None]
        return functional.relu(x)


class Wav2Vec1Encoder(Encoder):
    """wav2vec 1.0. Layer 0 is the extractor's output, layer 1 the aggregator's.

    Norms count valid frames only and the aggregator looks back only, so the rows of padded audio are those of the
    audio alone.

    Args:
        settings: fairseq's training arguments by name; those that are missing are as for `wav2vec_large.pt`.
    """

    input = "speech"
    architecture = "wav2vec"
    layers = 1
    learned = None
    masks_padding = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        for name, wanted in (("aggregator", "cnn"), ("activation", "relu"), ("vq_type", "none")):
            if settings.get(name, wanted) != wanted:
                raise InputError(f"wav2vec 1.0: got {name} {settings[name]!r}, expected {wanted}")
        if settings.get("skip_connections_feat") or settings.get("project_features", "none") != "none":
            raise InputError("wav2vec 1.0: skip connections in the extractor and projected features are not supported")
        affine = not settings.get("non_affine_group_norm", False)
        self._log_compression = bool(settings.get("log_compression", True))
        self._skips = bool(settings.get("skip_connections_agg", True))
        scale = settings.get("residual_scale", 0.5)
        if not isinstance(scale, (int, float)) or not 0 <= scale < math.inf:
            raise InputError(f"wav2vec 1.0: got residual_scale {scale!r}, expected a number from 0 on")
        self._scale = math.sqrt(scale)
        self._shapes = _shapes(settings.get("conv_feature_layers"), _EXTRACTOR)
        width = 1
        self.extractor = nn.ModuleList()
        for shape in self._shapes:
            self.extractor.append(_Block(width, shape, causal=False, zero_pad=False, bias=False, affine=affine))
            width = shape[0]
        self.aggregator = nn.ModuleList()
        self.projections = nn.ModuleList()
        zero_pad, bias = bool(settings.get("agg_zero_pad", False)), not settings.get("no_conv_bias", False)
        for shape in _shapes(settings.get("conv_aggregator_layers"), _AGGREGATOR):
            self.aggregator.append(_Block(width, shape, causal=True, zero_pad=zero_pad, bias=bias, affine=affine))
            is_projected = self._skips and width != shape[0]
            self.projections.append(nn.Conv1d(width, shape[0], 1, bias=False) if is_projected else nn.Identity())
            width = shape[0]

    def hidden(self, values: Tensor, valid: Tensor | None, depth: int) -> list[Tensor]:
        x = values[:, None]
        frames = torch.full_like(values[:, 0], values.shape[1]).to(torch.int32) if valid is None else valid
        for block in self.extractor:
            frames = block.frames(frames)  # type: ignore[operator]
            x = block(x, frames)
        x = torch.log(x.abs() + 1.0) if self._log_compression else x
        states = [x]
        if depth:
            for block, projection in zip(self.aggregator, self.projections, strict=True):
                residual = projection(x)
                x = block(x, frames)
                x = (x + residual) * self._scale if self._skips else x
            states.append(x)
        return [state.transpose(1, 2) for state in states]

    def describe(self) -> dict[str, Any]:
        kernels, strides = tuple(k for _, k, _ in self._shapes), tuple(s for _, _, s in self._shapes)
        hop, window = receptive_field(kernels, strides)
        return {"hop_s": hop / SAMPLE_RATE, "window_s": window / SAMPLE_RATE, "normalisation": "none"}


def wav2vec1_from_fairseq(file: Path, _: int) -> Wav2Vec1Encoder:
    """Read a fairseq checkpoint without running its pickle.

    Raises:
        InputError: It is no wav2vec 1.0 checkpoint.
    """
    try:
        # fairseq keeps its arguments in a Namespace, which holds plain values only and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises many unrelated types
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{file}: not readable as a fairseq checkpoint: {reason}") from error
    tensors = checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise InputError(f"{file}: holds no model's weights, expected a fairseq checkpoint")
    settings = checkpoint.get("args") or (checkpoint.get("cfg") or {}).get("model") or {}
    settings = vars(settings) if isinstance(settings, argparse.Namespace) else settings
    if not isinstance(settings, dict):
        raise InputError(f"{file}: its settings are a {type(settings).__name__}, expected a fairseq checkpoint's")
    encoder = Wav2Vec1Encoder(settings)
    try:
        encoder.load_state_dict(_state(tensors))
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise InputError(f"{file}: its weights are not those of wav2vec 1.0: {detail}") from error
    return encoder.eval()


def _state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename fairseq's weights, whose places count the padding and dropout between them."""
    places = {
        "feature_extractor": ("extractor", {"0": "convolution", "2": "norm"}),
        "feature_aggregator": ("aggregator", {"1": "convolution", "3": "norm"}),
    }
    state = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part not in places:
            continue  # the predictions' weights serve training only
        ours, layers = places[part]
        match rest.split("."):
            case ["residual_proj", index, kind]:
                state[f"projections.{index}.{kind}"] = tensor
            case ["conv_layers", index, layer, kind] if layer in layers:
                state[f"{ours}.{index}.{layers[layer]}.{kind}"] = tensor
            case _:
                state[name] = tensor  # so that loading reports it
    return state


def _shapes(text: str | None, default: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Read fairseq's `[(512, 10, 5), …]`; also `[(512, 4, 2)] * 3`, as its recipes spell it, summed."""
    if text is None:
        return default
    try:
        shapes = [shape for term in _terms(ast.parse(text, mode="eval").body) for shape in term]
        if not 0 < len(shapes) <= _MOST_LAYERS or min(min(shape) for shape in shapes) < 1:
            raise ValueError("no such convolutions")
    except (SyntaxError, ValueError, TypeError) as error:
        raise InputError(f"wav2vec 1.0: got layers {text!r}, expected [(channels, kernel, stride), ...]") from error
    return tuple(shapes)


def _terms(node: ast.expr) -> list[list[Shape]]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_terms(node.left), *_terms(node.right)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _terms(node.left) * min(int(ast.literal_eval(node.right)), _MOST_LAYERS + 1)
    return [[(int(c), int(k), int(s)) for c, k, s in ast.literal_eval(node)]]
