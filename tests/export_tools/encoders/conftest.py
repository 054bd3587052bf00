"""Encoders to test with: the real ones once per session, small random ones, and any encoder run by PyTorch itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgeser.cli.main import main
from edgeser.export_tools.encoders.encoder import Encoder
from edgeser.export_tools.encoders.export import example_inputs, placed
from edgeser.export_tools.encoders.layers import LayerChoice
from edgeser.runtime.audio import Samples, load_audio
from edgeser.runtime.engines import Engine, TensorSpec
from edgeser.runtime.engines.base import Arrays
from edgeser.runtime.frontends import Frontend, SpeechEncoder, TextEncoder, read_frontend
from edgeser.runtime.frontends.onnx_encoder import TOKENIZER

Open = Callable[..., Any]


class TorchEngine(Engine):
    """Runs the encoder itself instead of its graph, so that variants can be compared without exporting each."""

    name = "pytorch"

    def __init__(self, encoder: Encoder, example: Arrays) -> None:
        super().__init__()
        self._encoder = encoder
        self.inputs = tuple(TensorSpec(n, str(v.dtype), (None, *v.shape[1:])) for n, v in example.items())
        rows = self._run(example)["rows"]
        self.outputs = (TensorSpec("rows", "float32", (None, *rows.shape[1:])),)

    def _run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            return {"rows": self._encoder(*(torch.from_numpy(feeds[spec.name]) for spec in self.inputs)).numpy()}

    def _close(self) -> None:
        pass


@pytest.fixture(scope="session")
def in_pytorch() -> Open:
    """Make the frontend of an encoder without exporting it: `(encoder, length, layer, folder)`."""

    def open_encoder(encoder: Encoder, length: int, layer: str = "last", folder: Path | None = None) -> Frontend:
        encoder.choice = LayerChoice.parse(layer, encoder.layers, encoder.learned)
        description = encoder.describe()
        engine = TorchEngine(encoder, example_inputs(encoder, length, description))
        if folder is None:
            return SpeechEncoder(length, description, lambda name: b"", lambda graph: engine)
        return TextEncoder(
            1 if "pool" in description else length,
            description,
            lambda name: (folder / TOKENIZER).read_bytes() if name == TOKENIZER else b"",
            lambda graph: engine,
        )

    return open_encoder


@pytest.fixture(scope="session")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Export through `edgeser export-encoder` and open what it wrote."""

    def export(source: object, *options: str) -> Frontend:
        out = tmp_path_factory.mktemp("exported") / "encoder"
        assert main(["export-encoder", str(source), "-o", str(out), *options]) == 0
        frontend = read_frontend(out)
        assert isinstance(frontend, SpeechEncoder | TextEncoder)
        assert_any_batch_runs(frontend.engine)
        return frontend

    return export


def assert_any_batch_runs(engine: Engine) -> None:
    """A batch of 1, 2 or 3 gives each the rows that it gets alone."""
    rng = np.random.default_rng(0)
    values, *valid = engine.inputs
    size = int(values.shape[1] or 3200)  # of a graph that takes any
    noise = rng.standard_normal((3, size)) if values.dtype == "float32" else rng.integers(0, 12, (3, size))
    feeds = {values.name: noise.astype(values.dtype)}
    feeds.update({spec.name: np.array([size, size - 1, size // 2], np.int32) for spec in valid})
    alone = [engine.run({n: v[i : i + 1] for n, v in feeds.items()})["rows"] for i in range(3)]
    for batch in (2, 3):
        together = engine.run({name: value[:batch] for name, value in feeds.items()})["rows"]
        np.testing.assert_allclose(together, np.concatenate(alone[:batch]), rtol=0, atol=1e-3 * float(together.std()))


@pytest.fixture(scope="session")
def randomise() -> Callable[[nn.Module], None]:
    """Move every parameter off its initial value: with fresh weights attention is flat and biases are zero."""

    def move(module: nn.Module) -> None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.25 * torch.randn(parameter.shape, generator=generator))

    return move


@pytest.fixture(scope="session")
def recordings(clips: list[Path]) -> list[Samples]:
    return [load_audio(clip) for clip in clips]


@pytest.fixture(scope="session")
def packaged() -> Iterator[Callable[[str], Path]]:
    """Find the folder of a packaged encoder."""
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(placed(name))


@pytest.fixture(scope="session")
def deviations() -> Callable[[NDArray[Any], NDArray[Any]], float]:
    """Measure the largest |difference| in standard deviations of what is expected; shapes must agree."""

    def measure(got: NDArray[Any], expected: NDArray[Any]) -> float:
        assert got.shape == expected.shape
        assert expected.std() > 0
        return float(np.abs(got - expected).max() / expected.std())

    return measure
