"""From a floating-point bundle to an INT8 bundle: watch, place, choose, compare, pack."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgeser.calibration.card import int8_section
from edgeser.calibration.comparison import Comparison, compare
from edgeser.calibration.parts import Observation, Part, Progress, check_names, graph_bytes, observe
from edgeser.calibration.pipeline import Pipeline, read_parts
from edgeser.calibration.placement import PRESETS, is_quantized
from edgeser.calibration.ranges import Method
from edgeser.calibration.report import CalibrationReport, layer_reports
from edgeser.calibration.sampling import Division, Sampling, divide
from edgeser.calibration.sensitivity import Damage, Sensitivity, leave_in_float
from edgeser.calibration.words import WordsCompared, compare_words
from edgeser.corpora import Spec, Utterance, corpus_identity, read_corpus
from edgeser.corpora.checking import usable_utterances
from edgeser.corpora.inputs import load_utterance
from edgeser.runtime.bundle import CARD, GOLDEN, MODEL, Bundle, check_bundle_place, write_bundle
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.files import check_room
from edgeser.runtime.frontends import WordVectors
from edgeser.runtime.golden import GoldenVectors, GoldenWords, encoder_vectors
from edgeser.runtime.timing import side_by_side

log = logging.getLogger(__name__)

REPORT = "calibration.json"
_SMALLEST = 4  # an INT8 bundle is at least a quarter as large
_FORM = "int8 q/dq"
_TOOLS = ("onnx", "onnxruntime", "numpy")

Bar = Callable[[str, int], AbstractContextManager[Progress]]
"""Opens a progress bar: what is done, and how many steps it takes."""


@dataclass(frozen=True)
class CalibrationOptions:
    """How to calibrate.

    Attributes:
        corpus: Labelled utterances, for example `iemocap:DIR`, or several corpora.
        out: The `.edgeser` file to write, or a folder.
        preset: One of `PRESETS`.
        method: How ranges are found.
        smoothing: Whether activations are evened out first.
        packing: Whether embedding tables take five bits a value, and a decoder's four.
        sampling: How the corpus is divided.
        in_float: Layers to leave in floating point, as `part/layer`.
        sensitivity: Rank the layers.
        max_drop: Largest fall of UA on the validation set; layers are left in floating point until it holds.
            `None` leaves it at what it is.
        name: The bundle's name; `None` for that of the floating-point one.
        version: Its version; `None` likewise.
        calls: Timed calls of the whole path.
        spoken: More recordings for a recogniser to be watched on, of many words; `None` for `corpus` alone. They
            need no emotion, and none of them is compared on.
        strict: Refuse a corpus with an utterance that cannot be used; they are listed and left out otherwise.
    """

    corpus: Spec
    out: Path
    preset: str = "tensorrt"
    method: Method = field(default_factory=lambda: Method("mse"))
    smoothing: bool = True
    packing: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    in_float: tuple[str, ...] = ()
    sensitivity: bool = False
    max_drop: float | None = None
    name: str | None = None
    version: str | None = None
    calls: int = 30
    strict: bool = False
    spoken: Spec | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(f"--preset: got {self.preset!r}, expected one of {', '.join(PRESETS)}")
        if self.max_drop is not None and not 0.0 <= self.max_drop < 1.0:
            raise InputError(f"--max-drop: got {self.max_drop}, expected 0 or more and below 1, for example 0.005")


def no_bar(_: str, __: int) -> AbstractContextManager[Progress]:
    """Show no progress."""
    return nullcontext(lambda _: None)


def calibrate(bundle: Bundle, options: CalibrationOptions, bar: Bar = no_bar) -> tuple[Bundle, CalibrationReport]:
    """Write an INT8 bundle.

    Raises:
        BundleError: The bundle is INT8 already.
        InputError: The corpus or an option does not fit.
    """
    _check(bundle, options)
    division = divide(_utterances(bundle, options), bundle.manifest.labels, options.sampling)
    how = Observation(PRESETS[options.preset], options.method, options.smoothing, options.packing)
    spoken = (*division.calibration, *(() if options.spoken is None else read_corpus(options.spoken)))
    if bundle.manifest.recogniser is not None and options.spoken is None:
        log.warning(
            "the recogniser is watched on the corpus's own recordings: where they have few words, give --spoken"
        )
    count = len(division.calibration) + (0 if bundle.manifest.recogniser is None else len(spoken))
    with bar("watching activations", (2 if options.smoothing else 1) * count) as progress:
        parts = observe(bundle, division.calibration, how, progress, spoken)
    check_names(parts, options.in_float)
    in_float, ranking = _choose(bundle, parts, division, options, bar)
    protos = {name: part.quantized(part.layers(in_float)) for name, part in parts.items()}
    graphs = graph_bytes(protos)
    comparisons = _compare(bundle, graphs, division, bar)
    settings = {
        "preset": options.preset,
        "method": dataclasses.asdict(options.method),
        "smoothing": options.smoothing,
        "packing": options.packing,
        "sampling": division.describe(),
        "corpus": corpus_identity(options.corpus),
        "spoken": None if options.spoken is None else corpus_identity(options.spoken),
        "in_float": list(in_float),
        "max_drop": options.max_drop,
        "tools": {tool: metadata.version(tool) for tool in _TOOLS},
    }
    report = CalibrationReport(
        f"{bundle.manifest.name} {bundle.manifest.version}",
        settings,
        comparisons,
        {},
        _time(bundle, graphs, division.calibration[0], options.calls),
        [layer for part in parts.values() for layer in layer_reports(part, part.layers(in_float), in_float)],
        ranking,
        _compare_words(bundle, graphs, division, bar),
    )
    files = _files(bundle, parts, protos, in_float, division)
    report = dataclasses.replace(report, bytes=_sizes(bundle, files))
    return _pack(bundle, options, files, report), report


def _check(bundle: Bundle, options: CalibrationOptions) -> None:
    if bundle.manifest.adaptation is not None:
        raise BundleError(
            f"{bundle.path}: is adapted to one user: calibrate the bundle that it came from, then adapt that"
        )
    done = bundle.manifest.precision == "int8" or any(map(is_quantized, read_parts(bundle).values()))
    if done:
        raise BundleError(f"{bundle.path}: is INT8 already, expected the floating-point bundle that it came from")
    if options.out.exists() and options.out.resolve() == bundle.path.resolve():
        raise InputError(f"--out: {options.out} is the bundle to calibrate: name another, it is needed again")
    if options.spoken is not None and bundle.manifest.recogniser is None:
        raise InputError(f"--spoken: got {options.spoken}, but {bundle.path} brings no recogniser: leave it out")
    check_bundle_place(options.out)
    check_room(options.out, sum(entry.bytes for entry in bundle.manifest.files.values()) // _SMALLEST)


def _utterances(bundle: Bundle, options: CalibrationOptions) -> list[Utterance]:
    """Return the corpus without those labelled utterances that cannot be used."""
    everything, labels = read_corpus(options.corpus), bundle.manifest.labels
    usable = {u.id for u in usable_utterances([u for u in everything if u.emotion in labels], options.strict)}
    return [u for u in everything if u.id in usable or u.emotion not in labels]


def _choose(
    bundle: Bundle, parts: Mapping[str, Part], division: Division, options: CalibrationOptions, bar: Bar
) -> tuple[tuple[str, ...], Sequence[Damage]]:
    """Return the layers that stay in floating point, and the ranking where one was made."""
    ranking: Sequence[Damage] = ()
    if not options.sensitivity and options.max_drop is None:
        return options.in_float, ranking
    measured = Sensitivity(bundle, parts, division.validation)
    drop = measured.together(options.in_float).drop
    enough = options.max_drop is None or drop <= options.max_drop
    if options.sensitivity or not enough:
        with bar("quantizing one layer at a time", measured.count()) as progress:
            ranking = [damage for damage in measured.rank(progress) if damage.layer not in options.in_float]
    if enough or options.max_drop is None:
        return options.in_float, ranking
    more = leave_in_float(ranking, lambda names: measured.together([*options.in_float, *names]), options.max_drop)
    log.info("%d layers stay in floating point: %s", len(more), ", ".join(more))
    return (*options.in_float, *more), ranking


def _compare(bundle: Bundle, graphs: Mapping[str, bytes], division: Division, bar: Bar) -> dict[str, Comparison]:
    """Run the validation set and the excluded utterances through both."""
    found = {}
    for name, utterances in {"validation": division.validation, "excluded": division.excluded}.items():
        if utterances:
            with bar(f"comparing, {name}", 2 * len(utterances)) as progress:
                with Pipeline(bundle) as pipeline:
                    reference = pipeline.logits(utterances, progress)
                with Pipeline(bundle, graphs) as pipeline:
                    quantized = pipeline.logits(utterances, progress)
            found[name] = compare(reference, quantized, utterances, bundle.manifest.labels)
    return found


def _compare_words(
    bundle: Bundle, graphs: Mapping[str, bytes], division: Division, bar: Bar
) -> dict[str, WordsCompared]:
    """Let both recognisers, where there are any, hear the validation set and what was excluded."""
    found = {}
    for name, utterances in {"validation": division.validation, "excluded": division.excluded}.items():
        if utterances and bundle.manifest.recogniser is not None:
            with bar(f"hearing words, {name}", 2 * len(utterances)) as progress:
                with Pipeline(bundle) as pipeline:
                    reference = pipeline.words(utterances, progress)
                with Pipeline(bundle, graphs) as pipeline:
                    quantized = pipeline.words(utterances, progress)
            found[name] = compare_words(list(reference.values()), [quantized[one] for one in reference])
    return found


def _time(bundle: Bundle, graphs: Mapping[str, bytes], utterance: Utterance, calls: int) -> dict[str, float]:
    """Return the p50 of the whole path in ms, and of the recogniser, in turn on one thread of ONNX Runtime."""
    with Pipeline(bundle) as reference, Pipeline(bundle, graphs) as quantized:
        contenders: dict[str, Callable[[], object]] = {
            "fp32": lambda: reference.logits([utterance]),
            "int8": lambda: quantized.logits([utterance]),
        }
        if bundle.manifest.recogniser is not None:
            contenders["fp32 words"] = lambda: reference.words([utterance])
            contenders["int8 words"] = lambda: quantized.words([utterance])
        return {name: latency.p50_ms for name, latency in side_by_side(contenders, calls, 3).items()}


def _files(
    bundle: Bundle,
    parts: Mapping[str, Part],
    protos: Mapping[str, onnx.ModelProto],
    in_float: Sequence[str],
    division: Division,
) -> dict[str, bytes]:
    """Return the INT8 bundle's files: those of the other one, with its graphs and golden vectors replaced."""
    graphs, paths = graph_bytes(protos), bundle.graphs()
    files = {path: bundle.read(path) for path in bundle.manifest.files}
    files.update({paths[name]: graph for name, graph in graphs.items()})
    if "plugin" in bundle.manifest.graphs:
        twin = parts[MODEL].twin(onnx.load_from_string(bundle.graph("plugin")))
        quantized = twin.quantized(twin.layers(in_float))
        files[bundle.manifest.graphs["plugin"]] = quantized.SerializeToString()
    files[GOLDEN] = _golden(bundle, graphs, division).to_bytes()
    return files


