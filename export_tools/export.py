"""From a trained model to a bundle: lower, prove, pack."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgeser.corpora import Spec, Utterance, corpus_identity, read_corpus
from edgeser.corpora.checking import usable_utterances
from edgeser.corpora.inputs import graph_inputs, load_utterance
from edgeser.export_tools.card import model_card
from edgeser.export_tools.lowering import lower
from edgeser.export_tools.parity import MINIMUM, ParityReport, compare, reference
from edgeser.export_tools.recogniser.folder import read_recogniser
from edgeser.runtime.asr.whisper import WhisperAsr
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.bundle import CARD, GOLDEN, Bundle, check_bundle_place, frontend_files, write_bundle
from edgeser.runtime.confidence import Confidence
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.files import check_room
from edgeser.runtime.frontends import AudioFrontend, Frontend, Phonemes, SpeechEncoder, TextEncoder, WordVectors
from edgeser.runtime.golden import EncoderVectors, GoldenVectors, GoldenWords, encoder_vectors
from edgeser.runtime.manifest import RECOGNISER, InputEntry, Manifest, ModelEntry
from edgeser.training.trained import TrainedModel

log = logging.getLogger(__name__)

GRAPH_FILES = {"portable": "model.onnx", "plugin": "model.plugin.onnx"}
_GOLDEN_COUNT = 4
_ENCODER_SAMPLES = 4 * SAMPLE_RATE
_TOOLS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime")


@dataclass(frozen=True)
class ExportOptions:
    """What to write into a bundle beside the model.

    Attributes:
        out: The `.edgeser` file, or a folder.
        name: The bundle's name.
        version: Its version.
        corpus: Where the utterances for parity and golden vectors come from; `None` for the training corpus.
        utterances: How many are compared.
        metrics: Measured accuracies, by protocol.
        temperature: What the logits are divided by; see `edgeser.training.confidence`.
        confidence: How far answers can be trusted, where that was measured.
        card: The model card, Markdown; `None` for one made from what is known.
        licence: Terms that the training data puts on the model.
        recogniser: Folder of what hears the words, see `write_recogniser`; `None` for a bundle that brings none.
    """

    out: Path
    name: str
    version: str = "1.0.0"
    corpus: Spec | None = None
    utterances: int = 64
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    temperature: float = 1.0
    confidence: Confidence | None = None
    card: str | None = None
    licence: str = "not stated"
    recogniser: Path | None = None


def export(trained: TrainedModel, options: ExportOptions) -> tuple[Bundle, list[ParityReport]]:
    """Export a trained model; a bundle is written only when every graph agrees with PyTorch.

    Raises:
        ParityError: A graph's logits are more than 1e-4 from PyTorch's.
        InputError: The corpus has too few utterances.
    """
    check_bundle_place(options.out)
    check_room(options.out, _size(trained))
    chosen = _choose(trained, options)
    # Rounded to half precision, the golden vectors among them take half the room.
    inputs = {
        n: v.astype(np.float16).astype(np.float32) if v.dtype == np.float32 else v
        for n, v in graph_inputs(trained.frontends, chosen).items()
    }
    expected = reference(trained.model, inputs, options.temperature)
    files: dict[str, bytes] = {}
    reports = []
    for lowering, proto in lower(trained.model, options.temperature).named().items():
        graph = proto.SerializeToString()
        with open_engine(graph, "onnxruntime") as engine:
            report = compare(lowering, engine, inputs, expected)
        report.check()
        log.info("%s: logits within %.1e of PyTorch", lowering, report.max_logit_difference)
        reports.append(report)
        files[GRAPH_FILES[lowering]] = graph
    first = slice(0, _GOLDEN_COUNT)
    golden = GoldenVectors(
        {name: value[first] for name, value in inputs.items()},
        expected["logits"][first],
        encoders=golden_encoders(trained.frontends, chosen),
    )
    for name, frontend in trained.frontends.items():
        files.update(frontend_files(name, frontend))
    manifest = _manifest(trained, options, reports)
    if options.recogniser is not None:
        manifest, more, words = with_recogniser(
            manifest, options.recogniser, trained.frontends, load_utterance(_spoken(chosen))[:_ENCODER_SAMPLES]
        )
        golden = dataclasses.replace(golden, words=words)
        files.update(more)
    files[GOLDEN] = golden.to_bytes()
    files[CARD] = (options.card or model_card(manifest, trained.model.parameter_count())).encode()
    return write_bundle(options.out, manifest, files), reports


def golden_encoders(frontends: Mapping[str, Frontend], utterances: Sequence[Utterance]) -> dict[str, EncoderVectors]:
    """Return golden vectors for those frontends that are encoders, all from one utterance.

    It is the first with words that is at most 4 s long, so that it takes little room; without any, 4 s of another.
    """
    encoders = {n: f for n, f in frontends.items() if isinstance(f, (SpeechEncoder, TextEncoder))}
    if not encoders:
        return {}
    hears = any(isinstance(frontend, SpeechEncoder) for frontend in encoders.values())
    utterance = _spoken(utterances, hears)
    found: dict[str, EncoderVectors] = {}
    for name, frontend in encoders.items():
        if isinstance(frontend, SpeechEncoder):
            found[name] = encoder_vectors(frontend, load_utterance(utterance)[:_ENCODER_SAMPLES])
        elif (utterance.transcript or "").strip():
            found[name] = encoder_vectors(frontend, utterance.transcript or "")
    return found


def _spoken(utterances: Sequence[Utterance], hears: bool = True) -> Utterance:
    """Return the first utterance with words that is at most 4 s long, where that matters; without any, another."""
    pool = [u for u in utterances if (u.transcript or "").strip()] or list(utterances)
    return next((u for u in pool if not hears or load_utterance(u).shape[0] <= _ENCODER_SAMPLES), pool[0])


def _size(trained: TrainedModel) -> int:
    """Return the bytes that a bundle takes at least: the weights, once in each lowering, and the frontends."""
    frontends = sum(len(c) for name, f in trained.frontends.items() for c in frontend_files(name, f).values())
    return 4 * len(GRAPH_FILES) * trained.model.parameter_count() + frontends


def _choose(trained: TrainedModel, options: ExportOptions) -> list[Utterance]:
    """Take utterances from all over the corpus: the held-out fold where there is one; the last without words."""
    everything = read_corpus(options.corpus or trained.training["corpus"])
    try:
        held_out = trained.held_out(everything)
    except InputError:  # another corpus than the one it was trained on, of which nothing needs to be held out
        held_out = []
    pool = usable_utterances(held_out or everything)
    if len(pool) < MINIMUM:
        raise InputError(f"parity: the corpus gives {len(pool)} utterances, expected at least {MINIMUM}")
    places = np.linspace(0, len(pool) - 1, min(options.utterances, len(pool))).astype(int)
    chosen = [pool[i] for i in places]
    chosen[_GOLDEN_COUNT - 1] = dataclasses.replace(chosen[_GOLDEN_COUNT - 1], transcript="")
    return chosen


def _manifest(trained: TrainedModel, options: ExportOptions, reports: Sequence[ParityReport]) -> Manifest:
    training = dict(trained.training)
    corpus = training.pop("corpus")
    vectors, dictionary = training.pop("word_vectors", None), training.pop("pronunciations", None)
    for name in ("audio_encoder", "text_encoder", "sentence_encoder"):
        training.pop(name, None)  # a path; what matters of it is with the input's frontend
    training["excluded"] = len(training.pop("exclude", ()))
    for name in ("family", "preset", "labels"):
        training.pop(name, None)
    provenance = {
        "corpus": corpus_identity(corpus),
        "licence": options.licence,
        "training": training,
        "temperature": options.temperature,
        "parity": [dataclasses.asdict(report) for report in reports],
        "tools": {tool: metadata.version(tool) for tool in _TOOLS},
    }
    if any(isinstance(f, WordVectors) for f in trained.frontends.values()):
        provenance["word_vectors"] = "GloVe 6B 50d" if vectors is None else Path(vectors).name
    if any(isinstance(f, Phonemes) for f in trained.frontends.values()):
        provenance["pronunciations"] = "CMUdict" if dictionary is None else Path(dictionary).name
    return Manifest(
        name=options.name,
        version=options.version,
        model=ModelEntry(trained.model.family, trained.preset, _plain(trained.model.configuration())),
        labels=trained.labels,
        inputs={name: _input(trained, name) for name in trained.frontends},
        graphs={report.graph: GRAPH_FILES[report.graph] for report in reports},
        metrics=_plain(options.metrics),
        provenance=_plain(provenance),
        confidence=options.confidence,
    )


def with_recogniser(
    manifest: Manifest, folder: Path, frontends: Mapping[str, Frontend], samples: Samples
) -> tuple[Manifest, dict[str, bytes], GoldenWords | None]:
    """Return a manifest with the recogniser of a folder, the files that a bundle keeps of it, and its golden words.

    Args:
        manifest: The bundle's, without one.
        folder: See `write_recogniser`.
        frontends: The bundle's.
        samples: An utterance for the golden words.

    Raises:
        InputError: The folder holds none, or none that reads what these frontends give.
    """
    description, files = read_recogniser(folder)
    audio = frontends.get("audio")
    try:
        with WhisperAsr(
            description, files.__getitem__, open_engine, audio if isinstance(audio, AudioFrontend) else None
        ) as asr:
            words = GoldenWords.of(asr, samples)
    except (BundleError, KeyError) as error:
        raise InputError(f"{folder}: {error}") from error
    whole = dataclasses.replace(manifest, recogniser=_plain(description))
    return whole, {RECOGNISER + name: content for name, content in files.items()}, words


def mean_prior(trained: TrainedModel) -> float | None:
    """Return how many utterances the training mean counts as, where a model was trained for rows without a mean."""
    if not any(isinstance(frontend, AudioFrontend) for frontend in trained.frontends.values()):
        return None
    return float(trained.training.get("recipe", {}).get("mean_prior", 0.0)) or None


def _input(trained: TrainedModel, name: str) -> InputEntry:
    frontend = trained.frontends[name]
    prior = mean_prior(trained) if isinstance(frontend, AudioFrontend) else None
    return InputEntry(frontend.length, frontend.dim, {"kind": frontend.kind, **frontend.options()}, prior)


def _plain(value: Any) -> Any:
    """Bring tuples and their like to what JSON gives back, so that a manifest reads as it was written."""
    return json.loads(json.dumps(value))
