"""A frontend as a folder: `frontend.json` and the frontend's own files."""

from __future__ import annotations

import json
from pathlib import Path

from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.files import write_together
from edgeser.runtime.frontends.base import Frontend, OpenGraph
from edgeser.runtime.frontends.registry import restore_frontend
from edgeser.runtime.onnx_wire import check_graph

_DESCRIPTION = "frontend.json"


def write_frontend(folder: Path, frontend: Frontend) -> None:
    """Write a frontend, whole or not at all; the description comes last, so a folder that has one is whole.

    Raises:
        InputError: The folder cannot be made or written to.
        EdgeSerError: There is no room for it; an older frontend stays.
    """
    description = {"kind": frontend.kind, "length": frontend.length, **frontend.options()}
    text = json.dumps(description, indent=2) + "\n"
    write_together(folder, {**frontend.files(), _DESCRIPTION: text.encode()})


def read_frontend(folder: Path, open_graph: OpenGraph = open_engine) -> Frontend:
    """Read what `write_frontend` wrote.

    Raises:
        InputError: The folder holds no frontend.
        BundleError: Its description or files are not usable.
    """
    file = folder / _DESCRIPTION
    if not file.is_file():
        raise InputError(f"{folder}: holds no frontend ({_DESCRIPTION} is missing): run `edgeser export-encoder` first")
    try:
        spec = json.loads(file.read_text(encoding="utf-8"))
        length = int(spec["length"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BundleError(f"{file}: not readable as a frontend's description: {error}") from error
    return restore_frontend(length, spec, lambda name: _content(folder / name), open_graph)


def _content(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: missing from the frontend's folder") from error
    if file.suffix == ".onnx":
        check_graph(content)
    return content
