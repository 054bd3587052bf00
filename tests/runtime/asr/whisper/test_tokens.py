from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.asr.whisper.tokens import WhisperTokens, Word
from edgeser.runtime.errors import BundleError

Tokens = Callable[[str], WhisperTokens]
BOTH = pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])


def spell(tokens: WhisperTokens, text: str) -> list[int]:
    return tokens._encode(text)


@BOTH
def test_what_is_never_said_is_whispers_own_list(name: str, tokens: Tokens, packaged: Callable[[str], Path]) -> None:
    known = tokens(name)
    published = json.loads((packaged(name) / "config.json").read_text("utf-8"))["suppress_ids"]
    assert set(published) - set(known.non_speech) <= set(range(known.end, known.first_timestamp))
    assert set(known.non_speech) <= set(published)


def test_the_ids_are_whispers(tokens: Tokens) -> None:
    english, multilingual = tokens("whisper-tiny.en"), tokens("whisper-base")
    assert (english.prompt, english.end, english.first_timestamp) == ((50_257,), 50_256, 50_363)
    assert (multilingual.prompt, multilingual.end, multilingual.first_timestamp) == (
        (50_258, 50_259, 50_359),
        50_257,
        50_364,
    )
    assert english.seconds(50_363) == 0.0
    assert english.seconds(50_363 + 1500) == pytest.approx(30.0)


@BOTH
def test_words_keep_the_marks_that_touch_them(name: str, tokens: Tokens) -> None:
    known = tokens(name)
    said = ' Don\'t say "café" for $5, it is 7.5: 你 ... well-known, OK?'
    assert [word.text for word in known.words(spell(known, said))] == [
        *("Don't", "say", '"café"', "for", "$5,", "it", "is", "7.5:", "你 ...", "well-known,", "OK?")
    ]
    assert known.words(spell(known, " by the door.")) == [
        Word("by", 0, 1, 1),
        Word("the", 1, 2, 2),
        Word("door.", 2, 3, 4),
    ]
    assert known.words(spell(known, " ... !")) == []
    assert known.words([]) == []


@settings(max_examples=200, deadline=None)
@given(said=st.lists(st.integers(0, 50_255), max_size=12))
def test_any_ids_are_cut_in_order(said: list[int], tokens: Tokens) -> None:
    words = tokens("whisper-tiny.en").words(said)
    ends = [0]
    for word in words:
        assert ends[-1] <= word.start < word.marks <= word.end <= len(said)
        assert any(character.isalnum() for character in word.text)
        assert word.text == word.text.strip()
        ends.append(word.end)


def test_folded(tokens: Tokens) -> None:
    known = tokens("whisper-tiny.en")
    assert known.folded(spell(known, "And")[0]) == known.folded(spell(known, " and")[0]) == "and"


def test_other_tokenizers_are_refused(packaged: Callable[[str], Path]) -> None:
    content = (packaged("whisper-tiny.en") / "tokenizer.json").read_bytes()
    with pytest.raises(BundleError, match=r"whisper: tokenizer.json ends at 51863, the decoder at 51864"):
        WhisperTokens(content, 51_865)
    with pytest.raises(BundleError, match="whisper: got language 'de', this decoder knows English only"):
        WhisperTokens(content, 51_864, "de")
    multilingual = (packaged("whisper-base") / "tokenizer.json").read_bytes()
    assert WhisperTokens(multilingual, 51_865, "de").prompt[1] == 50_261
    with pytest.raises(BundleError, match=r"has no <\|xx\|>, expected Whisper's own"):
        WhisperTokens(multilingual, 51_865, "xx")
    for damaged in (b"", b"{}", content[:1000], content.replace(b'"model"', b'"modem"'), b"\xff"):
        with pytest.raises(BundleError, match=r"whisper: tokenizer.json is not usable") as caught:
            WhisperTokens(damaged, 51_864)
        assert "\n" not in str(caught.value)
