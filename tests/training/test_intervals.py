"""Intervals over speakers: against what can be worked out, and against another way of drawing them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.labels import NO_SPEECH
from edgeser.runtime.metrics import accuracies, measure
from edgeser.training.intervals import Counts, count_by_speaker, speaker_interval

LABELS = ("angry", "happy", "sad")


def predictions(right: dict[str, float], count: int = 30, seed: int = 0) -> list[dict[str, str]]:
    """Make `count` predictions of each speaker, of which a share is right."""
    rng = np.random.default_rng(seed)
    rows = []
    for speaker, share in right.items():
        for place in range(count):
            emotion = LABELS[place % 3]
            label = emotion if rng.random() < share else LABELS[(place + 1) % 3]
            rows.append({"emotion": emotion, "label": label, "speaker": speaker, "corpus": "c"})
    return rows


def counts(right: dict[str, float], seed: int = 0) -> Counts:
    found = count_by_speaker(predictions(right, seed=seed), LABELS)
    assert found is not None
    return found


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from((*LABELS, NO_SPEECH))), min_size=1))
def test_accuracies_of_counts_are_those_of_the_predictions(pairs: list[tuple[str, str]]) -> None:
    truth, guesses = zip(*pairs, strict=True)
    rows = [{"emotion": t, "label": g, "speaker": f"s{i % 3}"} for i, (t, g) in enumerate(pairs)]
    found = count_by_speaker(rows, LABELS)
    assert found is not None
    metrics = measure(guesses, truth, LABELS)
    for name, value in accuracies(np.sum(list(found.values()), axis=0)).items():
        assert value == pytest.approx(getattr(metrics, name))
    assert np.sum(list(found.values())) == len(pairs)


def test_an_interval_is_what_drawing_speakers_one_by_one_gives() -> None:
    rows = predictions({f"s{i}": 0.4 + 0.04 * i for i in range(12)})
    found = count_by_speaker(rows, LABELS)
    assert found is not None
    interval = speaker_interval([[found]], "ua")
    assert interval is not None
    rng = np.random.default_rng(5)
    speakers = sorted({row["speaker"] for row in rows})
    drawn = []
    for _ in range(1000):
        chosen = [row for name in rng.choice(speakers, len(speakers)) for row in rows if row["speaker"] == name]
        drawn.append(measure([r["label"] for r in chosen], [r["emotion"] for r in chosen], LABELS).ua)
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.02)
    assert interval.speakers == 12
    assert speaker_interval([[found]], "ua") == interval, "the same predictions give the same interval"


def test_of_two_speakers_each_is_drawn_alone_as_often_as_not() -> None:
    interval = speaker_interval([[counts({"a": 1.0, "b": 0.0})]], "ua")
    assert interval is not None
    assert (interval.low, interval.high, interval.speakers, str(interval)) == (0.0, 1.0, 2, "0.000\u20131.000")


def test_speakers_who_are_alike_have_a_narrow_one_however_they_differ_in_name() -> None:
    interval = speaker_interval([[counts({f"s{i}": 1.0 for i in range(5)})]], "wa")
    assert interval is not None
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_parts_are_drawn_each_for_itself_and_their_mean_is_taken() -> None:
    """What differs between corpora, and not between their speakers, makes no interval wider."""
    good, bad = counts({"a": 1.0, "b": 1.0}), counts({"c": 0.0, "d": 0.0})
    interval = speaker_interval([[good, bad]], "ua")
    assert interval is not None
    assert (interval.low, interval.high, interval.speakers, interval.is_pooled) == (0.5, 0.5, 4, False)


def test_one_speaker_a_part_or_one_in_several_is_drawn_from_all() -> None:
    alone = speaker_interval([[counts({"a": 1.0}), counts({"b": 0.0})]], "ua")
    several = speaker_interval([[counts({"a": 1.0, "b": 0.0}), counts({"a": 1.0, "b": 0.0})]], "ua")
    assert alone is not None
    assert several is not None
    for interval in (alone, several):
        assert (interval.low, interval.high, interval.speakers, interval.is_pooled) == (0.0, 1.0, 2, True)
    assert alone.as_dict() == {"low": 0.0, "high": 1.0, "speakers": 2, "of": "pooled"}


def test_runs_are_of_the_same_draws() -> None:
    """Two seeds that err on different speakers are together as good on each: their mean hardly moves."""
    first, second = counts({"a": 1.0, "b": 0.0}), counts({"a": 0.0, "b": 1.0})
    interval = speaker_interval([[first], [second]], "ua")
    assert interval is not None
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_no_interval_without_speakers_or_of_one_alone() -> None:
    assert count_by_speaker([{"emotion": "sad", "label": "sad"}], LABELS) is None
    assert count_by_speaker([{"emotion": "sad", "label": "sad", "speaker": ""}], LABELS) is None
    assert speaker_interval([[counts({"a": 0.5})]], "ua") is None
    assert speaker_interval([[None]], "ua") is None
    assert speaker_interval([[counts({"a": 0.5, "b": 0.5})], [counts({"a": 0.5, "c": 0.5})]], "ua") is None


def test_speakers_of_one_name_in_two_corpora_are_two() -> None:
    rows = predictions({"01": 0.5})
    rows += [{**row, "corpus": "other"} for row in rows]
    found = count_by_speaker(rows, LABELS)
    assert found is not None
    assert set(found) == {"c/01", "other/01"}
