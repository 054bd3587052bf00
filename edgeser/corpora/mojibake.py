"""Text that was decoded with the wrong character set, put right."""

from __future__ import annotations

import re

_ROUNDS = 3  # a text may have been read wrongly, stored, and read wrongly again


def _cp1252(byte: int) -> str:
    """Return a byte as Windows-1252 shows it; five bytes that it leaves open stay control characters."""
    return bytes([byte]).decode("cp1252", errors="ignore") or chr(byte)


# A byte may have been read as Windows-1252 or as Latin-1, which has control characters from 0x80 to 0x9F.
_BYTE_OF = {character: byte for byte in range(0x80, 0x100) for character in (_cp1252(byte), chr(byte))}
_NEXT = "".join(re.escape(c) for c, byte in _BYTE_OF.items() if byte < 0xC0)
_LEADS = {length: "".join(map(chr, range(low, high))) for length, low, high in ((1, 0xC2, 0xE0), (2, 0xE0, 0xF0))}
_WRONG = re.compile("|".join(f"[{leads}][{_NEXT}]{{{length}}}" for length, leads in _LEADS.items()))
# Letters with accents and punctuation, what English, French or German text holds beyond ASCII, and controls.
_PLAUSIBLE = re.compile("[\x80-\u024f\u2010-\u2027\u2030-\u203a\u20ac\u2122]")
_CONTROLS = {code: _cp1252(code) if _cp1252(code) != chr(code) else "" for code in range(0x80, 0xA0)}


def decode(raw: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark; Windows-1252 where it is not."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def repair(text: str) -> str:
    """Undo UTF-8 read as Windows-1252 or Latin-1, then Windows-1252 read as Latin-1 (control characters from U+0080).

    An apostrophe that came as three characters of accents, or as U+0092, is one again. Text that is right comes back as
    it is.
    """
    for _ in range(_ROUNDS):
        better = _WRONG.sub(lambda match: _as_utf8(match[0]), text)
        if better == text:
            break
        text = better
    return text.translate(_CONTROLS)


def _as_utf8(wrong: str) -> str:
    try:
        right = bytes(_BYTE_OF[character] for character in wrong).decode("utf-8")
    except UnicodeDecodeError:
        return wrong
    return right if _PLAUSIBLE.fullmatch(right) else wrong