def _golden(bundle: Bundle, graphs: Mapping[str, bytes], division: Division) -> GoldenVectors:
    """Return golden vectors with the INT8 graphs' own outputs, and the floating-point logits beside them."""
    golden = GoldenVectors.from_bundle(bundle)
    with open_engine(graphs[MODEL], "onnxruntime") as engine:
        logits = engine.run(golden.inputs)["logits"]
    with Pipeline(bundle, graphs) as pipeline:
        encoders = {
            name: golden.encoders[name].anew(pipeline.frontends[name])
            if name in golden.encoders
            else encoder_vectors(pipeline.frontends[name], _heard(name, division.calibration))
            for name in graphs
            if name in pipeline.frontends
        }
        heard = _heard("audio", division.calibration) if golden.words is None else golden.words.input
        words = None if pipeline.asr is None else GoldenWords.of(pipeline.asr, heard)
    return GoldenVectors(golden.inputs, logits, golden.logits, encoders, words)


def _sizes(bundle: Bundle, files: Mapping[str, bytes]) -> dict[str, int]:
    """Return the bundles' sizes, and what the given one would take with every weight as FP32."""
    given = sum(entry.bytes for entry in bundle.manifest.files.values())
    protos = [*read_parts(bundle).values()]
    if "plugin" in bundle.manifest.graphs:
        protos.append(onnx.load_from_string(bundle.graph("plugin")))
    # What encoders keep in half precision or as INT8 codes takes four bytes as FP32, and so do word vectors.
    more = sum(
        (4 - np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize) * int(np.prod(tensor.dims))
        for proto in protos
        for tensor in proto.graph.initializer
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
    )
    tables = [entry for entry in bundle.manifest.inputs.values() if entry.frontend.get("kind") == WordVectors.kind]
    more += sum(3 * entry.dim * int(entry.frontend.get("words", 0)) for entry in tables)
    return {"fp32": given, "fp32 weights": given + more, "int8": sum(map(len, files.values()))}


