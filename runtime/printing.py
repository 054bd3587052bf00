"""Text from data, shown on a terminal."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # Persian and Hindi are spelled with them, and emoji made


def printable(text: str) -> str:
    """Return text in which nothing steers a terminal, breaks a line or cannot be encoded.

    Control characters (the beginnings of escape sequences among them), marks that turn the direction of writing,
    separators of lines, halves of surrogate pairs and what Unicode has not assigned become `\\u001b` and the like, which
    JSON reads as what was there.
    """
    if text.isprintable():
        return text
    return "".join(one if _shown(one) else _escaped(one) for one in text)


def _shown(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
