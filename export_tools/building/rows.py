"""Graphs whose rows are open, such as those of a speech encoder that runs over windows, with the rows fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeser.runtime.asr.whisper.decoder import ROW_S
from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.manifest import RECOGNISER


def with_rows(graph: bytes, rows: int) -> bytes:
    """Return a graph with its open rows fixed: a plan is for one size, and on a GPU the longest costs little more."""
    import onnx

    proto, samples = onnx.load_from_string(graph), round(ROW_S * SAMPLE_RATE)
    sizes = {"rows": rows, f"{samples}*rows": samples * rows}
    for value in proto.graph.input:
        for size in value.type.tensor_type.shape.dim[1:]:
            if size.dim_param in sizes:
                size.dim_value = sizes[size.dim_param]
    content: bytes = proto.SerializeToString()
    return content


def at_its_longest(bundle: Bundle, part: str, graph: bytes) -> bytes:
    """Return the graph of a part of `Bundle.graphs` with its rows fixed, where they are open."""
    rows = most_rows(bundle, part)
    return graph if rows is None else with_rows(graph, rows)


def most_rows(bundle: Bundle, part: str) -> int | None:
    """Return the longest window of a part of `Bundle.graphs`; `None` where its rows are fixed."""
    recogniser: Mapping[str, Any] = bundle.manifest.recogniser or {}
    if part.startswith(RECOGNISER):
        return int(recogniser["rows"])
    entry = bundle.manifest.inputs.get(part)
    return None if entry is None or "windows" not in entry.frontend else entry.length
