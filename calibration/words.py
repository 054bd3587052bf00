"""What a bundle's recogniser hears in INT8, beside what it hears in floating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeser.runtime.asr import Transcript


@dataclass(frozen=True)
class WordsCompared:
    """A quantized recogniser beside its reference, over the same recordings.

    A corpus may say of a clip what was not said in it (acted emotion is often paired with other words), so that the
    reference's words are what counts as right here.

    Attributes:
        recordings: How many.
        words: That the reference heard.
        same: Share of the recordings with the same words, but for case and marks.
        rate: Words put in, left out or changed, for each that the reference heard.
        doubtful: Recordings whose words were too doubtful: the reference's, the quantized one's.
    """

    recordings: int
    words: int
    same: float
    rate: float
    doubtful: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "same": round(self.same, 4), "rate": round(self.rate, 4)}

    def text(self) -> str:
        """Return it as a sentence."""
        return (
            f"the same words as FP32 in {self.same:.1%} of {self.recordings} recordings, {self.rate:.2%} of "
            f"{self.words} words differ; doubtful {self.doubtful[0]} -> {self.doubtful[1]}"
        )


def compare_words(reference: Sequence[Transcript], quantized: Sequence[Transcript]) -> WordsCompared:
    """Compare what was heard, recording by recording."""
    pairs = [(_plain(before), _plain(after)) for before, after in zip(reference, quantized, strict=True)]
    count = sum(len(before) for before, _ in pairs)
    changes = sum(_distance(before, after) for before, after in pairs)
    return WordsCompared(
        recordings=len(pairs),
        words=count,
        same=sum(before == after for before, after in pairs) / max(1, len(pairs)),
        rate=changes / max(1, count),
        doubtful=(sum(one.is_doubtful for one in reference), sum(one.is_doubtful for one in quantized)),
    )


def _plain(heard: Transcript) -> list[str]:
    """Return words without case and marks."""
    plain = ("".join(c for c in word.text.casefold() if c.isalnum() or c == "'") for word in heard.words)
    return [word for word in plain if word]


def _distance(before: Sequence[str], after: Sequence[str]) -> int:
    """Return the fewest words to put in, leave out or change that make one of the other (Levenshtein)."""
    row = list(range(len(after) + 1))
    for i, left in enumerate(before, 1):
        last, row[0] = row[0], i
        for j, right in enumerate(after, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (left != right))
    return row[-1]
