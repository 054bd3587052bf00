"""Corpora: named readers that yield utterances, and the splits the papers use."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeser.corpora.emodb import is_emodb, read_emodb
from edgeser.corpora.iemocap import is_iemocap, read_iemocap
from edgeser.corpora.lssed import is_lssed, read_lssed
from edgeser.corpora.manifest import read_manifest
from edgeser.corpora.meld import is_meld, read_meld
from edgeser.corpora.ravdess import is_ravdess, read_ravdess
from edgeser.corpora.selection import Condition, check_columns, parse_conditions
from edgeser.corpora.splits import PROTOCOLS, Fold, leave_one_session_out, make_folds
from edgeser.corpora.utterance import TEST_ONLY, Utterance
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

Spec = str | Sequence[str]
"""One corpus, or several that are read as one: `manifest:a.csv`, `["manifest:a.csv", "ravdess:DIR?speaker!=01"]`."""

_COLUMNS = tuple(field.name for field in dataclasses.fields(Utterance) if field.name != "role")  # a manifest's alone
_KEPT = f"{TEST_ONLY}:"

__all__ = [
    "PROTOCOLS",
    "READERS",
    "Fold",
    "Spec",
    "Utterance",
    "as_spec",
    "as_test_only",
    "corpus_identity",
    "corpus_text",
    "leave_one_session_out",
    "make_folds",
    "read_corpus",
    "recognise_corpus",
    "spec_list",
]


def read_corpus(spec: Spec) -> list[Utterance]:
    """Read whole corpora, each named as `reader:path`, for example `manifest:corpus.csv` or `iemocap:~/IEMOCAP`.

    `?column=value` behind the path chooses rows, `?column!=value` leaves them out: of a manifest by any column, of
    other readers by what an `Utterance` has. `test:` before the reader: all of it may only be tested on.

    Raises:
        InputError: A reader or column is unknown, a corpus is empty or not readable, or two have an id in common.
    """
    several = [_read_one(one) for one in spec_list(spec)]
    origin: dict[str, str] = {}
    for name, utterances in zip(spec_list(spec), several, strict=True):
        for utterance in utterances:
            if utterance.id in origin:
                raise InputError(
                    f"corpus: id {utterance.id!r} stands in {origin[utterance.id]} and in {name}, expected different "
                    "ones: name each corpus once, or rename the ids of a manifest"
                )
        origin |= {utterance.id: name for utterance in utterances}
    return [utterance for utterances in several for utterance in utterances]


def spec_list(spec: Spec) -> list[str]:
    """Return the corpora of a spec, one by one.

    Raises:
        InputError: There are none.
    """
    several = [spec] if isinstance(spec, str) else list(spec)
    if not several:
        raise InputError(f"corpus: got an empty list, expected one or more of {_specs()}")
    return several


def as_test_only(spec: str) -> str:
    """Return the spec of the same corpus, to be tested on alone: no protocol trains on it."""
    return spec if spec.startswith(_KEPT) else f"{_KEPT}{spec}"


def as_spec(spec: Spec) -> str | tuple[str, ...]:
    """Return a spec in its plainest form: one corpus as text, several as a tuple."""
    several = tuple(spec_list(spec))
    return several[0] if len(several) == 1 else several


def corpus_text(spec: Spec) -> str:
    """Return a spec for people."""
    return ", ".join(spec_list(spec))


def corpus_identity(spec: Spec) -> dict[str, Any]:
    """Name a corpus by reader, file name, what was chosen and content, not by where it lies on this machine.

    Several have their names together, and each its own identity as `corpora`.
    """
    first, *others = spec_list(spec)
    reader, path, query = _parse(first)
    if others:
        names = [f"{_name(path)}{'?' if query else ''}{query}" for _, path, query in map(_parse, spec)]
        return {"name": ", ".join(names), "corpora": [corpus_identity(one) for one in spec]}
    identity = {"reader": reader, "name": path.name}
    if query:
        identity["where"] = query
    if first.startswith(_KEPT):
        identity["role"] = TEST_ONLY
    if path.is_file():
        identity["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return identity


def recognise_corpus(name: str) -> str:
    """Return the `reader:path` of a corpus given by its path alone; a name that has a reader comes back as it is.

    Raises:
        InputError: The path's layout is that of no corpus.
    """
    if name.startswith(_KEPT):
        return as_test_only(recognise_corpus(name.removeprefix(_KEPT)))
    if name.partition(":")[0] in READERS or not name:
        return name
    path, _ = _chosen(name)
    if path.is_file() and path.suffix.lower() == ".csv":
        return f"manifest:{name}"
    if not path.is_dir():
        return name
    for reader, is_layout in _LAYOUTS.items():
        if is_layout(path):
            return f"{reader}:{name}"
    raise InputError(f"corpus: {name} is laid out as none that is known: say which one it is, {_specs()}")


def _read_one(spec: str) -> list[Utterance]:
    reader, path, query = _parse(spec)
    where = parse_conditions(query)
    if reader == "manifest":
        utterances = list(read_manifest(path, where))
    else:
        check_columns(where, _COLUMNS, f"{reader}:{path}")
        named = (_named(utterance, reader) for utterance in READERS[reader](path))
        utterances = [utterance for utterance in named if _holds(where, utterance)]
    if not utterances:
        raise InputError(f"corpus: {path} holds no utterances{f' with {query}' if query else ''}")
    known = [_named(utterance, _name(path)) for utterance in utterances]
    return [dataclasses.replace(u, role=TEST_ONLY) for u in known] if spec.startswith(_KEPT) else known


def _name(path: Path) -> str:
    """Return the name of what lies at a path: a file's own, unless it is one that every corpus's manifest has."""
    return path.absolute().parent.name if path.stem.lower() == "manifest" else path.stem


def _named(utterance: Utterance, corpus: str) -> Utterance:
    return utterance if utterance.corpus else dataclasses.replace(utterance, corpus=corpus)


def _holds(where: Sequence[Condition], utterance: Utterance) -> bool:
    row = {name: str(value) for name in _COLUMNS if (value := getattr(utterance, name)) is not None}
    return all(condition.holds(row) for condition in where)


def _parse(spec: str) -> tuple[str, Path, str]:
    """Return reader, path and what rows are chosen by."""
    reader, _, name = spec.removeprefix(_KEPT).partition(":")
    if not name or reader not in READERS:
        raise InputError(f"corpus: got {spec!r}, expected {_specs()}")
    return reader, *_chosen(name)


def _chosen(name: str) -> tuple[Path, str]:
    """Split what rows are chosen by off a path; a path that exists with its question mark is all path."""
    whole = expand_user(name, "corpus")
    path, _, query = name.rpartition("?") if "?" in name and not whole.exists() else (name, "", "")
    return expand_user(path, "corpus"), query


def _specs() -> str:
    *others, last = (f"{name}:PATH" for name in READERS)
    return f"{', '.join(others)} or {last}"
