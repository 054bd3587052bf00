"""A tokenizer of what a device needs: text from every id, and the ids of a few marks."""

from __future__ import annotations

import json

from edgeser.runtime.asr.whisper.tokens import ENCODED


def lean_tokenizer(content: bytes) -> bytes:
    """Return a `tokenizer.json` without the merges that nothing on a device asks for: half of Whisper's file.

    Text is never cut into tokens there, but for the marks in `ENCODED`, whose merges stay: what a merge gives has to
    stand in one of them. What is no byte-level BPE is returned as it is.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    try:
        settings = json.loads(content)
        model = settings["model"]
        is_byte_level = model["type"] == "BPE" and settings["pre_tokenizer"]["type"] == ByteLevel.__name__
        merges = model["merges"] if is_byte_level else None
    except (ValueError, KeyError, TypeError):
        return content
    if merges is None:
        return content
    cut = ByteLevel(add_prefix_space=False)
    pieces = [piece for mark in ENCODED for piece, _ in cut.pre_tokenize_str(mark)]
    model["merges"] = [merge for merge in merges if any(_merged(merge) in piece for piece in pieces)]
    return json.dumps(settings, ensure_ascii=False, separators=(",", ":")).encode()


def _merged(merge: str | list[str]) -> str:
    """Return what a merge gives; older files have both halves in one text."""
    return "".join(merge.split(" ") if isinstance(merge, str) else merge)
