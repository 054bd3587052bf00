"""A bundle's manifest: what a model is, takes, gives and comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from edgeser.runtime.adaptation import ADAPTATION, AdaptationEntry
from edgeser.runtime.confidence import RUN, Confidence
from edgeser.runtime.errors import BundleError
from edgeser.runtime.labels import NO_SPEECH, UNSURE
from edgeser.runtime.names import is_shown, name_problem

SCHEMA = 1
ADAPTED_SCHEMA = 2
"""Of a bundle that was adapted: who reads only the other must not answer without the correction."""

MODALITIES = ("audio", "text", "phonemes", "sentence")
"""What a model may take; all but `audio` come from the transcript."""

GRAPH_SUFFIX = ".onnx"
FRONTENDS, RECOGNISER = "frontends/", "recogniser/"
"""Folders of a bundle: one for each modality, and the recogniser's."""
PRECISIONS = ("fp32", "fp16", "int8")
MOST_BYTES = 1 << 20
"""Of a manifest; the default bundle's has 9 KB."""
_MOST_FILES = 500
_MOST_PATH = 200
_MOST_LABELS = 256
_MOST_PRIOR = 1e6  # utterances
_MOST_VALUES = 1 << 24  # numbers in one input: 64 MB
_MOST_NAME, _MOST_LINE = 100, 500
_MOST_FILE_BYTES = {".onnx": 1 << 31, ".safetensors": 1 << 29}  # protobuf ends at 2 GiB
_MOST_OTHER_BYTES = 1 << 26
_LOWERINGS = ("portable", "plugin")
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """What a declared file must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class InputEntry:
    """One modality: rows, their width, and the frontend that makes them (`kind` and its options).

    `mean_prior` says that the model was trained for rows that the mean of what was heard so far is taken out of, and
    how many utterances its prior, the training mean, counts as: above 0, `None` where it was not trained so.
    """

    length: int
    dim: int
    frontend: Mapping[str, Any]
    mean_prior: float | None = None


@dataclass(frozen=True)
class ModelEntry:
    """The model the graphs were exported from."""

    family: str
    preset: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        name: The bundle's name.
        version: Its version.
        model: Family, preset and configuration.
        labels: Emotions in the order of the logits.
        inputs: By modality.
        graphs: File of each lowering, `portable` and `plugin`.
        precision: `fp32`, `fp16` or `int8`.
        metrics: Measured accuracies, by protocol.
        provenance: Corpora, licences, tool versions, parity report, calibration.
        files: Every file of the bundle but the manifest.
        adaptation: What the bundle has learned of one user's voice; `None` where it is as it shipped.
        confidence: How far answers can be trusted on voices that were never heard; `None` where nobody measured it.
        recogniser: What hears the words, where the bundle brings it: `architecture` and its options.
    """

    name: str
    version: str
    model: ModelEntry
    labels: tuple[str, ...]
    inputs: Mapping[str, InputEntry]
    graphs: Mapping[str, str]
    precision: str = "fp32"
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    adaptation: AdaptationEntry | None = None
    confidence: Confidence | None = None
    recogniser: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        model = self.model
        _check(_are(str, model.family, model.preset) and _are(Mapping, model.config), f"model {model}")
        for what in ("name", "version"):
            _check_name(what, getattr(self, what), optional=what == "version")
        for what in ("family", "preset"):
            _check_name(f"the model's {what}", getattr(model, what))
        _check_labels(self.labels)
        _check(bool(self.inputs) and set(self.inputs) <= set(MODALITIES), f"inputs {list(self.inputs)}")
        for name, entry in self.inputs.items():
            _check_input(name, entry)
        _check(self.precision in PRECISIONS, f"precision {self.precision!r}")
        _check_files(self.files, self.graphs)
        _check_adaptation(self)
        _check_confidence(self)
        _check_recogniser(self)
        for what in ("metrics", "provenance"):
            _check_texts(what, getattr(self, what))
        licence = self.provenance.get("licence", "not stated")
        _check(_are(str, licence), f"licence {licence!r}, expected a text")
        _check_name("licence", licence, _MOST_LINE)

    @property
    def answers(self) -> tuple[str, ...]:
        """Emotions that the bundle answers: all of its labels, or the fewer that it was adapted to."""
        return self.labels if self.adaptation is None else self.adaptation.labels

    def to_json(self) -> bytes:
        """Return the one spelling of this manifest, sealed; a file with any other is not accepted.

        Raises:
            BundleError: It is longer than `MOST_BYTES`.
        """
        content = dataclasses.asdict(self)
        for entry in content["inputs"].values():
            if entry["mean_prior"] is None:
                del entry["mean_prior"]  # as it was spelled before there was any
        for name in ("adaptation", "confidence", "recogniser"):
            if content[name] is None:
                del content[name]
        schema = SCHEMA if self.adaptation is None else ADAPTED_SCHEMA
        raw = sealed_json({"schema": schema, **content})
        _check(len(raw) <= MOST_BYTES, f"{len(raw):,} bytes, expected at most {MOST_BYTES:,}")
        return raw

    def encoder_sha256(self, modality: str = "audio") -> str:
        """Return a hash of what a modality's standardised rows come from: its frontend, and the files of that."""
        folder = f"{FRONTENDS}{modality}/"
        files = {path: entry.sha256 for path, entry in self.files.items() if path.startswith(folder)}
        content = [dict(self.inputs[modality].frontend), self.inputs[modality].dim, files]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_json(cls, raw: bytes) -> Manifest:
        """Read and check a manifest.

        Raises:
            BundleError: Not JSON, another schema, a field missing, unknown or of the wrong kind.
        """
        try:
            content = json.loads(raw)
            _check(isinstance(content, dict), "expected an object")
            schema = content.pop("schema", None)
            _check(
                schema in (SCHEMA, ADAPTED_SCHEMA) and not isinstance(schema, bool),
                f"got schema {schema!r}, this EdgeSER reads {SCHEMA} and {ADAPTED_SCHEMA}: update one of them",
            )
            content.pop("seal", None)
            manifest = _manifest(content)
            sealed = manifest.to_json()
        except BundleError:
            raise
        except (ValueError, RecursionError) as error:
            raise BundleError(f"manifest.json: not readable as JSON: {_one_line(error)}") from error
        except (TypeError, AttributeError) as error:
            raise BundleError(f"manifest.json: a field is of the wrong kind: {_one_line(error)}") from error
        if sealed != raw:
            raise BundleError("manifest.json: edited by hand or damaged: export the bundle again")
        return manifest


