"""Whisper tiny.en as a recogniser: exported once, and hearing through PyTorch's encoder over any window."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeser.runtime.asr.whisper import DecodingOptions, WhisperDecoder
from edgeser.runtime.asr.whisper.tokens import WhisperTokens
from edgeser.runtime.audio import Samples

HOP = 320


@pytest.fixture(scope="session")
def packaged() -> Iterator[Callable[[str], Path]]:
    """Find the folder of a packaged encoder."""
    pytest.importorskip("torch", reason="what exports is not installed")
    from edgeser.export_tools.encoders.export import placed

    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(placed(name))


WINDOWS = (100, 200, 460)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Tiny.en, by the command: the frontend with layer 3 as rows, and the recogniser that reads its last state."""
    pytest.importorskip("torch", reason="what exports is not installed")
    from edgeser.cli.main import main

    encoder, words = (tmp_path_factory.mktemp("exported") / name for name in ("encoder", "words"))
    windows = map(str, WINDOWS)
    options = ["--layer", "3", "--windows", *windows, "-o", str(encoder), "--recogniser", str(words)]
    assert main(["export-encoder", "whisper-tiny.en", *options]) == 0
    return encoder, words


@pytest.fixture(scope="session")
def files(exported: tuple[Path, Path]) -> Mapping[str, bytes]:
    """The recogniser of tiny.en, with open rows, without an encoder."""
    return {file.name: file.read_bytes() for file in exported[1].iterdir() if file.name != "recogniser.json"}


OPTIONS = DecodingOptions(no_speech_penalty=1.5, min_score=-0.93)


@pytest.fixture(scope="session")
def decoder(files: Mapping[str, bytes]) -> Iterator[WhisperDecoder]:
    made = WhisperDecoder(files.__getitem__, options=OPTIONS)
    yield made
    made.close()


@pytest.fixture(scope="session")
def tokens(packaged: Callable[[str], Path]) -> Callable[[str], WhisperTokens]:
    counts = {"whisper-tiny.en": 51_864, "whisper-base": 51_865}

    @functools.cache
    def read(name: str) -> WhisperTokens:
        return WhisperTokens((packaged(name) / "tokenizer.json").read_bytes(), counts[name])

    return read


@pytest.fixture(scope="session")
def hear(packaged: Callable[[str], Path]) -> Callable[[Samples, int], NDArray[np.float32]]:
    """Return the last hidden state over a window of so many rows."""
    import torch

    from edgeser.export_tools.encoders.whisper import whisper_from_ctranslate2

    folder = packaged("whisper-tiny.en")

    def hidden(samples: Samples, window: int) -> NDArray[np.float32]:
        encoder = whisper_from_ctranslate2(folder, window)
        padded = np.zeros((1, window * HOP), np.float32)
        padded[0, : samples.shape[0]] = samples[: window * HOP]
        with torch.inference_mode():
            state: NDArray[np.float32] = encoder.hidden(torch.from_numpy(padded), None, encoder.layers)[-1][0].numpy()
        return state

    return hidden
