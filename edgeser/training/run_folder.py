"""The folder of a run: what it is, said by `run.json` from when work begins."""

from __future__ import annotations

import contextlib
import json
import platform
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from edgeser.runtime.errors import InputError
from edgeser.runtime.files import read_json, sync_path, writing
from edgeser.training.options import TrainOptions, differing

RUN = "run.json"
_FIELDS = {"options": dict, "left_out": list, "versions": dict}


@dataclass(frozen=True)
class Run:
    """What a run is.

    Attributes:
        options: What `TrainOptions.as_dict` gave when it began.
        left_out: Ids of the utterances that could not be used then.
        versions: Of the libraries that it began with.
    """

    options: dict[str, Any]
    left_out: frozenset[str] = frozenset()
    versions: dict[str, Any] = field(default_factory=dict)


def read_run(folder: Path) -> Run | None:
    """Return what a run's folder says that it is; `None` where there is none.

    Raises:
        InputError: What it says is damaged.
    """
    file = folder / RUN
    if not file.is_file():
        return None
    content = read_json(file, "delete the run's folder, or choose another")
    options, left_out, versions = (content.get(name, kind()) for name, kind in _FIELDS.items())
    kinds = [isinstance(content.get(name, kind()), kind) for name, kind in _FIELDS.items()]
    if not all(kinds) or not isinstance(options.get("recipe", {}), dict) or not _is_texts(left_out):
        raise InputError(f"{file}: is not what a run writes: delete the run's folder, or choose another")
    return Run(options, frozenset(left_out), versions)


def find_run(options: TrainOptions) -> Run | None:
    """Return the run that options would go on with, `None` for a new one.

    Raises:
        InputError: The folder holds a run with other options, or a damaged one.
    """
    run = read_run(options.out)
    different = [] if run is None else differing(run.options, options)
    if different:
        raise InputError(
            f"{options.out}: holds a run with other {', '.join(different)}: choose another --out, or delete it"
        )
    return run


def claim_run(options: TrainOptions, left_out: Collection[str]) -> None:
    """Make the run's folder, or check that what lies there is the same run; of several at once one makes it.

    Raises:
        InputError: The folder holds another run.
        EdgeSerError: It cannot be written.
    """
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": metadata.version("lightning"),
    }
    content = {"options": options.as_dict(), "left_out": sorted(left_out), "versions": versions}
    with writing(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        if _write_new(options.out / RUN, json.dumps(content, indent=2) + "\n"):
            return
    run = find_run(options)
    if run is None or run.left_out != frozenset(left_out):
        raise InputError(
            f"{options.out}: the run began with other utterances of this corpus than can be used now: bring its files "
            "back, or choose another --out"
        )


def _write_new(path: Path, text: str) -> bool:
    """Write a file, whole at once, unless it is there; return whether this process wrote it."""
    if path.is_file():
        return False
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_text(text, encoding="utf-8")
        sync_path(part)
        try:
            path.hardlink_to(part)
        except FileExistsError:
            return False
        except OSError:  # some file systems have no links; there the last one wins
            part.replace(path)
        sync_path(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return True


def _is_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
