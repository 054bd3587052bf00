"""Pronunciations for the `phonemes` frontend, from a pronouncing dictionary."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.runtime.frontends import Phonemes
from edgeser.runtime.frontends.letter_to_sound import letter_to_sound
from edgeser.runtime.frontends.phonemes import ARPABET, COMMENT

_ALTERNATIVE = re.compile(r"\(\d+\)$")
_STRESSED = {f"{phoneme}{stress}": phoneme for phoneme in ARPABET for stress in ("", "0", "1", "2")}

# The dictionary's terms want to be told wherever it goes, so they stand at the head of the bundle's file.
_CMUDICT_NOTICE = """\
The CMU Pronouncing Dictionary, as pocketsphinx ships it, cut to a vocabulary and to one pronunciation a word.

Copyright (c) 1999-2016 Carnegie Mellon University. All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions and the following
   disclaimer.
2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
   disclaimer in the documentation and/or other materials provided with the distribution.

This work was supported in part by funding from the Defense Advanced Research Projects Agency and the National Science
Foundation of the United States of America, and the CMU Sphinx Speech Consortium.

THIS SOFTWARE IS PROVIDED BY CARNEGIE MELLON UNIVERSITY ``AS IS'' AND ANY EXPRESSED OR IMPLIED WARRANTIES, INCLUDING,
BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO
EVENT SHALL CARNEGIE MELLON UNIVERSITY NOR ITS EMPLOYEES BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL,
EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF
USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT,
STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN
IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE."""


def load_pronunciations(
    vocabulary: Collection[str], source: Path | None = None, length: int = 20, dim: int = 16
) -> Phonemes:
    """Cut a pronouncing dictionary to a vocabulary, so that it is small enough for a device.

    Args:
        vocabulary: The words to keep: those of the word vectors.
        source: A dictionary in CMUdict's form (`word PH PH …`, stress digits are dropped, of several pronunciations the
            first is kept, lines of `;;;` are its notice); `None` for CMUdict as the `pocketsphinx` package has it.
        length: Rows per utterance.
        dim: Phonemes of a word that are kept.

    Raises:
        InputError: The file is missing, or is no such dictionary.
    """
    known, notice = read_dictionary(source)
    kept = {word: known[word] for word in dict.fromkeys(vocabulary) if word in known}
    return Phonemes(kept, length, dim, notice)


def read_dictionary(source: Path | None = None) -> tuple[dict[str, tuple[str, ...]], str]:
    """Read a whole dictionary, as `load_pronunciations` does.

    Returns:
        Phonemes by lower-case word, and its notice.
    """
    file = _packaged() if source is None else source
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such pronouncing dictionary") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not readable as a pronouncing dictionary: {error}") from error
    known: dict[str, tuple[str, ...]] = {}
    notice: list[str] = []
    for number, line in enumerate(lines, 1):
        if line.startswith(COMMENT):
            notice.append(line.removeprefix(COMMENT).strip())
            continue
        word, *said = line.partition(" #")[0].split() or [""]
        if not word:
            continue
        plain = tuple([_STRESSED.get(phoneme, "") for phoneme in said])
        if "" in plain or not plain:
            raise InputError(f"{file}, line {number}: got {line!r:.80}, expected a word and its ARPAbet phonemes")
        known.setdefault(_ALTERNATIVE.sub("", word.lower()), plain)
    if not known:
        raise InputError(f"{file}: holds no words, expected lines of a word and its phonemes")
    return known, _CMUDICT_NOTICE if source is None else "\n".join(notice)


def phoneme_error_rate(dictionary: Mapping[str, Sequence[str]]) -> float:
    """Return the share of phonemes that the letter-to-sound rule gets wrong: edits by phonemes that should be there."""
    edits = sum(_edits(letter_to_sound(word), said) for word, said in dictionary.items())
    return edits / sum(map(len, dictionary.values()))


def _packaged() -> Path:
    try:
        import pocketsphinx
    except ImportError as error:
        raise MissingDependencyError("pocketsphinx", "train", "the CMU Pronouncing Dictionary") from error
    return Path(pocketsphinx.get_model_path("en-us")) / "cmudict-en-us.dict"


def _edits(said: Sequence[str], expected: Sequence[str]) -> int:
    """Return how many phonemes must be put in, taken out or changed (Levenshtein)."""
    costs = list(range(len(expected) + 1))
    for row, phoneme in enumerate(said, 1):
        before, costs[0] = costs[0], row
        for column, wanted in enumerate(expected, 1):
            before, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, before + (phoneme != wanted)),
            )
    return costs[-1]
