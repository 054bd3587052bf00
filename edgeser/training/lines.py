"""Lines for recordings whose words are not known: those that others say with the same emotion."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from edgeser.corpora import Utterance

NEUTRAL = "neutral"


class Lines:
    """The transcripts of a training split, by emotion.

    Voice and line are then paired by emotion only, as in a corpus that was made so.

    Args:
        utterances: The training split.
    """

    def __init__(self, utterances: Iterable[Utterance]) -> None:
        lines: dict[str | None, set[str]] = {}
        for utterance in utterances:
            if utterance.transcript:
                lines.setdefault(utterance.emotion, set()).add(utterance.transcript)
        self._lines = {emotion: sorted(texts) for emotion, texts in lines.items()}

    def lend(self, utterance: Utterance, share: float, rng: np.random.Generator) -> Utterance:
        """Return an utterance with a line of its emotion, if it has no transcript; `share` of them borrow, drawn.

        The others stay without words, and so do all where the split has no line of that emotion.
        """
        lines = self._lines.get(utterance.emotion)
        if utterance.transcript is not None or not share or not lines or rng.random() >= share:
            return utterance
        return dataclasses.replace(utterance, transcript=lines[rng.integers(len(lines))])

    def neutralize(self, utterance: Utterance, share: float, rng: np.random.Generator) -> Utterance:
        """Return an utterance with a neutral line in place of its own; `share` of those with a line, drawn."""
        lines = self._lines.get(NEUTRAL)
        if not utterance.transcript or not share or not lines or rng.random() >= share:
            return utterance
        return dataclasses.replace(utterance, transcript=lines[rng.integers(len(lines))])
