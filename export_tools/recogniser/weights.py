"""Whisper's decoder as `transformers` has it, from its own folder or from CTranslate2's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgeser.export_tools.encoders.ctranslate2 import WhisperWeights
from edgeser.export_tools.encoders.encoder import load_pretrained
from edgeser.runtime.errors import InputError

PUBLISHED_HEADS: Mapping[tuple[int, int, int], tuple[tuple[int, int], ...]] = {
    (51_864, 384, 4): ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)),  # tiny.en
    (51_865, 384, 4): ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5)),  # tiny
    (51_864, 512, 6): ((3, 3), (4, 7), (5, 1), (5, 5), (5, 7)),  # base.en
    (51_865, 512, 6): ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6)),  # base
}
"""Heads whose cross-attention follows the words, as Whisper's authors give them, by tokens, width and layers."""

DOUBT: Mapping[tuple[int, int, int], dict[str, float]] = {
    (51_864, 384, 4): {"no_speech_penalty": 1.5, "min_score": -0.93},
    (51_865, 512, 6): {"no_speech_penalty": 0.25, "min_score": -0.82},
}
"""What tells words from noise best, by the same sizes.

Base's were chosen on 131 windows of read and acted speech and on 45 of noise, silence and hum, of which none then has
words; one window of speech is lost. tiny.en's limit lies 0.05 above the nearest of 435 windows of noise, silence and
hum (28 minutes), in INT8: see docs/words.md for what speech loses."""


@dataclass(frozen=True)
class Decoder:
    """A decoder with what its folder says of it.

    Attributes:
        model: `transformers`' `WhisperDecoder`.
        alignment_heads: `(layer, head)` whose cross-attention follows the words in time.
        doubt: Fields of `DecodingOptions` that suit it; `{}` where none were measured.
    """

    model: nn.Module
    alignment_heads: tuple[tuple[int, int], ...]
    doubt: Mapping[str, float]


def decoder_from(folder: Path) -> Decoder:
    """Read the decoder of a Whisper folder, CTranslate2's (`model.bin`) or `transformers`'.

    Raises:
        InputError: It is neither, holds another model or a quantized one, or lacks weights.
    """
    if (folder / "model.bin").is_file() and not (folder / "model.safetensors").is_file():
        model = _from_ctranslate2(folder / "model.bin")
        given = _json(folder / "config.json").get("alignment_heads")
    else:
        from transformers import WhisperModel

        model = load_pretrained(folder, WhisperModel, ("encoder.",))[0].decoder
        given = _json(folder / "generation_config.json").get("alignment_heads")
    config: Any = model.config
    sizes = (config.vocab_size, config.d_model, config.decoder_layers)
    return Decoder(model.eval(), _alignment_heads(given, sizes, folder), DOUBT.get(sizes, {}))


def _alignment_heads(given: Any, sizes: tuple[int, int, int], folder: Path) -> tuple[tuple[int, int], ...]:
    heads = PUBLISHED_HEADS.get(sizes) if given is None else given
    if heads is None:
        raise InputError(f"{folder}: names no alignment_heads, expected them in its config.json: words have no times")
    try:
        return tuple((int(layer), int(head)) for layer, head in heads)
    except (TypeError, ValueError):
        raise InputError(f"{folder}: alignment_heads {heads!r}, expected pairs of layer and head") from None


def _json(file: Path) -> Mapping[str, Any]:
    """Read a configuration, `{}` where there is none."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{file}: not readable as JSON, expected a model's configuration")
    return content


def _from_ctranslate2(file: Path) -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperDecoder

    weights = WhisperWeights(file, "decoder")
    try:
        sizes = weights.variables
        tokens, width = sizes["embeddings/weight"].shape
        config = WhisperConfig(
            d_model=width,
            vocab_size=tokens,
            decoder_layers=weights.layers,
            decoder_attention_heads=int(sizes["num_heads"]),
            decoder_ffn_dim=sizes["layer_0/ffn/linear_0/weight"].shape[0],
            max_target_positions=sizes["position_encodings/encodings"].shape[0],
            pad_token_id=None,
        )
        config._attn_implementation = "eager"
        model: nn.Module = WhisperDecoder(config)
        model.load_state_dict(_state(weights))
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{file}: its decoder has no {error}: is it quantized?") from error
    except (RuntimeError, ValueError, TypeError) as error:  # sizes that do not fit together
        detail = " ".join(str(error).split())[:300]
        raise InputError(f"{file}: its weights are not those of a Whisper decoder: {detail}") from error
    return model


def _state(weights: WhisperWeights) -> dict[str, Tensor]:
    """Bring CTranslate2's names and its joined products into `transformers`' form."""
    state = {
        "embed_tokens.weight": weights.tensor("embeddings/weight"),
        "embed_positions.weight": weights.tensor("position_encodings/encodings"),
    }
    state |= weights.norm("layer_norm", "layer_norm")
    for i in range(weights.layers):
        theirs, ours = f"layer_{i}", f"layers.{i}"
        state |= weights.norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
        state |= weights.norm(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
        state |= weights.norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
        own, cross = f"{ours}.self_attn", f"{ours}.encoder_attn"
        state |= weights.product(f"{theirs}/self_attention/linear_0", [f"{own}.{p}_proj" for p in "qkv"])
        state |= weights.product(f"{theirs}/self_attention/linear_1", [f"{own}.out_proj"])
        state |= weights.product(f"{theirs}/attention/linear_0", [f"{cross}.q_proj"])
        state |= weights.product(f"{theirs}/attention/linear_1", [f"{cross}.{p}_proj" for p in "kv"])
        state |= weights.product(f"{theirs}/attention/linear_2", [f"{cross}.out_proj"])
        state |= weights.product(f"{theirs}/ffn/linear_0", [f"{ours}.fc1"])
        state |= weights.product(f"{theirs}/ffn/linear_1", [f"{ours}.fc2"])
    return state
