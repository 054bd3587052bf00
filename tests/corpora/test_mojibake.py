from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeser.corpora.mojibake import decode, repair

QUOTED = "\u201cOh\u2014well\u2026\u201d It\u2019s a caf\u00e9, na\u00efve \u00e0 la carte: 3 \u20ac \u2122"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("You must\x92ve", "You must\u2019ve"),  # as the official train_sent_emo.csv has it
        ("So\x97So here\x92s a key\x85", "So\u2014So here\u2019s a key\u2026"),
        ("youâ€™ll â€¦ â€œhiâ€\x9d", "you\u2019ll \u2026 \u201chi\u201d"),
        ("â\x80\x99", "\u2019"),
        ("cafÃ©, Ã\xa0 la carte", "caf\u00e9, \u00e0 la carte"),
        ("IÂ\x92m", "I\u2019m"),
        ("I\u00c2\u2019m", "I\u2019m"),
        ("\u00c3\u00a2\u00e2\u201a\u00ac\u00e2\u201e\u00a2", "\u2019"),
        ("a\x81b", "ab"),  # Windows-1252 has nothing there
    ],
)
def test_wrong_text_is_put_right(wrong: str, right: str) -> None:
    assert repair(wrong) == right


@pytest.mark.parametrize(
    "text", [QUOTED, "", "SCH\u00d6\u00ab", "\u00c3 et \u00c2", "\u4f60\u597d", "plain\n\ttext", "\U0001f600"]
)
def test_right_text_is_left_alone(text: str) -> None:
    assert repair(text) == text


@pytest.mark.parametrize("wrongly", ["cp1252", "latin-1"])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_utf8_read_wrongly_several_times(wrongly: str, rounds: int) -> None:
    text = QUOTED
    for _ in range(rounds):
        # Windows-1252 as browsers and spreadsheets read it: what it leaves open becomes a control character.
        text = "".join(bytes([b]).decode(wrongly, errors="ignore") or chr(b) for b in text.encode())
    assert text != QUOTED
    assert repair(text) == QUOTED


def test_windows_1252_read_as_latin_1() -> None:
    assert repair(QUOTED.encode("cp1252").decode("latin-1")) == QUOTED


@given(st.text(string.printable))
def test_ascii_is_never_changed(text: str) -> None:
    assert repair(text) == text


@given(st.text(st.characters(max_codepoint=0x2200)))
def test_nothing_is_too_strange_and_what_is_left_holds_no_control_of_latin_1(text: str) -> None:
    assert not set(repair(text)) & set(map(chr, range(0x80, 0xA0)))


@given(st.binary())
def test_any_bytes_are_text(raw: bytes) -> None:
    assert isinstance(decode(raw), str)


def test_decoding() -> None:
    assert decode(b"\xef\xbb\xbf" + QUOTED.encode()) == QUOTED
    assert decode(QUOTED.encode("cp1252")) == QUOTED
    assert decode(b"\x81") == "\ufffd"
