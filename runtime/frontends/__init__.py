"""Frontends: raw input to fixed-length feature rows, the same code for training and on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeser.runtime.errors import BundleError
from edgeser.runtime.frontends.base import (
    AudioFrontend,
    Features,
    Frontend,
    ReadFile,
    TextFrontend,
    Token,
    fit_length,
)
from edgeser.runtime.frontends.log_mel import LogMel
from edgeser.runtime.frontends.word_vectors import WordVectors

KINDS: Mapping[str, type[Frontend]] = {kind.kind: kind for kind in (LogMel, WordVectors)}

__all__ = [
    "KINDS",
    "AudioFrontend",
    "Features",
    "Frontend",
    "LogMel",
    "ReadFile",
    "TextFrontend",
    "Token",
    "WordVectors",
    "fit_length",
    "restore_frontend",
]


def restore_frontend(length: int, spec: Mapping[str, Any], read: ReadFile) -> Frontend:
    """Make the frontend that a bundle's manifest describes.

    Args:
        length: Rows the model gets.
        spec: The manifest's `frontend` object: `kind` and the kind's options.
        read: Gives the content of the frontend's files.

    Raises:
        BundleError: The kind is unknown, or its options or files are not usable.
    """
    kind = KINDS.get(str(spec.get("kind")))
    if kind is None:
        raise BundleError(f"frontend: got kind {spec.get('kind')!r}, expected one of {', '.join(KINDS)}")
    return kind.restore(length, spec, read)
