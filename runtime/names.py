"""Names that come from data, a bundle's labels for example: what may be in them, and how they are shown."""

from __future__ import annotations

import json
import logging
import unicodedata
from typing import Any

_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # control characters, halves of surrogate pairs, line and paragraph separators


def is_shown(character: str) -> bool:
    """Whether a character may be shown as it is: it moves no cursor, turns no text around, and can be encoded."""
    return character not in _DIRECTIONS and unicodedata.category(character) not in _UNSEEN


def escaped(text: str) -> str:
    """Return a text with all that may not be shown escaped, as `repr` would: `a\\x1b[2Jb`."""
    return text if text.isprintable() else "".join(c if is_shown(c) else repr(c)[1:-1] for c in text)


def escaped_lines(text: str) -> str:
    """Return lines of text, each `escaped`; tabs stay."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))


def json_line(value: Any) -> str:
    """Return a value as JSON in one line, with all that may not be shown escaped as `\\u001b`, which means the same.

    Raises:
        ValueError: A number is not finite, for which JSON has no word.
    """
    return _json_escaped(json.dumps(value, ensure_ascii=False, allow_nan=False))


def json_lines(value: Any) -> str:
    """Return a value as JSON to be read by people too, indented; see `json_line`."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
    return "\n".join(map(_json_escaped, text.split("\n")))


def start_logging(level: int = logging.INFO) -> None:
    """Have this process's log written to standard error, messages alone, with nothing in them that may not be shown."""
    handler = logging.StreamHandler()
    handler.setFormatter(_LineFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escaped_lines(super().format(record))


def _json_escaped(text: str) -> str:
    return text if text.isprintable() else "".join(c if is_shown(c) else json.dumps(c)[1:-1] for c in text)


def name_problem(name: str, most: int) -> str | None:
    """Return what is wrong with a name, `None` when it is one line of 1 to `most` characters that can be shown."""
    if not name.strip():
        return "is empty"
    if len(name) > most:
        return f"has {len(name)} characters, expected at most {most}"
    if name.isprintable() or all(is_shown(character) for character in name):
        return None
    return "has control characters, which could rewrite what a terminal shows"
