from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeser.runtime.printing import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("angry, \u00e4rgerlich, \u6012\u308a, \u0a17\u0a41\u0a71\u0a38\u0a3e", None),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f680 1\u00a0000", None),
        ("a\x1b[31mred", r"a\u001b[31mred"),
        ("\x9b2J\x07\x7f", r"\u009b2J\u0007\u007f"),
        ("two\nlines\r\t\u2028", r"two\u000alines\u000d\u0009\u2028"),
        ("gnp\u202e.exe", r"gnp\u202e.exe"),
        ("\udcff.wav", r"\udcff.wav"),
        ("\U000e0041", r"\udb40\udc41"),
    ],
)
def test_what_a_terminal_gets(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)


@given(st.text(st.characters()))
def test_any_text_is_one_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    shown.encode("utf-8")
    assert printable(shown) == shown


@given(st.text(st.characters()))
def test_json_means_the_same(text: str) -> None:
    given = json.dumps(text, ensure_ascii=False)
    assert json.loads(printable(given)) == text
