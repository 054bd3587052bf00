from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from edgeser.runtime.asr import RecognizedWord
from edgeser.runtime.frontends import LogMel, WordVectors
from edgeser.runtime.results import Timings, Word, explain_audio, explain_words

LENGTH = 100
TEXT = WordVectors.quantized(["i"], np.ones((1, 4), np.float32), 20)
WEIGHTS = arrays.arrays(np.float32, LENGTH, elements=st.floats(0, 8, width=32))


@pytest.fixture(scope="module")
def frontend() -> LogMel:
    return LogMel(40, LENGTH)


def importance(*peaks: int, valid: int = LENGTH) -> NDArray[np.float32]:
    """1 in every valid row, and 9 more in the peaks."""
    rows = np.zeros(LENGTH, np.float32)
    rows[:valid] = 1
    rows[list(peaks)] += 9
    return rows


def explain(transcript: str, *weights: float, heard: tuple[RecognizedWord, ...] = ()) -> tuple[Word, ...]:
    return explain_words(transcript, TEXT.tokens(transcript), np.array(weights, np.float32), heard)


def test_timings_add_up() -> None:
    assert Timings(1.0, 2.0, 4.0, 8.0).total_ms == 15.0
    assert Timings(1.0, 2.0, 4.0, 8.0, 16.0).total_ms == 31.0


class TestSpans:
    def test_two_moments(self, frontend: LogMel) -> None:
        early, late = explain_audio(importance(*range(10, 20), *range(60, 70)), np.arange(LENGTH), frontend)
        assert (early.start_s, early.end_s) == (0.1, 0.215)  # rows 10 to 19 of 10 ms, the last sees 25 ms
        assert (late.start_s, late.end_s) == (0.6, 0.715)
        assert early.importance == pytest.approx(100 / 280)

    @pytest.mark.parametrize(("gap", "count"), [(0.09, 1), (0.10, 1), (0.11, 2)])
    def test_moments_closer_than_a_tenth_of_a_second_are_one(self, frontend: LogMel, gap: float, count: int) -> None:
        second = 20 + round(gap * 100)
        rows = importance(*range(11, 21), *range(second, second + 10))
        assert len(explain_audio(rows, np.arange(LENGTH), frontend)) == count

    def test_a_fifth_of_the_valid_rows(self, frontend: LogMel) -> None:
        rows = np.arange(LENGTH, 0, -1, dtype=np.float32)
        (span,) = explain_audio(rows, np.arange(50), frontend)
        assert (span.start_s, span.end_s) == (0.0, 0.115)

    def test_pauses_between_rows_are_no_moments(self, frontend: LogMel) -> None:
        heard = np.concatenate([np.arange(10), np.arange(200, 210)])  # 1.9 s of pause left out between the two
        rows = np.zeros(LENGTH, np.float32)
        rows[8:12] = 1.0
        before, after = explain_audio(rows, heard, frontend)
        assert (before.start_s, before.end_s) == (0.08, 0.115)
        assert (after.start_s, after.end_s) == (2.0, 2.035)
        assert before.importance == after.importance == 0.5

    def test_padding_is_never_a_moment(self, frontend: LogMel) -> None:
        rows = importance(5, valid=30)
        rows[30:] = 1000
        assert max(span.end_s for span in explain_audio(rows, np.arange(30), frontend)) <= 0.315

    @pytest.mark.parametrize("valid", [0, 1, LENGTH])
    def test_no_importance_no_moments(self, frontend: LogMel, valid: int) -> None:
        assert explain_audio(np.zeros(LENGTH, np.float32), np.arange(valid), frontend) == ()

    def test_even_importance_is_one_moment(self, frontend: LogMel) -> None:
        (span,) = explain_audio(importance(), np.arange(LENGTH), frontend)
        assert (span.start_s, span.end_s, span.importance) == (0.0, 1.015, 1.0)

    @settings(max_examples=80, deadline=None)
    @given(WEIGHTS, st.integers(0, LENGTH))
    def test_any_importance(self, frontend: LogMel, rows: NDArray[np.float32], valid: int) -> None:
        spans = explain_audio(rows, np.arange(valid), frontend)
        assert bool(spans) == bool(rows[:valid].sum() > 0)
        assert all(0 <= span.start_s < span.end_s <= valid / 100 + 0.015 + 1e-9 for span in spans)
        assert all(b.start_s - a.end_s > 0.0749 for a, b in itertools.pairwise(spans))
        if spans:
            assert 0.19 < sum(span.importance for span in spans) <= 1 + 1e-9  # at least the share of a fifth


class TestWords:
    def test_shares(self) -> None:
        words = explain("I am fine", 1, 1, 2)
        assert [word.text for word in words] == ["I", "am", "fine"]
        assert [word.importance for word in words] == pytest.approx([0.25, 0.25, 0.5])
        assert [word.mattered for word in words] == [False, False, True]

    def test_pieces_and_marks_count_for_their_word(self) -> None:
        words = explain("I don't!  No?!", 1, 2, 3, 4, 1, 1, 3)
        assert [word.text for word in words] == ["I", "don't!", "No?!"]
        assert [word.importance for word in words] == pytest.approx([1 / 15, 9 / 15, 5 / 15])

    def test_words_after_one_that_grows_in_lower_case(self) -> None:
        words = explain("İİİ's a b", 0, 1, 2, 4)
        assert [word.importance for word in words] == pytest.approx([1 / 7, 2 / 7, 4 / 7])

    def test_words_past_the_models_length_weigh_nothing(self) -> None:
        transcript = " ".join("abcdefghijklmnopqrstuvwxyz")
        tokens = TEXT.tokens(transcript)[: TEXT.length]
        words = explain_words(transcript, tokens, np.ones(TEXT.length, np.float32))
        assert [word.importance for word in words] == pytest.approx([1 / 20] * 20 + [0] * 6)

    def test_one_word_matters_no_more_than_itself(self) -> None:
        (word,) = explain("no", 3)
        assert (word.importance, word.mattered) == (1.0, False)

    def test_no_importance(self) -> None:
        for weights in (None, np.zeros(20, np.float32)):
            words = explain_words("I am", TEXT.tokens("I am"), weights)
            assert words == (Word("I", 0.0, False), Word("am", 0.0, False))

    def test_nothing_said(self) -> None:
        assert explain_words("", [], np.zeros(20, np.float32)) == ()
        assert explain_words(" \n", [], None) == ()

    def test_the_recognisers_times(self) -> None:
        heard = (RecognizedWord("i", 0.1, 0.2, 0.9), RecognizedWord("am", 0.2, 0.4, 0.8))
        words = explain("i am", 1, 1, heard=heard)
        assert [(w.start_s, w.end_s, w.confidence) for w in words] == [(0.1, 0.2, 0.9), (0.2, 0.4, 0.8)]

    def test_times_that_do_not_fit_the_words_are_left_out(self) -> None:
        words = explain("i am", 1, 1, heard=(RecognizedWord("i", 0.1, 0.2, 0.9),))
        assert [(w.start_s, w.end_s, w.confidence) for w in words] == [(None, None, None)] * 2

    @settings(max_examples=150, deadline=None)
    @given(st.text(max_size=60), WEIGHTS)
    def test_any_text(self, transcript: str, weights: NDArray[np.float32]) -> None:
        tokens = TEXT.tokens(transcript)[: TEXT.length]
        words = explain_words(transcript, tokens, weights[: TEXT.length])
        assert [word.text for word in words] == transcript.split()
        weighed = weights[: len(tokens)].sum() > 0
        assert sum(word.importance for word in words) == pytest.approx(1.0 if weighed else 0.0)