def _pack(bundle: Bundle, options: CalibrationOptions, files: dict[str, bytes], report: CalibrationReport) -> Bundle:
    manifest = bundle.manifest
    encoders = {path.split("/")[1] for path in files if path.startswith("frontends/") and path.endswith(".onnx")}
    inputs = {
        name: dataclasses.replace(entry, frontend={**entry.frontend, "weights": _FORM}) if name in encoders else entry
        for name, entry in manifest.inputs.items()
    }
    recogniser = manifest.recogniser
    files[REPORT] = (json.dumps(report.as_dict(), indent=1) + "\n").encode()
    files[CARD] = (files.get(CARD, b"").decode().rstrip("\n") + "\n\n" + int8_section(report)).encode()
    calibrated = dataclasses.replace(
        manifest,
        name=options.name or manifest.name,
        version=options.version or manifest.version,
        precision="int8",
        inputs=inputs,
        recogniser=None if recogniser is None else {**recogniser, "weights": _FORM},
        provenance={**manifest.provenance, "calibration": {**report.settings, "from_sha256": bundle.sha256}},
        files={},
    )
    return write_bundle(options.out, calibrated, files)


def _heard(modality: str, utterances: Sequence[Utterance]) -> Any:
    """Return what an encoder's vectors are made from, where the bundle has none yet."""
    first = next((u for u in utterances if u.transcript), utterances[0])
    return load_utterance(first) if modality == "audio" else first.transcript or "hello"
