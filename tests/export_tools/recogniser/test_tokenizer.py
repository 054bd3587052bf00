"""A tokenizer without what no device asks of it, beside the whole one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeser.export_tools.encoders.export import placed
from edgeser.export_tools.recogniser.tokenizer import lean_tokenizer
from edgeser.runtime.asr.whisper.tokens import ENCODED, WhisperTokens


@pytest.mark.parametrize(("name", "count"), [("whisper-tiny.en", 51_864), ("whisper-base", 51_865)])
def test_a_lean_tokenizer_says_the_same(name: str, count: int) -> None:
    with placed(name) as folder:
        whole = (Path(folder) / "tokenizer.json").read_bytes()
    lean = lean_tokenizer(whole)
    assert len(lean) < 0.4 * len(whole)
    before, after = WhisperTokens(whole, count), WhisperTokens(lean, count)
    assert (after.prompt, after.end, after.non_speech) == (before.prompt, before.end, before.non_speech)
    assert all(after._encode(text) == before._encode(text) for text in ENCODED)
    assert all(after._text([token]) == before._text([token]) for token in range(0, count, 7))
    ids = before._encode(" Dogs are sitting — naïve façade, 日本 — by the door.")
    assert after.words(ids) == before.words(ids)
    assert lean_tokenizer(lean) == lean


def test_another_kind_is_left_alone() -> None:
    other = b'{"added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'
    assert lean_tokenizer(other) == other
