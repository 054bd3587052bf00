"""What a recogniser hears in INT8 beside floating point."""

from __future__ import annotations

import pytest

from edgeser.calibration.words import compare_words
from edgeser.runtime.asr import RecognizedWord, Transcript


def heard(text: str, is_doubtful: bool = False) -> Transcript:
    return Transcript(tuple(RecognizedWord(word, 0.0, 1.0, 1.0) for word in text.split()), is_doubtful)


def test_words_are_compared_without_case_and_marks() -> None:
    compared = compare_words([heard("Dogs, don't sit.")], [heard("dogs don't sit")])
    assert (compared.same, compared.rate, compared.words) == (1.0, 0.0, 3)


@pytest.mark.parametrize(
    ("after", "changes"),
    [("a b c d", 0), ("a c d", 1), ("a b x c d", 1), ("a x c d", 1), ("", 4), ("d c b a", 4), ("b c d e", 2)],
)
def test_the_fewest_changes_count(after: str, changes: int) -> None:
    compared = compare_words([heard("a b c d"), heard("e")], [heard(after), heard("e")])
    assert compared.rate == pytest.approx(changes / 5)
    assert compared.same == (0.5 if changes else 1.0)


def test_doubtful_recordings_are_counted_and_silence_is_no_error() -> None:
    compared = compare_words([heard("", True), heard("")], [heard(""), heard("")])
    assert (compared.doubtful, compared.rate, compared.same, compared.words) == ((1, 0), 0.0, 1.0, 0)
    assert compared.text() == (
        "the same words as FP32 in 100.0% of 2 recordings, 0.00% of 0 words differ; doubtful 1 -> 0"
    )
    assert compared.as_dict()["doubtful"] == (1, 0)
