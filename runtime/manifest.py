"""A bundle's manifest: what a model is, takes, gives and comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeser.runtime.errors import BundleError

SCHEMA = 1
MODALITIES = ("audio", "text", "phonemes", "sentence")
"""What a model may take; all but `audio` come from the transcript."""

PRECISIONS = ("fp32", "fp16", "int8")
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """What a declared file must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class InputEntry:
    """One modality: rows, their width, and the frontend that makes them (`kind` and its options)."""

    length: int
    dim: int
    frontend: Mapping[str, Any]


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

    def __post_init__(self) -> None:
        _check(bool(self.name), "name is empty")
        model = self.model
        _check(_are(str, model.family, model.preset) and _are(Mapping, model.config), f"model {model}")
        _check(_are(str, *self.labels), f"labels {list(self.labels)}")
        _check(len(self.labels) >= 2 and len(set(self.labels)) == len(self.labels), f"labels {list(self.labels)}")
        _check(bool(self.inputs) and set(self.inputs) <= set(MODALITIES), f"inputs {list(self.inputs)}")
        for name, entry in self.inputs.items():
            whole = _are(int, entry.length, entry.dim) and _are(Mapping, entry.frontend)
            _check(whole, f"input {name}: {entry}")
            _check(entry.length >= 1 and entry.dim >= 1, f"input {name} of {entry.length} x {entry.dim}")
        _check("portable" in self.graphs, "no portable graph")
        _check(self.precision in PRECISIONS, f"precision {self.precision!r}")
        for path in (*self.files, *self.graphs.values()):
            plain = isinstance(path, str) and _PATH.fullmatch(path) is not None
            _check(plain, f"path {path!r} is not a plain relative path")
            _check(path != "manifest.json", "path 'manifest.json' is the manifest's own")
        for path in self.graphs.values():
            _check(not self.files or path in self.files, f"graph {path!r} is not among the files")
        for path, file in self.files.items():
            typed = _are(str, file.sha256) and _are(int, file.bytes)
            _check(typed and _SHA256.fullmatch(file.sha256) is not None and file.bytes >= 0, f"file entry of {path!r}")

    def to_json(self) -> bytes:
        """Return the one spelling of this manifest, sealed; a file with any other is not accepted."""
        return sealed_json({"schema": SCHEMA, **dataclasses.asdict(self)})

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
                schema == SCHEMA and not isinstance(schema, bool),
                f"got schema {schema!r}, this EdgeSER reads {SCHEMA}: update one of them",
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
    unknown = sorted(set(content) - set(fields))
    _check(not unknown, f"unknown fields {', '.join(unknown)}")
    return Manifest(**fields)


def _typed(content: Mapping[str, Any], name: str, kind: type) -> Any:
    value = content.get(name)
    _check(isinstance(value, kind), f"{name} is {value!r:.60}, expected {kind.__name__}")
    return value


def _are(kind: type, *values: Any) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def _check(good: bool, what: str) -> None:
    if not good:
        raise BundleError(f"manifest.json: {_one_line(what)}")


def _one_line(what: object) -> str:
    return " ".join(str(what).split())[:200]
