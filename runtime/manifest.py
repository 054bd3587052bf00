"""A bundle's manifest: what a model is, takes, gives and comes from."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeser.runtime.errors import BundleError

SCHEMA = 1
MODALITIES = ("audio", "text")
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
        _check(len(self.labels) >= 2 and len(set(self.labels)) == len(self.labels), f"labels {list(self.labels)}")
        _check(bool(self.inputs) and set(self.inputs) <= set(MODALITIES), f"inputs {list(self.inputs)}")
        for name, entry in self.inputs.items():
            _check(entry.length >= 1 and entry.dim >= 1, f"input {name} of {entry.length} x {entry.dim}")
        _check("portable" in self.graphs, "no portable graph")
        _check(self.precision in PRECISIONS, f"precision {self.precision!r}")
        for path in (*self.files, *self.graphs.values()):
            _check(_PATH.fullmatch(path) is not None, f"path {path!r} is not a plain relative path")
        for path in self.graphs.values():
            _check(not self.files or path in self.files, f"graph {path!r} is not among the files")
        for path, file in self.files.items():
            _check(_SHA256.fullmatch(file.sha256) is not None and file.bytes >= 0, f"file entry of {path!r}")

    def to_json(self) -> bytes:
        """Return the one spelling of this manifest; a file with any other is not accepted."""
        content = {"schema": SCHEMA, **dataclasses.asdict(self)}
        return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Manifest:
        """Read and check a manifest.

        Raises:
            BundleError: Not JSON, another schema, a field missing, unknown or of the wrong kind.
        """
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"manifest.json: not readable as JSON: {error}") from error
        if not isinstance(content, dict):
            raise BundleError("manifest.json: expected an object")
        schema = content.pop("schema", None)
        if schema != SCHEMA or isinstance(schema, bool):
            raise BundleError(f"manifest.json: got schema {schema!r}, this EdgeSER reads {SCHEMA}: update one of them")
        manifest = _manifest(content)
        if manifest.to_json() != raw:
            raise BundleError("manifest.json: edited by hand or damaged: export the bundle again")
        return manifest


def _manifest(content: Mapping[str, Any]) -> Manifest:
    try:
        fields: dict[str, Any] = {name: _typed(content, name, dict) for name in ("graphs", "metrics", "provenance")}
        fields.update({name: _typed(content, name, str) for name in ("name", "version", "precision")})
        fields["labels"] = tuple(map(str, _typed(content, "labels", list)))
        fields["model"] = ModelEntry(**_typed(content, "model", dict))
        fields["inputs"] = {n: InputEntry(**entry) for n, entry in _typed(content, "inputs", dict).items()}
        fields["files"] = {path: FileEntry(**entry) for path, entry in _typed(content, "files", dict).items()}
        unknown = sorted(set(content) - set(fields))
        _check(not unknown, f"unknown fields {', '.join(unknown)}")
        return Manifest(**fields)
    except (TypeError, AttributeError) as error:
        raise BundleError(f"manifest.json: a field is of the wrong kind: {error}") from error


def _typed(content: Mapping[str, Any], name: str, kind: type) -> Any:
    value = content.get(name)
    _check(isinstance(value, kind), f"{name} is {value!r:.60}, expected {kind.__name__}")
    return value


def _check(good: bool, what: str) -> None:
    if not good:
        raise BundleError(f"manifest.json: {what}")
