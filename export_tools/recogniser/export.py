"""From a Whisper folder to a recogniser's files: lower its decoder, prove the graphs, describe them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeser.export_tools.encoders.export import TOLERANCE
from edgeser.export_tools.encoders.storage import store_weights
from edgeser.export_tools.lowering import finish, name_weights, traced
from edgeser.export_tools.recogniser.decoder import CrossAttentionCache, DecoderStep
from edgeser.export_tools.recogniser.tokenizer import lean_tokenizer
from edgeser.export_tools.recogniser.weights import Decoder, decoder_from
from edgeser.runtime.asr.whisper.files import CROSS, STEP, TOKENIZER
from edgeser.runtime.asr.whisper.recogniser import ARCHITECTURE
from edgeser.runtime.asr.whisper.steps import MOST_ROWS
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import InputError, ParityError

STEP_OUTPUTS = ("logits", "keys", "values", "alignment")
_SINGLE = 3  # inputs of a step before its caches


@dataclass(frozen=True)
class RecogniserOptions:
    """What to export.

    Attributes:
        rows: Of the encoder's window: so many keys does each token look at, at most.
        any_rows: Leave the rows open, so that a shorter window costs less. ONNX Runtime runs that as fast; the other
            engines want fixed sizes.
        places: Of the cache: the longest sequence of tokens. Above 9.2 s of the quickest speech, with its timestamps.
        weights: How weights are stored; see `store_weights`.
        language: Of the words.
    """

    rows: int = 460
    any_rows: bool = False
    places: int = 128
    weights: str = "lossless"
    language: str = "en"

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InputError(f"rows: got {self.rows}, expected at least 1")


def export_recogniser(source: Path, options: RecogniserOptions) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of a recogniser by name, and its description; nothing unless its graphs agree with PyTorch.

    Args:
        source: A Whisper folder, of `transformers` or of CTranslate2, with its `tokenizer.json`.
        options: What to export.

    Raises:
        InputError: The folder holds no Whisper decoder, or an option does not fit it.
        ParityError: A graph does not compute the decoder.
    """
    tokenizer = source / TOKENIZER
    if not tokenizer.is_file():
        raise InputError(f"{source}: has no {TOKENIZER}, expected Whisper's own: without it tokens are no words")
    decoder = decoder_from(source)
    cross = CrossAttentionCache(decoder.model)
    step = DecoderStep(decoder.model, options.places, decoder.alignment_heads)
    heard, said = example_inputs(decoder, options)
    graphs = {
        CROSS: (cross, heard, lower_module(cross, heard, cross.outputs, _axes(heard, options))),
        STEP: (step, said, lower_module(step, said, STEP_OUTPUTS, _axes(said, options))),
    }
    files = {TOKENIZER: lean_tokenizer(tokenizer.read_bytes())}
    for name, (module, inputs, graph) in graphs.items():
        files[name] = store_weights(graph, options.weights).SerializeToString()
        _prove(name, files[name], module, inputs, TOLERANCE[options.weights])
    described = {"weights": options.weights, "rows": options.rows, "language": options.language}
    return files, {"architecture": ARCHITECTURE, **described, **decoder.doubt}


def example_inputs(
    decoder: Decoder, options: RecogniserOptions
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return two utterances' inputs of both graphs by name: noise of the size that hidden states have."""
    rng = np.random.default_rng(0)
    config: Any = decoder.model.config
    heads = config.decoder_attention_heads
    dim, rows, places = config.d_model // heads, options.rows, options.places

    def noise(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal((2, *shape)).astype(np.float32)

    said: dict[str, NDArray[Any]] = {
        "token": rng.integers(0, config.vocab_size, 2).astype(np.int32),
        "position": np.array([places // 3, 0], np.int32),
        "heard": np.array([rows, max(1, rows // 2)], np.int32),
    }
    for whose, size in (("past", places), ("cross", rows)):
        said.update({f"{whose}_keys_{i}": noise(heads, dim, size) for i in range(config.decoder_layers)})
        said.update({f"{whose}_values_{i}": noise(heads, size, dim) for i in range(config.decoder_layers)})
    return {"hidden": noise(rows, config.d_model)}, said


def _axes(inputs: Mapping[str, NDArray[Any]], options: RecogniserOptions) -> list[dict[int, Any]]:
    """Return each input's symbolic axes: the batch, and rows where they are left open."""
    batch, rows = torch.export.Dim("N", min=1), torch.export.Dim("rows", min=2, max=MOST_ROWS)
    places = {"hidden": 1, "cross_keys": 3, "cross_values": 2}
    axes = []
    for name in inputs:
        place = places.get(name.rstrip("0123456789").rstrip("_")) if options.any_rows else None
        axes.append({0: batch} if place is None else {0: batch, place: rows})
    return axes


def lower_module(
    module: nn.Module, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], axes: Sequence[dict[int, Any]]
) -> onnx.ModelProto:
    """Export a module of one input, or of three and a number of caches.

    Args:
        module: The module.
        inputs: Of an example, in order.
        outputs: Their names.
        axes: Those of each input that are symbolic.
    """
    shapes: tuple[Any, ...] = tuple(axes[:_SINGLE])
    if len(axes) > _SINGLE:
        shapes = (*shapes, tuple(axes[_SINGLE:]))
    proto = traced(module, {name: torch.from_numpy(value) for name, value in inputs.items()}, outputs, shapes)
    name_weights(proto, module)
    return finish(proto)


def _prove(name: str, graph: bytes, module: nn.Module, inputs: Mapping[str, NDArray[Any]], limit: float) -> None:
    """Raise `ParityError` where a graph, as it is written, is not its module."""
    with torch.inference_mode():
        expected: tuple[Tensor, ...] = module(*(torch.from_numpy(value) for value in inputs.values()))
    with open_engine(graph) as engine:
        got = engine.run(inputs)
        names = [spec.name for spec in engine.outputs]
    for output, value in zip(names, expected, strict=True):
        difference = float(np.abs(got[output] - value.numpy()).max() / value.numpy().std())
        if not difference <= limit:
            raise ParityError(f"{name}: {output} is {difference:.1e} deviations from PyTorch's, limit {limit:.0e}")
