"""The deployable file: graphs, frontends, golden vectors and a manifest that vouches for every byte."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path

from edgeser.runtime.adaptation import ADAPTATION, Adaptation
from edgeser.runtime.asr.whisper import WhisperAsr
from edgeser.runtime.bundle_files import SUFFIX, Files, open_files
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import BundleError
from edgeser.runtime.files import (
    check_file,
    check_folder,
    check_room,
    making,
    part_of,
    replacing,
    sync_path,
    writing,
)
from edgeser.runtime.frontends import AudioFrontend, Frontend, OpenGraph, restore_frontend
from edgeser.runtime.manifest import FRONTENDS, GRAPH_SUFFIX, MOST_BYTES, RECOGNISER, FileEntry, Manifest
from edgeser.runtime.names import escaped
from edgeser.runtime.onnx_wire import check_graph
from edgeser.runtime.stored_zip import write_zip
from edgeser.runtime.trust import PublicKey, Signature

MANIFEST = "manifest.json"
GOLDEN = "golden.safetensors"
CARD = "README.md"
MODEL = "model"
"""The part of a bundle that is the model's own graph."""
_BLOCK = 1 << 18


class Bundle:
    """An opened bundle. Nothing of it runs on loading, and only what the manifest declares is ever read.

    Attributes:
        path: The `.edgeser` file or folder.
        manifest: Its manifest, checked.
        sha256: Hash of the manifest, which holds the hash of every file: names this exact bundle.
        signature: Who signed it, where a trusted key was given.
    """

    signature: Signature | None = None

    def __init__(self, path: Path, manifest: Manifest, sha256: str, files: Files) -> None:
        self.path = path
        self.manifest = manifest
        self.sha256 = sha256
        self._files = files

    @classmethod
    def open(cls, path: str | os.PathLike[str], trusted: str | os.PathLike[str] | None = None) -> Bundle:
        """Open a bundle and verify every declared file's size and SHA-256.

        Args:
            path: A `.edgeser` file or folder.
            trusted: minisign's public key, or its file, that the bundle must be signed with.

        Raises:
            BundleError: Missing, damaged, incomplete, or of another schema; or not signed with that key.
            InputError: `trusted` is no key.
            MissingDependencyError: cryptography is not installed, and a key is given.
        """
        place = Path(path)
        key = None if trusted is None else PublicKey.read(trusted)
        files = open_files(place)
        try:
            raw = _manifest_of(files)
            signature = None if key is None else key.check(*files.signed(MANIFEST, raw))
            bundle = cls(place, Manifest.from_json(raw), hashlib.sha256(raw).hexdigest(), files)
            undeclared = sorted(files.names() - {MANIFEST, *bundle.manifest.files})
            if undeclared:
                raise BundleError(f"{escaped(', '.join(undeclared)):.200}: in the bundle, but not in its manifest")
            for name in bundle.manifest.files:
                bundle._verify(name)
            bundle.signature = signature
        except BundleError as error:
            raise BundleError(f"{place}: {error}") from error
        return bundle

    def read(self, name: str) -> bytes:
        """Return a declared file's content, verified; a graph has all its data inside.

        Raises:
            BundleError: Not declared, missing, or not what the manifest says.
        """
        with self._opened(name) as (file, entry):
            content = file.read(entry.bytes)
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise _damaged(name)
        if name.endswith(GRAPH_SUFFIX):
            try:
                check_graph(content)
            except BundleError as error:
                raise BundleError(f"{name}: {error}") from error
        return content

    def _verify(self, name: str) -> None:
        """Check a declared file, a block at a time."""
        with self._opened(name) as (file, entry):
            digest, left, buffer = hashlib.sha256(), entry.bytes, memoryview(bytearray(min(_BLOCK, entry.bytes)))
            while left and (count := file.readinto(buffer[:left])):
                digest.update(buffer[:count])
                left -= count
        if left or digest.hexdigest() != entry.sha256:
            raise _damaged(name)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[tuple[BufferedReader, FileEntry]]:
        """Open a declared file that has its declared size."""
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{name}: the manifest declares no such file")
        with self._files.opened(name) as (file, size):
            if size != entry.bytes:
                raise _damaged(name)
            yield file, entry

    def graphs(self) -> dict[str, str]:
        """Return the file of each graph by the name of its part.

        Encoders are named by their modality, the recogniser's graphs `recogniser/...`, and the model's portable one is
        `MODEL`.
        """
        parts = {}
        for path in self.manifest.files:
            folder, _, name = path.rpartition("/")
            if path.startswith(FRONTENDS) and name.endswith(GRAPH_SUFFIX):
                parts[folder.removeprefix(FRONTENDS)] = path
            elif path.startswith(RECOGNISER) and name.endswith(GRAPH_SUFFIX):
                parts[path.removesuffix(GRAPH_SUFFIX)] = path
        return {**parts, MODEL: self.manifest.graphs["portable"]}

    def graph(self, lowering: str = "portable") -> bytes:
        """Return the ONNX graph of a lowering, `portable` or `plugin`."""
        if lowering not in self.manifest.graphs:
            raise BundleError(f"{self.path}: has no {lowering} graph, only {', '.join(self.manifest.graphs)}")
        try:
            return self.read(self.manifest.graphs[lowering])
        except BundleError as error:
            raise BundleError(f"{self.path}: {error}") from error

    def frontend(self, modality: str, open_graph: OpenGraph = open_engine) -> Frontend:
        """Return the frontend of a modality, ready to use; `open_graph` opens an encoder's graph."""
        entry = self.manifest.inputs.get(modality)
        if entry is None:
            raise BundleError(f"{self.path}: takes {', '.join(self.manifest.inputs)}, no {modality}")
        folder = f"{FRONTENDS}{modality}/"
        try:
            frontend = restore_frontend(entry.length, entry.frontend, lambda name: self.read(folder + name), open_graph)
        except BundleError as error:
            raise BundleError(f"{self.path}: {modality}: {error}") from error
        if frontend.dim != entry.dim:
            frontend.close()
            raise BundleError(f"{self.path}: {modality} is {entry.dim} wide, its frontend gives {frontend.dim}")
        return frontend

    def recogniser(self, frontends: Mapping[str, Frontend], open_graph: OpenGraph = open_engine) -> WhisperAsr | None:
        """Return what hears the words, ready to use; `None` where the bundle brings nothing that does.

        Args:
            frontends: The bundle's own, opened: their speech encoder is heard too where the recogniser brings none.
            open_graph: Opens a graph.
        """
        description = self.manifest.recogniser
        if description is None:
            return None
        audio = frontends.get("audio")
        try:
            return WhisperAsr(
                description,
                lambda name: self.read(RECOGNISER + name),
                open_graph,
                audio if isinstance(audio, AudioFrontend) else None,
            )
        except BundleError as error:
            raise BundleError(f"{self.path}: {error}") from error

    def adaptation(self) -> Adaptation | None:
        """Return what corrects the graph's logits for one user's voice; `None` where the bundle was not adapted."""
        entry = self.manifest.adaptation
        if entry is None:
            return None
        try:
            found = Adaptation.from_bytes(self.read(ADAPTATION), entry, self.manifest.labels)
        except BundleError as error:
            raise BundleError(f"{self.path}: {error}") from error
        audio = self.manifest.inputs["audio"]
        if found.dim != audio.dim:
            raise BundleError(f"{self.path}: {ADAPTATION}: weights for rows {found.dim} wide, expected {audio.dim}")
        if found.heard is not None and audio.mean_prior is None:
            raise BundleError(f"{self.path}: {ADAPTATION}: a mean to take out of rows, but the input has no mean_prior")
        return found


