"""Whisper's encoder: its log-mel inside the graph, over a shorter window than the 30 s it was trained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeser.export_tools.encoders.ctranslate2 import WhisperWeights
from edgeser.export_tools.encoders.encoder import Encoder, load_pretrained
from edgeser.runtime.errors import InputError

_WINDOW = 400  # samples of a Fourier transform, 25 ms
_HOP = 160  # samples from one log-mel frame to the next, 10 ms
_FRAMES_PER_ROW = 2
ROW_SAMPLES = _HOP * _FRAMES_PER_ROW


class WhisperLogMel(nn.Module):
    """Whisper's log mel energies as plain convolutions and products, so that any engine runs them.

    Hann windows of 25 ms every 10 ms, the audio reflected at its ends, `bins` Slaney mel bands, log10, everything
    below the loudest energy less 8 raised to it, then scaled by `(x + 4) / 4`.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins
        from transformers.audio_utils import mel_filter_bank

        angle = 2 * math.pi / _WINDOW * np.outer(np.arange(_WINDOW // 2 + 1), np.arange(_WINDOW))
        hann = 0.5 - 0.5 * np.cos(2 * math.pi / _WINDOW * np.arange(_WINDOW))
        basis = np.concatenate([np.cos(angle), np.sin(angle)]) * hann
        filters = mel_filter_bank(_WINDOW // 2 + 1, bins, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
        self.register_buffer("basis", torch.from_numpy(basis[:, None].astype(np.float32)))
        self.register_buffer("filters", torch.from_numpy(filters.T.astype(np.float32)))

    def forward(self, samples: Tensor) -> Tensor:
        """Return `(N, bins, frames)` for `(N, samples)` at 16 kHz."""
        padded = functional.pad(samples[:, None], (_WINDOW // 2, _WINDOW // 2), mode="reflect")
        spectrum = functional.conv1d(padded, self.get_buffer("basis"), stride=_HOP)[:, :, :-1]
        real, imaginary = spectrum.chunk(2, dim=1)
        energies = torch.matmul(self.get_buffer("filters"), real * real + imaginary * imaginary)
        logs = torch.log10(energies.clamp(min=1e-10))
        loudest = logs.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(logs, loudest - 8.0) + 4.0) / 4.0


class WhisperEncoder(Encoder):
    """Whisper's encoder over `length` rows of 20 ms: positions past them are cut off.

    Whisper hears its padding (it was trained on clips padded to 30 s), so nothing is masked.

    Args:
        encoder: `transformers`' encoder.
        length: Rows.
    """

    input = "speech"
    architecture = "whisper"
    masks_padding = False
    learned = None

    def __init__(self, encoder: nn.Module, length: int) -> None:
        super().__init__()
        config: Any = encoder.config
        if length > config.max_source_positions:
            raise InputError(
                f"--length: got {length}, expected at most {config.max_source_positions} rows for this encoder"
            )
        self.layers = config.encoder_layers
        self.length = length
        self.log_mel = WhisperLogMel(config.num_mel_bins)
        self.encoder: Any = encoder
        self.register_buffer("positions", encoder.get_parameter("embed_positions.weight")[:length].detach().clone())

    def hidden(self, values: Tensor, valid: Tensor | None, depth: int) -> list[Tensor]:
        return self.hidden_of_mel(self.log_mel(values), depth)

    def hidden_of_mel(self, mel: Tensor, depth: int) -> list[Tensor]:
        """Return the hidden states of layers 0 to `depth` for `(N, bins, frames)` log-mel energies."""
        rows = functional.gelu(self.encoder.conv1(mel))
        rows = functional.gelu(self.encoder.conv2(rows)).transpose(1, 2)
        states = [rows + self.get_buffer("positions")[: rows.shape[1]]]
        for layer in self.encoder.layers[:depth]:
            states.append(layer(states[-1], None))
        if depth == self.layers:
            states[-1] = self.encoder.layer_norm(states[-1])
        return states

    def give_hidden(self) -> None:
        """Give the last hidden state beside the rows, as `hidden`: what Whisper's decoder reads."""
        self.outputs = ("rows", "hidden")

    def forward(self, values: Tensor, valid: Tensor | None = None) -> Any:
        if self.outputs == ("rows",):
            return super().forward(values, valid)
        states = self.hidden(values, valid, self.layers)
        return self.choice.pick(states), states[-1]

    def describe(self) -> dict[str, Any]:
        step = ROW_SAMPLES / 16_000
        return {"hop_s": step, "window_s": step, "normalisation": "none"}


def whisper_from_transformers(folder: Path, length: int) -> WhisperEncoder:
    """Read a folder that `transformers` wrote.

    Raises:
        InputError: It is not readable, or lacks weights.
    """
    from transformers import WhisperModel

    model, _ = load_pretrained(folder, WhisperModel, ("decoder.",))
    return WhisperEncoder(model.encoder, length)


def whisper_from_ctranslate2(folder: Path, length: int) -> WhisperEncoder:
    """Read a CTranslate2 folder (`model.bin`).

    Raises:
        InputError: It holds another model, or a quantized one.
    """
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Original

    file = folder / "model.bin"
    weights = WhisperWeights(file, "encoder")
    try:
        sizes = weights.variables
        width, bins, _ = sizes["conv1/weight"].shape
        config = WhisperConfig(
            d_model=width,
            num_mel_bins=bins,
            encoder_layers=weights.layers,
            encoder_attention_heads=int(sizes["num_heads"]),
            encoder_ffn_dim=sizes["layer_0/ffn/linear_0/weight"].shape[0],
            max_source_positions=sizes["position_encodings/encodings"].shape[0],
        )
        config._attn_implementation = "eager"
        state = _state(weights)
        encoder: nn.Module = Original(config)
        encoder.load_state_dict(state)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{file}: its encoder has no {error}: is it quantized?") from error
    except (RuntimeError, ValueError, TypeError) as error:  # sizes that do not fit together
        detail = " ".join(str(error).split())[:300]
        raise InputError(f"{file}: its weights are not those of a Whisper encoder: {detail}") from error
    return WhisperEncoder(encoder.eval(), length)


def _state(weights: WhisperWeights) -> dict[str, Tensor]:
    """Bring CTranslate2's names and its joined query, key and value into `transformers`' form."""
    state = {"embed_positions.weight": weights.tensor("position_encodings/encodings")}
    for conv in ("conv1", "conv2"):
        state |= {f"{conv}.{part}": weights.tensor(f"{conv}/{part}") for part in ("weight", "bias")}
    state |= weights.norm("layer_norm", "layer_norm")
    for i in range(weights.layers):
        theirs, ours = f"layer_{i}", f"layers.{i}"
        state |= weights.norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
        state |= weights.norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
        state |= weights.product(f"{theirs}/self_attention/linear_0", [f"{ours}.self_attn.{p}_proj" for p in "qkv"])
        state |= weights.product(f"{theirs}/self_attention/linear_1", [f"{ours}.self_attn.out_proj"])
        state |= weights.product(f"{theirs}/ffn/linear_0", [f"{ours}.fc1"])
        state |= weights.product(f"{theirs}/ffn/linear_1", [f"{ours}.fc2"])
    return state
