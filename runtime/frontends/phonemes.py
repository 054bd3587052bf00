"""`phonemes`: the phonemes of each word, as ids that a model embeds.

From transcript to rows, the whole rule: `edgeser.runtime.frontends.words` cuts the transcript, as it does for
`word-vectors`, so that the rows of the two stand side by side. A word's phonemes come from a pronouncing dictionary
that lies in the bundle; a word that is not in it is tried with its drawn-out letters shortened, then read by
`edgeser.runtime.frontends.letter_to_sound`, digits by their names. `!` and `?` are phonemes of their own. A row holds
the ids of the first `dim` phonemes, 1 to `len(PHONEMES)`, and 0 behind them; what cannot be read gives zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends.base import OpenGraph, ReadFile, TextFrontend, Token, option
from edgeser.runtime.frontends.letter_to_sound import letter_to_sound
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.frontends.words import MARKS, cut_words, spellings

_ARPABET = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
ARPABET = tuple(_ARPABET.split())
"""The 39 phonemes of American English, without stress."""
PHONEMES = (*ARPABET, *MARKS)
"""In the order of their ids, which start at 1; a model embeds `len(PHONEMES) + 1` of them, 0 being none."""

COMMENT = ";;;"
"""How lines begin that hold the dictionary's notice."""
_FILE = "pronunciations.txt"
_IDS = {phoneme: number for number, phoneme in enumerate(PHONEMES, 1)}
_RUNS = re.compile(r"\d|[^\d']+")

# What GloVe's way to cut contractions leaves, as it is said beside the other piece: `do n't` is D UW N T.
_PIECES = {
    "n't": "N T",
    "'s": "Z",
    "'re": "R",
    "'ve": "V",
    "'ll": "L",
    "'m": "M",
    "'d": "D",
    "ca": "K AE",
    "wo": "W OW",
    "sha": "SH AE",
    "ai": "EY",
}
_DIGITS = (
    "Z IH R OW",
    "W AH N",
    "T UW",
    "TH R IY",
    "F AO R",
    "F AY V",
    "S IH K S",
    "S EH V AH N",
    "EY T",
    "N AY N",
)


class Phonemes(TextFrontend):
    """Looks pronunciations up, and guesses those that it does not have.

    Args:
        pronunciations: Phonemes of lower-case words, each one of `ARPABET`.
        length: Rows the model gets.
        dim: Phonemes of a word that are kept.
        notice: The dictionary's copyright and licence, kept at the head of the bundle's file.

    Raises:
        InputError: A phoneme is unknown, or a word is no single word.
    """

    kind = "phonemes"

    def __init__(
        self, pronunciations: Mapping[str, Sequence[str]], length: int = 20, dim: int = 16, notice: str = ""
    ) -> None:
        if length < 1 or dim < 1:
            raise InputError(f"phonemes: got {length} rows of {dim}, expected at least 1 of each")
        self.length = length
        self.dim = dim
        self.notice = notice
        self._known = {word: _encoded(word, said) for word, said in pronunciations.items()}

    def tokens(self, transcript: str) -> list[Token]:
        return cut_words(transcript)

    def rows(self, tokens: list[Token]) -> Rows:
        rows = np.zeros((len(tokens), self.dim), dtype=np.float32)
        for row, token in zip(rows, tokens, strict=True):
            ids = self._ids(token.text)[: self.dim]
            row[: len(ids)] = list(ids)
        return rows

    def pronounce(self, word: str) -> tuple[str, ...]:
        """Return the phonemes of a lower-case word or mark as `tokens` gives them, however many; none for no word."""
        return tuple(PHONEMES[i - 1] for i in self._ids(word))

    def _ids(self, word: str) -> bytes:
        if word in MARKS:
            return bytes([_IDS[word]])
        if word in _PIECES:
            return _numbers(_PIECES[word].split())
        known = next((self._known[form] for form in spellings(word) if form in self._known), None)
        return _numbers(list(_read(word))) if known is None else known

    def options(self) -> dict[str, Any]:
        return {"words": len(self._known), "dim": self.dim}

    def files(self) -> dict[str, bytes]:
        lines = [f"{COMMENT} {line}".rstrip() for line in self.notice.splitlines()]
        lines += [" ".join((word, *(PHONEMES[i - 1] for i in ids))) for word, ids in self._known.items()]
        return {_FILE: "".join(f"{line}\n" for line in lines).encode()}

    @classmethod
    def restore(cls, length: int, options: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph) -> Phonemes:
        try:
            lines = read(_FILE).decode().removesuffix("\n").split("\n")
            notice = [line.removeprefix(COMMENT).removeprefix(" ") for line in lines if line.startswith(COMMENT)]
            words = (line.split(" ") for line in lines if line and not line.startswith(COMMENT))
            known = {word: said for word, *said in words}
            return cls(known, length, option(options, "dim", int), "\n".join(notice))
        except (UnicodeDecodeError, InputError) as error:
            raise BundleError(f"phonemes: {_FILE} is not usable: {error}") from error


def _encoded(word: str, said: Sequence[str]) -> bytes:
    """Return ids, a byte each: with 25,000 words, tuples would take three times the memory."""
    if not word or word.split() != [word] or word.startswith(COMMENT):
        raise InputError(f"phonemes: got {word!r}, expected a word")
    ids = bytes([_IDS.get(phoneme, 0) for phoneme in said])
    if not ids or not 1 <= min(ids) <= max(ids) <= len(ARPABET):
        raise InputError(f"phonemes: {word!r} is {' '.join(said)!r}, expected some of {' '.join(ARPABET)}")
    return ids


def _numbers(said: Sequence[str]) -> bytes:
    return bytes(_IDS[phoneme] for phoneme in said)


def _read(word: str) -> Iterator[str]:
    """Read a word that no dictionary has, its digits one by one."""
    for run in _RUNS.findall(word):
        yield from _DIGITS[int(run)].split() if run.isdecimal() else letter_to_sound(spellings(run)[1])
