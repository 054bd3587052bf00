"""Corpora: named readers that yield utterances, and the splits the papers use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edgeser.corpora.emodb import is_emodb, read_emodb
from edgeser.corpora.iemocap import is_iemocap, read_iemocap
from edgeser.corpora.lssed import is_lssed, read_lssed
from edgeser.corpora.manifest import read_manifest
from edgeser.corpora.meld import is_meld, read_meld
from edgeser.corpora.ravdess import is_ravdess, read_ravdess
from edgeser.corpora.splits import PROTOCOLS, Fold, leave_one_session_out, make_folds
from edgeser.corpora.utterance import Utterance
from edgeser.runtime.caches import expand_user
from edgeser.runtime.errors import InputError

Reader = Callable[[Path], Iterator[Utterance]]

READERS: Mapping[str, Reader] = {
    "manifest": read_manifest,
    "iemocap": read_iemocap,
    "meld": read_meld,
    "lssed": read_lssed,
    "ravdess": read_ravdess,
    "emodb": read_emodb,
}
"""What stands before the colon of a corpus's name; the path behind it goes to the reader."""

# Those that only look at names in the folder itself go first.
_LAYOUTS: Mapping[str, Callable[[Path], bool]] = {
    "iemocap": is_iemocap,
    "lssed": is_lssed,
    "meld": is_meld,
    "ravdess": is_ravdess,
    "emodb": is_emodb,
}

__all__ = [
    "PROTOCOLS",
    "READERS",
    "Fold",
    "Utterance",
    "corpus_identity",
    "leave_one_session_out",
    "make_folds",
    "read_corpus",
    "recognise_corpus",
]


def read_corpus(spec: str) -> list[Utterance]:
    """Read a whole corpus named as `reader:path`, for example `manifest:corpus.csv` or `iemocap:~/IEMOCAP`.

    Raises:
        InputError: The reader is unknown, or the corpus is empty or not readable.
    """
    reader, path = _parse(spec)
    utterances = list(READERS[reader](path))
    if not utterances:
        raise InputError(f"corpus: {path} holds no utterances")
    return utterances


def corpus_identity(spec: str) -> dict[str, str]:
    """Name a corpus by reader, file name and content, not by where it lies on this machine."""
    reader, path = _parse(spec)
    identity = {"reader": reader, "name": path.name}
    if path.is_file():
        identity["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return identity


def recognise_corpus(name: str) -> str:
    """Return the `reader:path` of a corpus given by its path alone; a name that has a reader comes back as it is.

    Raises:
        InputError: The path's layout is that of no corpus.
    """
    if name.partition(":")[0] in READERS or not name:
        return name
    path = expand_user(name, "corpus")
    if path.is_file() and path.suffix.lower() == ".csv":
        return f"manifest:{name}"
    if not path.is_dir():
        return name
    for reader, is_layout in _LAYOUTS.items():
        if is_layout(path):
            return f"{reader}:{name}"
    raise InputError(f"corpus: {name} is laid out as none that is known: say which one it is, {_specs()}")


def _parse(spec: str) -> tuple[str, Path]:
    reader, _, path = spec.partition(":")
    if not path or reader not in READERS:
        raise InputError(f"corpus: got {spec!r}, expected {_specs()}")
    return reader, expand_user(path, "corpus")


def _specs() -> str:
    *others, last = (f"{name}:PATH" for name in READERS)
    return f"{', '.join(others)} or {last}"
