from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeser.runtime.names import escaped, json_line, name_problem


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("angry", "angry"),
        ("zornig, ärgerlich", "zornig, ärgerlich"),
        ("क्‍ष", "क्‍ष"),  # a zero-width joiner belongs to some scripts
        ("😡", "😡"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("sad\r\nhappy", r"sad\r\nhappy"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eyrgna", r"\u202eyrgna"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert name_problem(text, 20) == (None if text == shown else name_problem("\x1b", 20))


@given(st.text(st.characters(codec=None)))
def test_anything_is_one_line_that_can_be_encoded(text: str) -> None:
    shown = escaped(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs"}
    assert escaped(shown) == shown


@given(st.text(st.characters(codec=None)))
def test_json_that_can_be_shown_means_the_same(text: str) -> None:
    line = json_line({text: [text]})
    assert json.loads(line) == {text: [text]}
    assert escaped(line) == line


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_json_has_no_word_for_what_is_not_finite(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_line([number])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        (" \t", "is empty"),
        ("\u3000", "is empty"),
        ("x" * 21, "has 21 characters, expected at most 20"),
    ],
)
def test_names_that_are_none(name: str, problem: str) -> None:
    assert name_problem(name, 20) == problem


def test_a_name_of_just_the_right_length() -> None:
    assert name_problem("x" * 20, 20) is None
