"""What this device has, and whether the default bundle runs on it."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import Engine, OnnxRuntimeEngine, candidates, open_engine
from edgeser.runtime.errors import EdgeSerError
from edgeser.runtime.frontends import AudioFrontend, TextFrontend
from edgeser.runtime.golden import Proof, prove, unproved
from edgeser.runtime.recognizer import default_bundle

_REQUIRED = ("numpy", "onnxruntime", "kaldi-native-fbank", "safetensors", "soundfile", "soxr", "tokenizers")
_OPTIONAL = {
    "openvino": "faster on CPUs: edgeser[openvino]",
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
    found = {name: _proof(bundle, name) for name in candidates("auto")}
    for name in bundle.manifest.inputs:
        proofs = {engine: proof for engine, proof in found.items() if isinstance(proof, Proof)}
        yield _frontend(bundle, name, {e: proof.rows[name] for e, proof in proofs.items() if name in proof.rows})
    yield from _engines(bundle, found)


def _engines(bundle: Bundle, found: Mapping[str, Proof | str]) -> Iterator[Check]:
    """Report every installed engine, and which `auto` chooses: the first that is proved; ONNX Runtime needs no rows."""
    usable = [name for name, proof in found.items() if isinstance(proof, Proof)]
    unknown = unproved(bundle) if usable else ()
    if unknown:
        usable = [name for name in usable if name == OnnxRuntimeEngine.name]
    for name, proof in found.items():
        if isinstance(proof, str):
            yield Check(f"engine {name}", False, proof)
            continue
        detail = f"golden vectors within {proof.logits:.1e}"
        if unknown:
            detail += f"; none for the encoders of {' and '.join(unknown)}"
        yield Check(f"engine {name}", True, detail + ("; `auto` chooses it" if [name] == usable[:1] else ""))


def _proof(bundle: Bundle, engine: str) -> Proof | str:
    """Run all golden vectors through an engine; where that fails, return why."""

    def open_graph(graph: bytes) -> Engine:
        return open_engine(graph, engine)

    with contextlib.ExitStack() as opened:
        try:
            model = opened.enter_context(open_graph(bundle.graph()))
            frontends = {name: bundle.frontend(name, open_graph) for name in bundle.manifest.inputs}
            for frontend in frontends.values():
                opened.callback(frontend.close)
            return prove(model, frontends, bundle)
        except (EdgeSerError, ImportError, OSError) as error:  # the last two: ONNX Runtime itself is damaged
            return str(error)


def _frontend(bundle: Bundle, name: str, rows: Mapping[str, float]) -> Check:
    """Report an encoder's golden rows; run others over a second of noise, or over a word."""
    if rows:
        near = ", ".join(f"{engine} within {difference:.1e}" for engine, difference in rows.items())
        return Check(f"frontend {name}", True, f"{bundle.manifest.inputs[name].frontend['kind']}, golden rows: {near}")
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
