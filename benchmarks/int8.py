"""INT8 beside its peers, in one run, call by call in turn, on one thread.

  python benchmarks/int8.py whole fp32.edgeser int8.edgeser --audio edgeser/clips/03-01-04-01-01-02-19.flac
  python benchmarks/int8.py paper edgeser/clips

`whole` times the whole path with the transcript given. `paper` times the graph of the KS-Transformer's `paper` preset
with fresh weights, which change no time, calibrated on recordings. Peers: ONNX Runtime in FP32 and with its own dynamic
quantization, OpenVINO in FP32, BF16 and on our INT8 graph.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeser.calibration.observing import ObservingEngine
from edgeser.calibration.placement import PRESETS, activations, default_sites, quantize
from edgeser.calibration.ranges import Method
from edgeser.runtime.audio import SAMPLE_RATE, load_audio
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.engines.openvino import OpenVinoEngine
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.scoring import find_recordings
from edgeser.runtime.timing import Latency, device_name, side_by_side

WORDS = "what on earth are you doing here"
REFERENCE = "ONNX Runtime FP32"


class Bfloat16Engine(OpenVinoEngine):
    """OpenVINO with bfloat16 inside; the Runtime never uses it."""

    name = "openvino-bf16"

    def __init__(self, graph: bytes, threads: int = 1) -> None:
        from edgeser.runtime.engines import openvino

        plain = openvino._options
        openvino._options = lambda count: {**plain(count), "INFERENCE_PRECISION_HINT": "bf16"}
        try:
            super().__init__(graph, threads)
        finally:
            openvino._options = plain


def dynamic(graph: bytes) -> bytes:
    """Return a graph after ONNX Runtime's own dynamic quantization of matrix products."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        given.write_bytes(_unshared(graph))
        quantize_dynamic(given, made, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"])
        return made.read_bytes()


def _unshared(graph: bytes) -> bytes:
    """Give each node weights of its own: that quantizer transposes a Gemm's in place, under another reader's nose."""
    proto = onnx.load_from_string(graph)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            if node.op_type in ("Gemm", "MatMul") and name in stored:
                copy = proto.graph.initializer.add()
                copy.CopyFrom(stored[name])
                copy.name = f"{node.name}.{name}"
                node.input[place] = copy.name
    return proto.SerializeToString()


OPENERS: Mapping[str, Callable[[bytes], Engine]] = {
    "onnxruntime": lambda graph: open_engine(graph, "onnxruntime"),
    "dynamic": lambda graph: open_engine(dynamic(graph), "onnxruntime"),
    "openvino": lambda graph: open_engine(graph, "openvino"),
    "bf16": Bfloat16Engine,
}


def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16; where it does not, OpenVINO emulates it, hundreds of times slower."""
    flags = Path("/proc/cpuinfo")
    return flags.is_file() and any(name in flags.read_text() for name in ("amx_bf16", "avx512_bf16"))


def contenders_for(what: str, names: Mapping[str, tuple[str, str]], args: argparse.Namespace) -> dict[str, Any]:
    """Return what to call, by name; `names` has the opener and the bundle or graph of each."""
    if what == "paper":
        graphs, feeds = paper(args.recordings)
        engines = {name: OPENERS[opener](graphs[graph]) for name, (opener, graph) in names.items()}
        return {name: lambda engine=engine: engine.run(feeds) for name, engine in engines.items()}
    samples = load_audio(args.audio)
    runtimes = {
        name: _runtime(args.fp32 if bundle == "fp32" else args.int8, OPENERS[opener])
        for name, (opener, bundle) in names.items()
    }
    return {
        name: lambda runtime=runtime: runtime.recognize(samples, SAMPLE_RATE, transcript=WORDS)
        for name, runtime in runtimes.items()
    }


def _runtime(path: Path, opener: Callable[[bytes], Engine]) -> Runtime:
    from edgeser.runtime.asr import open_asr
    from edgeser.runtime.bundle import Bundle

    bundle = Bundle.open(path)
    return Runtime(bundle, opener(bundle.graph()), open_asr("none"), opener)


def paper(recordings: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the `paper` preset's graphs and one utterance's inputs."""
    import torch

    from edgeser.export_tools.lowering import lower
    from edgeser.models import FAMILIES
    from edgeser.models.base import InputSpec
    from edgeser.runtime.frontends import LogMel

    torch.manual_seed(0)
    inputs = {"audio": InputSpec(460, 80, "log-mel"), "text": InputSpec(20, 50, "word-vectors")}
    model = FAMILIES["ks-transformer"].preset("paper", inputs, 4).eval()
    proto = lower(model).portable
    frontend = LogMel(80)
    rng = np.random.default_rng(0)
    several = []
    for recording in find_recordings([recordings]):
        audio = frontend(recording.load())
        rows = ((audio.values - audio.values.mean()) / audio.values.std()).astype(np.float32)
        several.append(
            {
                "audio": rows[None],
                "audio_length": np.array([audio.valid], np.int32),
                "text": rng.standard_normal((1, 20, 50)).astype(np.float32),
                "text_length": np.array([8], np.int32),
            }
        )
    graphs = {"fp32": proto.SerializeToString()}
    for preset in (PRESETS["tensorrt"], PRESETS["onnxruntime-x86"]):
        sites = default_sites(proto)
        engine = ObservingEngine(proto, activations(proto, sites, preset))
        for feeds in several:
            engine.run(feeds)
        ranges = {name: Method("mse").range(histogram) for name, histogram in engine.histograms.items()}
        graphs["u8" if preset.unsigned else "int8"] = quantize(proto, sites, ranges, preset).SerializeToString()
    return graphs, several[0]


def _peak_memory_mb() -> float:
    """Return this process's own peak; `ru_maxrss` would be its parent's where that is larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def table(timed: Mapping[str, Latency], memory: Mapping[str, float]) -> str:
    """Return a Markdown table of times, their ratio to FP32 in ONNX Runtime, and memory."""
    base = timed[REFERENCE].p50_ms
    lines = ["| one thread | p50 ms | p95 ms | times as fast | peak memory MB |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {one.p50_ms:.1f} | {one.p95_ms:.1f} | {base / one.p50_ms:.2f} | {memory[name]:.0f} |"
        for name, one in timed.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="what", required=True)
    whole = modes.add_parser("whole")
    whole.add_argument("fp32", type=Path)
    whole.add_argument("int8", type=Path)
    whole.add_argument("--audio", type=Path, required=True)
    modes.add_parser("paper").add_argument("recordings", type=Path)
    for mode in modes.choices.values():
        mode.add_argument("--calls", type=int, default=40)
        mode.add_argument("--only", help=argparse.SUPPRESS)  # one contender, for its memory
    args = parser.parse_args()
    names = {
        REFERENCE: ("onnxruntime", "fp32"),
        "ONNX Runtime, its dynamic quantization": ("dynamic", "fp32"),
        "ONNX Runtime INT8": ("onnxruntime", "int8"),
        "OpenVINO FP32": ("openvino", "fp32"),
        "OpenVINO INT8": ("openvino", "int8"),
    }
    if args.what == "paper":
        names["ONNX Runtime INT8, preset onnxruntime-x86"] = ("onnxruntime", "u8")
    slow = {"OpenVINO BF16": ("bf16", "fp32")}
    if args.only:
        (call,) = contenders_for(args.what, {args.only: {**names, **slow}[args.only]}, args).values()
        call()
        print(json.dumps(_peak_memory_mb()))
        return
    timed = side_by_side(contenders_for(args.what, names, args), args.calls, 3)
    calls = args.calls if has_bfloat16() else 1
    timed |= side_by_side(contenders_for(args.what, slow, args), calls, 1)
    memory = {}
    for name in timed:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        memory[name] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    print(f"{device_name()}, {args.calls} calls in turn")
    if not has_bfloat16():
        print("bfloat16 is emulated here, 1 call: this CPU has none")
    print(table(timed, memory))


if __name__ == "__main__":
    main()
