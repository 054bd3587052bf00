"""Corpora: named readers that yield utterances, and the splits the papers use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edgeser.corpora.iemocap import read_iemocap
from edgeser.corpora.manifest import read_manifest
from edgeser.corpora.splits import Fold, leave_one_session_out, train_on_all
from edgeser.corpora.utterance import Utterance
from edgeser.runtime.errors import InputError

Reader = Callable[[Path], Iterator[Utterance]]

READERS: Mapping[str, Reader] = {"manifest": read_manifest, "iemocap": read_iemocap}
"""What stands before the colon of a corpus's name; the path behind it goes to the reader."""

__all__ = [
    "READERS",
    "Fold",
    "Utterance",
    "corpus_identity",
    "leave_one_session_out",
    "read_corpus",
    "train_on_all",
]


def read_corpus(spec: str) -> list[Utterance]:
    """Read a whole corpus named as `reader:path`, for example `manifest:corpus.csv` or `iemocap:IEMOCAP_full_release`.

    Raises:
        InputError: The reader is unknown, or the corpus is empty or not readable.
    """
    reader, _, path = spec.partition(":")
    if not path or reader not in READERS:
        raise InputError(f"corpus: got {spec!r}, expected {' or '.join(f'{name}:PATH' for name in READERS)}")
    utterances = list(READERS[reader](Path(path)))
    if not utterances:
        raise InputError(f"corpus: {path} holds no utterances")
    return utterances


def corpus_identity(spec: str) -> dict[str, str]:
    """Name a corpus by reader, file name and content, not by where it lies on this machine."""
    reader, _, path = spec.partition(":")
    identity = {"reader": reader, "name": Path(path).name}
    if Path(path).is_file():
        identity["sha256"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return identity