def frontend_files(modality: str, frontend: Frontend) -> dict[str, bytes]:
    """Return a frontend's files under their names in a bundle."""
    return {f"{FRONTENDS}{modality}/{name}": content for name, content in frontend.files().items()}


def write_bundle(path: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle, as a zip or, where `path` has no `.edgeser` suffix, as a folder; whole or not at all.

    Args:
        path: Where to; a bundle that is there is replaced.
        manifest: Its `files` are filled in here.
        files: Content of every file but the manifest, by path in the bundle.

    Returns:
        The bundle, opened again from what was written.

    Raises:
        BundleError: The manifest's limits are not kept, or there is something else in that place.
        InputError: It cannot be written there.
        EdgeSerError: It cannot be written, for want of room for example.
    """
    place = Path(path)
    missing = sorted(set(manifest.graphs.values()) - set(files))
    if missing:
        raise BundleError(f"{place}: graph {missing[0]!r} is not among the files")
    entries = {name: FileEntry(hashlib.sha256(c).hexdigest(), len(c)) for name, c in sorted(files.items())}
    whole = dataclasses.replace(manifest, files=entries)
    ordered = [(MANIFEST, whole.to_json()), *((name, files[name]) for name in entries)]
    check_room(place, sum(len(content) for _, content in ordered))
    if _is_zip(place):
        with replacing(place) as part:
            write_zip(part, ordered)
    else:
        _write_folder(place, ordered)
    return Bundle.open(place)


def check_bundle_place(place: Path) -> None:
    """Find out, before the work is done, whether a bundle can be written to a place.

    Raises:
        InputError: It cannot.
        BundleError: What lies there is no bundle.
    """
    if _is_zip(place):
        check_file(place)
    else:
        check_folder(place, "keep the bundle in")
        if place.exists() and not (place / MANIFEST).is_file():
            raise BundleError(f"{place}: exists and is no bundle: choose another place")


def _is_zip(place: Path) -> bool:
    return place.suffix == SUFFIX and not place.is_dir()


def _write_folder(place: Path, files: list[tuple[str, bytes]]) -> None:
    if place.exists() and not (place / MANIFEST).is_file():
        raise BundleError(f"{place}: exists and is no bundle: choose another place")
    part = part_of(place)
    old = part.with_suffix(".old")
    with writing(place), making(place.parent), _swept(part, old):
        for name, content in files:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
            sync_path(part / name)
        if place.exists():
            place.rename(old)
        try:
            part.rename(place)
        except OSError:
            if old.exists():
                old.rename(place)
            raise
        sync_path(place.parent)


@contextlib.contextmanager
def _swept(*folders: Path) -> Iterator[None]:
    """Remove folders when the block ends, however it does."""
    try:
        yield
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _manifest_of(files: Files) -> bytes:
    with files.opened(MANIFEST) as (file, size):
        if size > MOST_BYTES:
            raise BundleError(f"{MANIFEST}: {size:,} bytes, expected at most {MOST_BYTES:,}")
        return file.read(size)


def _damaged(name: str) -> BundleError:
    return BundleError(f"{name}: damaged: size or SHA-256 is not what the manifest says: fetch the bundle again")
