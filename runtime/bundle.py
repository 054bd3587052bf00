"""The deployable file: graphs, frontends, golden vectors and a manifest that vouches for every byte."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import BundleError
from edgeser.runtime.files import part_of, replacing
from edgeser.runtime.frontends import Frontend, OpenGraph, ReadFile, restore_frontend
from edgeser.runtime.manifest import FileEntry, Manifest
from edgeser.runtime.stored_zip import Entry, open_zip, read_entry, write_zip

SUFFIX = ".edgeser"
MANIFEST = "manifest.json"
GOLDEN = "golden.safetensors"
CARD = "README.md"


class Bundle:
    """An opened bundle. Nothing of it runs on loading, and only what the manifest declares is ever read.

    Attributes:
        path: The `.edgeser` file or folder.
        manifest: Its manifest, checked.
        sha256: Hash of the manifest, which holds the hash of every file: names this exact bundle.
    """

    def __init__(self, path: Path, manifest: Manifest, sha256: str, read: ReadFile) -> None:
        self.path = path
        self.manifest = manifest
        self.sha256 = sha256
        self._read = read

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle and verify every declared file's size and SHA-256.

        Raises:
            BundleError: Missing, damaged, incomplete, or of another schema.
        """
        place = Path(path)
        entries: Mapping[str, Entry] = {}
        if place.is_dir():
            read = _folder_reader(place)
        elif place.is_file():
            entries = open_zip(place)
            read = _zip_reader(place, entries)
        else:
            raise BundleError(f"{place}: no such bundle: expected a {SUFFIX} file or folder")
        try:
            raw = read(MANIFEST)
            bundle = cls(place, Manifest.from_json(raw), hashlib.sha256(raw).hexdigest(), read)
            # A folder may hold other files (an editor's, a file manager's); they are never read.
            undeclared = sorted(set(entries) - {MANIFEST, *bundle.manifest.files})
            if undeclared:
                raise BundleError(f"{', '.join(undeclared)}: in the bundle, but not in its manifest")
            for name in bundle.manifest.files:
                bundle.read(name)
        except BundleError as error:
            raise BundleError(f"{place}: {error}") from error
        return bundle

    def read(self, name: str) -> bytes:
        """Return a declared file's content, verified.

        Raises:
            BundleError: Not declared, missing, or not what the manifest says.
        """
        expected = self.manifest.files.get(name)
        if expected is None:
            raise BundleError(f"{name}: the manifest declares no such file")
        content = self._read(name)
        if len(content) != expected.bytes or hashlib.sha256(content).hexdigest() != expected.sha256:
            raise BundleError(f"{name}: damaged: size or SHA-256 is not what the manifest says: fetch the bundle again")
        return content

    def graph(self, lowering: str = "portable") -> bytes:
        """Return the ONNX graph of a lowering, `portable` or `plugin`."""
        if lowering not in self.manifest.graphs:
            raise BundleError(f"{self.path}: has no {lowering} graph, only {', '.join(self.manifest.graphs)}")
        return self.read(self.manifest.graphs[lowering])

    def frontend(self, modality: str, open_graph: OpenGraph = open_engine) -> Frontend:
        """Return the frontend of a modality, ready to use; `open_graph` opens an encoder's graph."""
        entry = self.manifest.inputs.get(modality)
        if entry is None:
            raise BundleError(f"{self.path}: takes {', '.join(self.manifest.inputs)}, no {modality}")
        folder = f"frontends/{modality}/"
        frontend = restore_frontend(entry.length, entry.frontend, lambda name: self.read(folder + name), open_graph)
        if frontend.dim != entry.dim:
            raise BundleError(f"{self.path}: {modality} is {entry.dim} wide, its frontend gives {frontend.dim}")
        return frontend


def frontend_files(modality: str, frontend: Frontend) -> dict[str, bytes]:
    """Return a frontend's files under their names in a bundle."""
    return {f"frontends/{modality}/{name}": content for name, content in frontend.files().items()}


def write_bundle(path: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle, as a zip or, where `path` has no `.edgeser` suffix, as a folder; whole or not at all.

    Args:
        path: Where to; a bundle that is there is replaced.
        manifest: Its `files` are filled in here.
        files: Content of every file but the manifest, by path in the bundle.

    Returns:
        The bundle, opened again from what was written.
    """
    place = Path(path)
    missing = sorted(set(manifest.graphs.values()) - set(files))
    if missing:
        raise BundleError(f"{place}: graph {missing[0]!r} is not among the files")
    entries = {name: FileEntry(hashlib.sha256(c).hexdigest(), len(c)) for name, c in sorted(files.items())}
    whole = dataclasses.replace(manifest, files=entries)
    ordered = [(MANIFEST, whole.to_json()), *((name, files[name]) for name in entries)]
    if place.suffix == SUFFIX and not place.is_dir():
        with replacing(place) as part:
            write_zip(part, ordered)
    else:
        _write_folder(place, ordered)
    return Bundle.open(place)


def _write_folder(place: Path, files: list[tuple[str, bytes]]) -> None:
    if place.exists() and not (place / MANIFEST).is_file():
        raise BundleError(f"{place}: exists and is no bundle: choose another place")
    part = part_of(place)
    old = part.with_suffix(".old")
    try:
        for name, content in files:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
        if place.exists():
            place.rename(old)
        try:
            part.rename(place)
        except OSError:
            if old.exists():
                old.rename(place)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _folder_reader(folder: Path) -> ReadFile:
    root = folder.resolve()

    def read(name: str) -> bytes:
        file = (folder / name).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            raise BundleError(f"{name}: missing from the bundle")
        return file.read_bytes()

    return read


def _zip_reader(path: Path, entries: Mapping[str, Entry]) -> ReadFile:
    def read(name: str) -> bytes:
        if name not in entries:
            raise BundleError(f"{name}: missing from the bundle")
        with path.open("rb") as file:
            return read_entry(file, entries[name])

    return read
