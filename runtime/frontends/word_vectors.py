"""`word-vectors`: one pretrained vector per word, kept as INT8 with a scale per row.

From transcript to rows, the whole rule: `edgeser.runtime.frontends.words` cuts the transcript. A word that is not in
the vocabulary is tried with its drawn-out letters shortened (`heyyy` -> `heyy`, `hey`). If that fails it gives a row of
zeros: it keeps its place in the sentence and says nothing. The first `length` tokens are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends.base import OpenGraph, ReadFile, TextFrontend, Token
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.frontends.words import cut_words, spellings
from edgeser.runtime.tensors import from_safetensors, to_safetensors

_VECTORS = "vectors.safetensors"
_VOCABULARY = "vocabulary.txt"


class WordVectors(TextFrontend):
    """Looks words up in a table of vectors.

    Args:
        vocabulary: The words, most frequent first.
        codes: `(words, dim)` int8.
        scales: `(words,)` float32; a word's vector is `codes[i] * scales[i]`.
        length: Rows the model gets.
    """

    kind = "word-vectors"

    def __init__(
        self,
        vocabulary: Sequence[str],
        codes: NDArray[np.int8],
        scales: NDArray[np.float32],
        length: int = 20,
    ) -> None:
        if codes.ndim != 2 or codes.shape[0] != len(vocabulary) or scales.shape != (len(vocabulary),):
            raise InputError(
                f"word-vectors: {len(vocabulary)} words, codes {codes.shape}, scales {scales.shape}: "
                "expected one row and one scale per word"
            )
        if codes.dtype != np.int8 or scales.dtype != np.float32 or not np.isfinite(scales).all():
            raise InputError(
                f"word-vectors: codes are {codes.dtype} and scales {scales.dtype}, expected int8 and finite float32"
            )
        self.length = length
        self.dim = codes.shape[1]
        self.vocabulary = tuple(vocabulary)
        self._codes = np.ascontiguousarray(codes)  # looked up by row
        self._scales = scales
        self._index = {word: i for i, word in enumerate(self.vocabulary)}

    @classmethod
    def quantized(cls, vocabulary: Sequence[str], vectors: NDArray[np.floating], length: int = 20) -> WordVectors:
        """Make the frontend from `(words, dim)` float vectors: symmetric INT8, one scale per row."""
        peaks = np.abs(vectors).max(axis=1)
        scales = np.where(peaks > 0, peaks / 127.0, 1.0).astype(np.float32)
        codes = np.clip(np.rint(vectors / scales[:, None]), -127, 127).astype(np.int8)
        return cls(vocabulary, codes, scales, length)

    def tokens(self, transcript: str) -> list[Token]:
        return cut_words(transcript)

    def rows(self, tokens: list[Token]) -> Rows:
        rows = np.zeros((len(tokens), self.dim), dtype=np.float32)
        for row, token in zip(rows, tokens, strict=True):
            index = self.find(token.text)
            if index is not None:
                row[:] = self._codes[index] * self._scales[index]
        return rows

    def find(self, word: str) -> int | None:
        """Return the row of a lower-case word, `None` when the vocabulary has no form of it."""
        for form in spellings(word):
            index = self._index.get(form)
            if index is not None:
                return index
        return None

    def options(self) -> dict[str, Any]:
        return {"words": len(self.vocabulary)}

    def files(self) -> dict[str, bytes]:
        return {
            _VECTORS: to_safetensors({"codes": self._codes, "scales": self._scales}),
            _VOCABULARY: ("\n".join(self.vocabulary) + "\n").encode(),
        }

    @classmethod
    def restore(cls, length: int, options: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph) -> WordVectors:
        vectors, words = read(_VECTORS), read(_VOCABULARY)
        try:
            table = from_safetensors(vectors)
            vocabulary = words.decode().removesuffix("\n").split("\n")
            return cls(vocabulary, table["codes"], table["scales"], length)
        except (KeyError, ValueError) as error:
            raise BundleError(f"word-vectors: the table is not usable: {error}") from error
