"""Protocols: who trains, who validates, who tests, and that nobody does two of it."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.corpora import PROTOCOLS, Fold, Utterance, make_folds
from edgeser.runtime.errors import InputError

EMOTIONS = ("angry", "happy", "neutral", "sad")


def utterances(
    count: int, sessions: int = 5, lines: int = 1, split: Sequence[str] = ("train", "dev", "test")
) -> list[Utterance]:
    """Make `count` recordings of `lines` utterances each, emotions and sessions and speakers in turn."""
    return [
        Utterance(
            f"u{number:04d}-{line}",
            Path(f"{number}.wav"),
            EMOTIONS[number % 4],
            session=str(number % sessions + 1),
            speaker=f"s{number % (2 * sessions)}",
            split=split[number % len(split)],
            corpus=f"c{number % sessions % 3}",
        )
        for number in range(count)
        for line in range(lines)
    ]


def ids(some: Sequence[Utterance]) -> set[str]:
    return {u.id for u in some}


def check_sound(folds: list[Fold], everything: list[Utterance]) -> None:
    """Each fold uses every utterance once, in the corpus's order, and no recording stands on two sides."""
    for fold in folds:
        parts = (fold.train, fold.validation, fold.test)
        assert Counter(u.id for part in parts for u in part) == Counter(u.id for u in everything)
        heard = [{u.recording for u in part} for part in parts]
        assert not heard[0] & heard[1]
        assert not heard[0] & heard[2]
        assert not heard[1] & heard[2]
        for part in parts:
            assert [u.id for u in part] == [u.id for u in everything if u.id in ids(part)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(deadline=None, max_examples=20)
@given(count=st.integers(20, 60), sessions=st.integers(3, 6), lines=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_every_protocol_uses_every_utterance_once(
    protocol: str, count: int, sessions: int, lines: int, seed: int
) -> None:
    everything = utterances(count, sessions, lines)
    folds = make_folds(protocol, everything, seed=seed)
    check_sound(folds, everything)
    assert all(fold.train for fold in folds)
    assert all(bool(fold.test) == (protocol != "all") for fold in folds)
    assert len({fold.name for fold in folds}) == len(folds)


@pytest.mark.parametrize(
    ("protocol", "what"),
    [
        ("leave-one-session-out", "session"),
        ("leave-one-speaker-out", "speaker"),
        ("leave-one-corpus-out", "corpus"),
    ],
)
def test_each_session_speaker_or_corpus_is_held_out_once_and_never_leaks(protocol: str, what: str) -> None:
    everything = utterances(30)
    folds = make_folds(protocol, everything)
    assert [fold.name for fold in folds] == sorted({getattr(u, what) for u in everything})
    for fold in folds:
        assert {getattr(u, what) for u in fold.test} == {fold.name}
        assert fold.name not in {getattr(u, what) for u in fold.train}
        assert fold.validation == ()


def test_what_may_only_be_tested_on_is_never_trained_on() -> None:
    """It is tested by one more fold, which trains on everything else."""
    everything = [dataclasses.replace(u, role="Test" if u.corpus == "c2" else "train") for u in utterances(30)]
    kept = {u.id for u in everything if u.corpus == "c2"}
    folds = make_folds("leave-one-corpus-out", everything)
    assert [fold.name for fold in folds] == ["c0", "c1", "test-only"]
    for fold in folds:
        assert not ids(fold.train) & kept
    assert [{u.corpus for u in fold.train} for fold in folds] == [{"c1"}, {"c0"}, {"c0", "c1"}]
    assert ids(folds[2].test) == kept
    (final,) = make_folds("all", everything)
    assert (ids(final.train), ids(final.test)) == (ids(folds[2].train), kept)
    for protocol in set(PROTOCOLS) - {"leave-one-corpus-out", "all"}:
        with pytest.raises(InputError, match=rf"{protocol}: 6 of 30 utterances may only be tested on \(u0002-0: role"):
            make_folds(protocol, everything)


def test_a_single_corpus_is_not_held_out_where_others_test() -> None:
    everything = [dataclasses.replace(u, role="test" if u.corpus != "c0" else "") for u in utterances(30)]
    (fold,) = make_folds("leave-one-corpus-out", everything)
    assert fold.name == "test-only"
    assert {u.corpus for u in fold.train} == {"c0"}


def test_rotating_is_three_one_and_one_of_five_sessions() -> None:
    folds = make_folds("rotating", utterances(50))
    assert [fold.name for fold in folds] == ["1", "2", "3", "4", "5"]
    validating = []
    for fold in folds:
        assert {u.session for u in fold.test} == {fold.name}
        (validates,) = {u.session for u in fold.validation}
        validating.append(validates)
        assert {u.session for u in fold.train} == set("12345") - {fold.name, validates}
    assert sorted(validating) == ["1", "2", "3", "4", "5"]


def test_random_splits_have_the_papers_shares_and_follow_their_seed() -> None:
    everything = utterances(400, lines=2)
    folds = make_folds("random", everything, seed=7)
    assert [fold.name for fold in folds] == ["1", "2", "3", "4", "5"]
    assert [(len(f.train), len(f.validation), len(f.test)) for f in folds] == [(440, 200, 160)] * 5
    assert len({frozenset(ids(fold.test)) for fold in folds}) == 5
    shuffled = random.Random(1).sample(everything, len(everything))
    for fold, same, other in zip(
        folds, make_folds("random", shuffled, seed=7), make_folds("random", everything, seed=8), strict=True
    ):
        assert ids(same.test) == ids(fold.test)
        assert ids(other.test) != ids(fold.test)


def test_per_class_splits_every_emotion_seven_one_two() -> None:
    everything = [u for u in utterances(400, lines=2) if u.emotion != "sad" or int(u.id[1:5]) < 40]
    (fold,) = make_folds("per-class", everything)
    assert fold.name == "split"
    for emotion, recordings in (("angry", 100), ("happy", 100), ("neutral", 100), ("sad", 10)):
        counts = [sum(u.emotion == emotion for u in part) for part in (fold.train, fold.validation, fold.test)]
        assert counts == [recordings * 2 * share // 10 for share in (7, 1, 2)]


def test_a_recording_of_two_emotions_stays_on_one_side() -> None:
    """Four of five lines of each recording are happy: with their recording goes the fifth."""
    everything = [
        Utterance(f"{number}-{line}", Path(f"{number}.wav"), "sad" if line == 4 else "happy")
        for number in range(10)
        for line in range(5)
    ]
    (fold,) = make_folds("per-class", everything)
    check_sound([fold], everything)
    assert [len(part) for part in (fold.train, fold.validation, fold.test)] == [35, 5, 10]


def test_official_splits_are_the_corpus_s_own() -> None:
    (fold,) = make_folds("official", utterances(30))
    assert fold.name == "official"
    for part, split in ((fold.train, "train"), (fold.validation, "dev"), (fold.test, "test")):
        assert {u.split for u in part} == {split}
        assert len(part) == 10


def test_named_folds_alone() -> None:
    everything = utterances(30)
    assert [fold.name for fold in make_folds("leave-one-session-out", everything, ["3", "1"])] == ["3", "1"]
    (second,) = make_folds("random", everything, ["2"])
    assert second == make_folds("random", everything)[1]


@pytest.mark.parametrize(
    ("protocol", "everything", "message"),
    [
        ("leave-one-session-out", utterances(4, 1), "has 1 sessions .* for example leave-one-speaker-out"),
        (
            "leave-one-session-out",
            [*utterances(4), Utterance("x", Path("x.wav"))],
            "4 sessions and 1 utterances without",
        ),
        ("leave-one-speaker-out", [Utterance("x", Path("x.wav"))], "0 speakers and 1 utterances without one"),
        ("leave-one-corpus-out", utterances(8, 1), "has 1 corpora and 0 utterances without one, expected 2 or more"),
        (
            "leave-one-corpus-out",
            [dataclasses.replace(u, role="test") for u in utterances(8)],
            "has 0 corpora and 0 utterances without one, expected 1 or more",
        ),
        (
            "leave-one-corpus-out",
            [
                *utterances(8),
                *(Utterance(f"x{n}", Path("x.wav"), corpus="test-only", role=r) for n, r in ((1, ""), (2, "test"))),
            ],
            "a corpus is called test-only, which is the name of a fold: rename it",
        ),
        ("rotating", utterances(8, 2), "has 2 sessions .* expected 3 or more"),
        ("random", utterances(2), "random: the corpus has 2 recordings, expected 3 or more"),
        ("per-class", utterances(9), "per-class: happy has 2 recordings, expected 3 or more"),
        ("official", utterances(6, split=("train", "test")), "no utterances with split dev"),
        ("official", utterances(6, split=("train", "")), r"3 utterances have another split than .* \(u0001-0: ''\)"),
        ("leave-one-sesion-out", utterances(6), "got 'leave-one-sesion-out', expected one of leave-one-session-out"),
    ],
)
def test_a_corpus_that_does_not_fit_its_protocol(protocol: str, everything: list[Utterance], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        make_folds(protocol, everything)
    assert "\n" not in str(raised.value)


def test_an_unknown_fold() -> None:
    with pytest.raises(InputError, match="folds: got 7, leave-one-session-out gives 1, 2"):
        make_folds("leave-one-session-out", utterances(8, 2), ["7"])


def test_a_name_that_no_folder_can_have() -> None:
    bad = [Utterance(str(i), Path(f"{i}.wav"), "sad", speaker=name) for i, name in enumerate(("../up", "b"))]
    with pytest.raises(InputError, match=r"fold: got name '\.\./up', expected one that can stand in a folder's"):
        make_folds("leave-one-speaker-out", bad)
