"""Measure speed and memory on this device: the model alone and the whole path, one utterance at a time.

Where PyTorch is installed the same architecture runs in eager mode beside the engine, call by call in turn;
the ratio is eager time over engine time.

examples:
  edgeser bench
  edgeser bench model.edgeser --threads 2 --asr pocketsphinx
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.cli.options import add_asr_options, add_json_option, load_runtime, positive, print_json, show
from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.engines import ENGINES
from edgeser.runtime.golden import GoldenVectors
from edgeser.runtime.manifest import Manifest
from edgeser.runtime.results import Timings
from edgeser.runtime.scoring import find_recordings
from edgeser.runtime.timing import Latency, device_name, peak_memory_mb, side_by_side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", type=Path, help="a .edgeser file or folder; the default bundle")
    parser.add_argument("--engine", default="auto", choices=["auto", *ENGINES])
    add_asr_options(parser, "none")
    parser.add_argument(
        "--audio", type=Path, help="utterance for the whole path; 3.7 s of noise (content changes no time)"
    )
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--calls", type=positive, default=200)
    parser.add_argument("--no-torch", action="store_true", help="do not compare with PyTorch")
    parser.set_defaults(no_self_test=False)
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    with load_runtime(args) as runtime:
        load_ms = (time.perf_counter() - started) * 1e3
        samples = _samples(args.audio)
        golden = GoldenVectors.from_bundle(runtime.bundle)
        feeds = {name: value[:1] for name, value in golden.inputs.items()}
        transcript = None if args.asr != "none" else "what on earth are you doing here"
        timings: list[Timings] = []
        whole = side_by_side(
            {
                "whole path": lambda: timings.append(
                    runtime.recognize(samples, SAMPLE_RATE, transcript=transcript).timings
                )
            },
            calls=max(3, args.calls // 10) if args.asr != "none" else args.calls,
            warm_up=2,
        )
        memory_mb = peak_memory_mb()  # before PyTorch comes in
        contenders: dict[str, Callable[[], object]] = {runtime.engine.name: lambda: runtime.engine.run(feeds)}
        if importlib.util.find_spec("torch") and not args.no_torch:
            contenders["pytorch eager"] = _eager(runtime.bundle.manifest, feeds, args.threads)
        model = side_by_side(contenders, args.calls)
        report = {
            "device": device_name(),
            "bundle": f"{runtime.bundle.manifest.name} {runtime.bundle.manifest.version}",
            "threads": args.threads,
            "load_ms": round(load_ms, 1),
            "peak_memory_mb": round(memory_mb, 1),
            "audio_s": round(samples.shape[0] / SAMPLE_RATE, 2),
            "asr": args.asr,
            "model": {name: dataclasses.asdict(latency) for name, latency in model.items()},
            "stages_p50_ms": _stages(timings),
            "whole_path": dataclasses.asdict(whole["whole path"]),
        }
        if "pytorch eager" in model:
            report["eager_over_engine_p50"] = model["pytorch eager"].p50_ms / model[runtime.engine.name].p50_ms
    print_json(report) if args.json else _print(report, model, whole["whole path"])
    return 0


def _print(report: dict[str, Any], model: dict[str, Latency], whole: Latency) -> None:
    show(f"{report['bundle']} on {report['device']}, threads: {report['threads']}")
    for name, latency in model.items():
        print(f"  model alone, {name:<14} p50 {latency.p50_ms:8.2f} ms   p95 {latency.p95_ms:8.2f} ms")
    if "eager_over_engine_p50" in report:
        print(f"  pytorch eager / engine      {report['eager_over_engine_p50']:.2f}x (same run, call by call in turn)")
    words = "transcript given" if report["asr"] == "none" else f"words by {report['asr']}"
    print(f"  whole path, {report['audio_s']} s, {words}: p50 {whole.p50_ms:.1f} ms, p95 {whole.p95_ms:.1f} ms")
    stages = report["stages_p50_ms"]
    print("  of it p50: " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in stages.items()))
    print(
        f"  load {report['load_ms']:.0f} ms, peak memory {report['peak_memory_mb']:.0f} MB (before PyTorch is loaded)"
    )


def _stages(timings: list[Timings]) -> dict[str, float]:
    """Return the median milliseconds of each stage of the whole path."""
    stages = {
        "VAD": "vad_ms",
        "ASR": "asr_ms",
        "audio features": "audio_ms",
        "text features": "text_ms",
        "model": "engine_ms",
    }
    return {
        name: round(float(np.median([getattr(timing, field) for timing in timings])), 2)
        for name, field in stages.items()
    }


def _samples(audio: Path | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    if audio is not None:
        return find_recordings([audio])[0].load()
    return (0.1 * np.random.default_rng(0).standard_normal(round(3.7 * SAMPLE_RATE))).astype(np.float32)


def _eager(manifest: Manifest, feeds: Any, threads: int) -> Callable[[], object]:
    """Return a call of the bundle's architecture in PyTorch; fresh weights, which change no time."""
    import torch

    from edgeser.models import restore_model

    torch.set_num_threads(threads)
    model = restore_model(manifest.model.family, manifest.model.config).eval()
    inputs = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in feeds.items()}

    def call() -> object:
        with torch.inference_mode():
            return model(inputs)

    return call
