"""Bundles with golden vectors of our making: the default bundle's graphs, run over an example clip."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import select
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeser.runtime.audio import Samples
from edgeser.runtime.bundle import GOLDEN, Bundle, write_bundle
from edgeser.runtime.frontends import Frontend
from edgeser.runtime.golden import EncoderVectors, GoldenVectors, encoder_vectors
from edgeser.runtime.recognizer import default_bundle

Rebundle = Callable[..., Path]
WORDS = "dogs are sitting by the door"


@pytest.fixture(scope="session")
def openvino() -> None:
    """For tests that need OpenVINO."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")


@pytest.fixture(scope="session")
def encoders() -> Mapping[str, Frontend]:
    """The default bundle's speech and text encoder, in ONNX Runtime."""
    bundle = Bundle.open(default_bundle())
    return {name: bundle.frontend(name) for name in bundle.manifest.inputs}


@pytest.fixture(scope="session")
def vectors(encoders: Mapping[str, Frontend], speech: Samples) -> Mapping[str, EncoderVectors]:
    """What they give for the first clip and its words."""
    heard = {"audio": speech, "text": WORDS}
    return {name: encoder_vectors(frontend, heard[name]) for name, frontend in encoders.items()}


@pytest.fixture(scope="session")
def rebundle(vectors: Mapping[str, EncoderVectors], tmp_path_factory: pytest.TempPathFactory) -> Rebundle:
    """Write the default bundle again, with the encoders' vectors and with some golden vectors changed."""
    original = Bundle.open(default_bundle())
    files = {name: original.read(name) for name in original.manifest.files}
    golden = dataclasses.replace(GoldenVectors.from_bundle(original), encoders=vectors)

    def write(**changed: Any) -> Path:
        path = tmp_path_factory.mktemp("bundle") / "b.edgeser"
        content = dataclasses.replace(golden, **changed).to_bytes()
        write_bundle(path, original.manifest, {**files, GOLDEN: content})
        return path

    return write


@pytest.fixture(scope="session")
def proved(rebundle: Rebundle) -> Path:
    """The default bundle with vectors for its encoders: read it, do not change it."""
    return rebundle()


Forked = Callable[[Callable[[], object]], str]


@pytest.fixture
def forked() -> Forked:
    """Call something in a fork of this process, and return what it gave or raised, as text; what hangs fails."""

    def run(call: Callable[[], object]) -> str:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                outcome = str(call())
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
            os.write(writing, outcome.encode())
            os._exit(0)
        os.close(writing)
        try:
            assert select.select([reading], [], [], 20)[0], "the fork hangs"
            with open(reading, "rb", closefd=False) as told:
                return told.read().decode()
        finally:
            os.close(reading)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    return run
