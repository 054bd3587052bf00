"""How transcripts are cut into words, the same for every frontend that reads words.

1. Lower case; typographic apostrophes become `'`; a word is a run of letters, digits and inner apostrophes.
2. `!` and `?` are tokens, a run of them one for each of the two; other punctuation gives none. Written lines carry
   emotion in them, but recognisers write none: training leaves the marks out of half the lines.
3. Contractions are cut as GloVe's own tokenizer cuts them: `don't` -> `do n't`, `she's` -> `she 's`.
"""

from __future__ import annotations

import itertools
import re

from edgeser.runtime.frontends.base import Token

MARKS = ("!", "?")
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|!|\?")
_CONTRACTION = re.compile(r"(?:n't|'(?:s|m|re|ve|ll|d))$", re.IGNORECASE | re.ASCII)
_DRAWN_OUT = re.compile(r"(.)\1{2,}")
_REPEATED = re.compile(r"(.)\1+")
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u00b4": "'", "`": "'", "\u0092": "'"})


def cut_words(transcript: str) -> list[Token]:
    """Cut a transcript into words, pieces of contractions and marks."""
    plain = transcript.translate(_APOSTROPHES)
    tokens: list[Token] = []
    for match in _TOKEN.finditer(plain):
        word, start = match.group(), match.start()
        marks = {token.text for token in itertools.takewhile(lambda t: t.text in MARKS, reversed(tokens))}
        if word in marks:
            continue
        # Cut before lower-casing, which can change a word's length.
        for piece in _pieces(word):
            tokens.append(Token(piece.lower(), start, start + len(piece)))
            start += len(piece)
    return tokens


def spellings(word: str) -> tuple[str, str, str]:
    """Return a word as it stands, and with its drawn-out letters shortened: `heyyy` -> `heyy`, `hey`."""
    return word, _DRAWN_OUT.sub(r"\1\1", word), _REPEATED.sub(r"\1", word)


def _pieces(word: str) -> list[str]:
    """Cut contractions off the end: `shouldn't've` -> `should`, `n't`, `'ve`."""
    endings: list[str] = []
    while (cut := _CONTRACTION.search(word)) and cut.start() > 0:
        endings.insert(0, word[cut.start() :])
        word = word[: cut.start()]
    return [word, *endings]
