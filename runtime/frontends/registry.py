"""Every kind of frontend, by the name that manifests use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import BundleError
from edgeser.runtime.frontends.base import Frontend, OpenGraph, ReadFile
from edgeser.runtime.frontends.log_mel import LogMel
from edgeser.runtime.frontends.onnx_encoder import KIND, restore_encoder
from edgeser.runtime.frontends.phonemes import Phonemes
from edgeser.runtime.frontends.word_vectors import WordVectors

KINDS: Mapping[str, Callable[[int, Mapping[str, Any], ReadFile, OpenGraph], Frontend]] = {
    LogMel.kind: LogMel.restore,
    WordVectors.kind: WordVectors.restore,
    KIND: restore_encoder,
    Phonemes.kind: Phonemes.restore,
}


def restore_frontend(
    length: int, spec: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph = open_engine
) -> Frontend:
    """Make the frontend that a bundle's manifest describes.

    Args:
        length: Rows the model gets.
        spec: The manifest's `frontend` object: `kind` and the kind's options.
        read: Gives the content of the frontend's files.
        open_graph: Opens an encoder's graph.

    Raises:
        BundleError: The kind is unknown, or its options or files are not usable.
        EngineError: The engine refuses an encoder's graph.
    """
    restore = KINDS.get(str(spec.get("kind")))
    if restore is None:
        raise BundleError(f"frontend: got kind {spec.get('kind')!r}, expected one of {', '.join(KINDS)}")
    return restore(length, spec, read, open_graph)
