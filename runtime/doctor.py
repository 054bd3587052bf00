"""What this device has, and whether the default bundle runs on it."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import ENGINES, open_engine
from edgeser.runtime.errors import EdgeSerError
from edgeser.runtime.frontends import AudioFrontend, TextFrontend
from edgeser.runtime.golden import verify_engine
from edgeser.runtime.recognizer import default_bundle

_REQUIRED = ("numpy", "onnxruntime", "kaldi-native-fbank", "safetensors", "soundfile", "soxr", "tokenizers")
_OPTIONAL = {
    "pocketsphinx": "words: edgeser[asr]",
    "torch": "training: edgeser[train]",
    "onnx": "export: edgeser[export]",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What.
        good: Whether it is as it should be; `None` for something optional that is not there.
        detail: What was found, and what to do where it is not good.
    """

    name: str
    good: bool | None
    detail: str


def examine(bundle: Path | None = None) -> Iterator[Check]:
    """Look at this device and a bundle, the default one if none is named."""
    yield Check("device", True, f"{platform.machine()}, {platform.system()} {platform.release()}")
    yield Check("python", True, platform.python_version())
    for name in _REQUIRED:
        version = _version(name)
        yield Check(name, version is not None, version or "missing: pip install edgeser")
    for name, purpose in _OPTIONAL.items():
        version = _version(name)
        yield Check(name, True if version else None, version or f"not installed ({purpose})")
    yield _tensorrt()
    yield from _bundle(bundle or default_bundle())


def _bundle(path: Path) -> Iterator[Check]:
    try:
        bundle = Bundle.open(path)
    except EdgeSerError as error:
        yield Check("bundle", False, str(error))
        return
    yield Check("bundle", True, f"{bundle.manifest.name} {bundle.manifest.version}, every file verified")
    for name in bundle.manifest.inputs:
        yield _frontend(bundle, name)
    for name in ENGINES:
        try:
            with open_engine(bundle.graph(), name) as engine:
                difference = verify_engine(engine, bundle)
            yield Check(f"engine {name}", True, f"golden vectors within {difference:.1e}; `auto` chooses it")
        except EdgeSerError as error:
            yield Check(f"engine {name}", False, str(error))


def _frontend(bundle: Bundle, name: str) -> Check:
    """Run a frontend over a second of noise, or over a word; encoders run their graph."""
    try:
        frontend = bundle.frontend(name)
        if isinstance(frontend, AudioFrontend):
            noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
            features = frontend(0.1 * noise)
        else:
            assert isinstance(frontend, TextFrontend)
            features = frontend("hello")
        frontend.close()
    except EdgeSerError as error:
        return Check(f"frontend {name}", False, str(error))
    return Check(f"frontend {name}", True, f"{frontend.kind}, {features.valid} of {frontend.length} rows from a sample")


def _tensorrt() -> Check:
    version = _version("tensorrt")
    found = version or ("present" if importlib.util.find_spec("tensorrt") else None)
    return Check("tensorrt", None, f"{found or 'not installed'}; this version of EdgeSER does not use it yet")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