def sealed_json(content: Mapping[str, Any]) -> bytes:
    """Write a manifest's content in its one spelling, with the hash of everything else in the field `seal`.

    The hashes of the files guard the files; the seal guards the manifest itself.
    """
    seal = hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return (json.dumps({**content, "seal": seal}, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _manifest(content: Mapping[str, Any]) -> Manifest:
    fields: dict[str, Any] = {name: _typed(content, name, dict) for name in ("graphs", "metrics", "provenance")}
    fields.update({name: _typed(content, name, str) for name in ("name", "version", "precision")})
    fields["labels"] = tuple(_typed(content, "labels", list))
    fields["model"] = ModelEntry(**_typed(content, "model", dict))
    fields["inputs"] = {n: InputEntry(**entry) for n, entry in _typed(content, "inputs", dict).items()}
    fields["files"] = {path: FileEntry(**entry) for path, entry in _typed(content, "files", dict).items()}
    if "adaptation" in content:
        fields["adaptation"] = AdaptationEntry.from_json(_typed(content, "adaptation", dict))
    if "confidence" in content:
        fields["confidence"] = Confidence.from_json(_typed(content, "confidence", dict))
    if "recogniser" in content:
        fields["recogniser"] = _typed(content, "recogniser", dict)
    unknown = sorted(set(content) - set(fields))
    _check(not unknown, f"unknown fields {', '.join(unknown)}")
    return Manifest(**fields)


def _typed(content: Mapping[str, Any], name: str, kind: type) -> Any:
    value = content.get(name)
    _check(isinstance(value, kind), f"{name} is {value!r:.60}, expected {kind.__name__}")
    return value


def _check_labels(labels: tuple[str, ...]) -> None:
    _check(_are(str, *labels), f"labels {list(labels)}")
    fits = 2 <= len(labels) <= _MOST_LABELS and len(set(labels)) == len(labels)
    _check(fits, f"labels {list(labels)!r:.100}: {len(labels)}, expected 2 to {_MOST_LABELS} different ones")
    for label in labels:
        _check_name("label", label)
        _check(label not in (NO_SPEECH, UNSURE), f"label {label!r}: that is the name of no emotion")


def _check_input(name: str, entry: InputEntry) -> None:
    whole = _are(int, entry.length, entry.dim) and _are(Mapping, entry.frontend)
    _check(whole, f"input {name}: {entry}")
    fits = entry.length >= 1 and entry.dim >= 1 and entry.length * entry.dim <= _MOST_VALUES
    _check(fits, f"input {name} of {entry.length} x {entry.dim}, expected 1 to {_MOST_VALUES:,} numbers")
    prior = entry.mean_prior
    if prior is not None:
        _check(name == "audio", f"input {name} has a mean_prior, which only audio may have")
        usable = isinstance(prior, float) and 0.0 < prior <= _MOST_PRIOR
        _check(usable, f"input {name}: mean_prior {prior!r:.60}, expected a float above 0, at most {_MOST_PRIOR:,.0f}")
    _check_texts(f"input {name}", entry.frontend)
    for option, value in entry.frontend.items():
        _check(
            not _are(str, value) or len(value) <= _MOST_LINE, f"input {name}: {option} has {len(str(value))} characters"
        )


def _check_files(files: Mapping[str, FileEntry], graphs: Mapping[str, str]) -> None:
    _check("portable" in graphs, "no portable graph")
    _check(set(graphs) <= set(_LOWERINGS), f"graphs {list(graphs)}, expected {' and '.join(_LOWERINGS)}")
    _check(len(files) <= _MOST_FILES, f"{len(files)} files, expected at most {_MOST_FILES}")
    for path in (*files, *graphs.values()):
        plain = isinstance(path, str) and len(path) <= _MOST_PATH and _PATH.fullmatch(path) is not None
        _check(plain, f"path {path!r:.60} is not a plain relative path of at most {_MOST_PATH} characters")
        _check(path != "manifest.json", "path 'manifest.json' is the manifest's own")
    for path in graphs.values():
        _check(path.endswith(GRAPH_SUFFIX), f"graph {path!r}, expected a name that ends with {GRAPH_SUFFIX}")
        _check(not files or path in files, f"graph {path!r} is not among the files")
    for path, file in files.items():
        typed = _are(str, file.sha256) and _are(int, file.bytes)
        _check(typed and _SHA256.fullmatch(file.sha256) is not None and file.bytes >= 0, f"file entry of {path!r}")
        most = _MOST_FILE_BYTES.get(PurePosixPath(path).suffix, _MOST_OTHER_BYTES)
        _check(file.bytes <= most, f"{path!r} of {file.bytes:,} bytes, expected at most {most:,}")


def _check_adaptation(manifest: Manifest) -> None:
    entry = manifest.adaptation
    if entry is None:
        _check(ADAPTATION not in manifest.files, f"file {ADAPTATION!r} without an adaptation")
        return
    ordered = [label for label in manifest.labels if label in entry.labels]
    some = f"expected some of {list(manifest.labels)}, in that order"
    _check(list(entry.labels) == ordered, f"adaptation to {list(entry.labels)}, {some}")
    _check("audio" in manifest.inputs, "an adaptation without an audio input")
    _check(not manifest.files or ADAPTATION in manifest.files, f"an adaptation, but no file {ADAPTATION!r}")
    _check_texts("adaptation", dataclasses.asdict(entry.source))


def _check_confidence(manifest: Manifest) -> None:
    confidence = manifest.confidence
    if confidence is None:
        return
    _check(manifest.adaptation is None, "confidence, but it was measured before the adaptation")
    audio = manifest.inputs.get("audio")
    is_trained = audio is not None and audio.mean_prior is not None
    states = list(confidence.states)
    _check((RUN in states) == is_trained, f"confidence of {states}, and {'a' if is_trained else 'no'} mean_prior")


def _check_recogniser(manifest: Manifest) -> None:
    entry = manifest.recogniser
    if entry is None:
        files = [path for path in manifest.files if path.startswith(RECOGNISER)]
        _check(not files, f"file {files[:1]} without a recogniser")
        return
    _check(_are(Mapping, entry) and _are(str, entry.get("architecture")), f"recogniser {entry!r:.60}")
    _check_texts("recogniser", entry)


def _check_name(what: str, name: str, most: int = _MOST_NAME, optional: bool = False) -> None:
    problem = name_problem(name, most)
    _check(problem is None or (optional and not name), f"{what} {problem}: {name!r:.60}")


def _check_texts(what: str, content: Any) -> None:
    """Check every text inside: names of fields as names, values for what no terminal and no file can take."""
    todo = [content]
    while todo:
        value = todo.pop()
        if isinstance(value, Mapping):
            for key in value:
                _check_name(f"{what}: name", str(key), _MOST_LINE)
            todo.extend(value.values())
        elif isinstance(value, (list, tuple)):
            todo.extend(value)
        elif isinstance(value, str) and not value.isprintable():
            bad = [character for character in value if not is_shown(character) and character not in "\n\t"]
            _check(not bad, f"{what}: {value!r:.60} has control characters")


def _are(kind: type, *values: Any) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def _check(good: bool, what: str) -> None:
    if not good:
        raise BundleError(f"manifest.json: {_one_line(what)}")


def _one_line(what: object) -> str:
    return " ".join(str(what).split())[:200]
