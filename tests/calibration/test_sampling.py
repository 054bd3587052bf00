from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from edgeser.calibration.sampling import SMALLEST, Division, Sampling, divide
from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.utterance import TEST_ONLY
from edgeser.runtime.errors import InputError

LABELS = ("angry", "happy", "neutral", "sad")
EMOTIONS = (*LABELS, "fear", None)  # the last two are of no use to the model
SPEAKERS = ("ann", "bob", "cat")
SESSIONS = ("1", "2", "3")

Row = tuple[str | None, str, str, int]


def utterances_of(rows: Sequence[Row]) -> list[Utterance]:
    """Utterances of `(emotion, speaker, session, recording)`; no file has to be there."""
    return [
        Utterance(f"u{place}", Path(f"{recording}.wav"), emotion, speaker=speaker, session=session)
        for place, (emotion, speaker, session, recording) in enumerate(rows)
    ]


def plain(emotions: int = 4, speakers: int = 3, each: int = 10) -> list[Utterance]:
    """Each emotion by each speaker, as often, every utterance another recording; speaker i in session i."""
    rows = [
        (LABELS[e], SPEAKERS[s], SESSIONS[s]) for _ in range(each) for e in range(emotions) for s in range(speakers)
    ]
    return utterances_of([(*row, place) for place, row in enumerate(rows)])


def recordings(utterances: Sequence[Utterance]) -> set[object]:
    return {u.recording for u in utterances}


def assert_balanced(
    drawn: Sequence[Utterance], pool: Sequence[Utterance], key: Callable[[Utterance], str | None]
) -> None:
    """Every stratum has as many as the largest, within one, or all that there are."""
    there, taken = Counter(map(key, pool)), Counter(map(key, drawn))
    for stratum, count in there.items():
        assert taken[stratum] >= min(max(taken.values()) - 1, count), (stratum, taken, there)


def left_out(utterance: Utterance, sampling: Sampling) -> bool:
    return (
        utterance.session in sampling.exclude_sessions
        or utterance.speaker in sampling.exclude_speakers
        or utterance.id in sampling.exclude
    )


SAMPLINGS = st.builds(
    Sampling,
    count=st.integers(SMALLEST, 60),
    validation=st.integers(SMALLEST, 60),
    seed=st.integers(0, 1000),
    exclude_sessions=st.sampled_from([(), (), ("2",), ("1", "3")]),
    exclude_speakers=st.sampled_from([(), (), ("bob",)]),
    exclude=st.frozensets(st.integers(0, 60).map("u{}".format), max_size=5),
)


def tables(most_recordings: int) -> st.SearchStrategy[list[Row]]:
    """All strata at least twice and 0 to 120 rows more; the fewer recordings, the more utterances share one."""
    sure = 2 * [(emotion, speaker, session) for emotion in LABELS for speaker in SPEAKERS for session in SESSIONS]
    row = st.tuples(st.sampled_from(EMOTIONS), st.sampled_from(SPEAKERS), st.sampled_from(SESSIONS))
    strata = st.lists(row, max_size=120).map(lambda more: [*sure, *more])
    seeds = st.integers(0, 2**32)
    numbers = seeds.map(lambda seed: np.random.default_rng(seed).integers(0, most_recordings, 192).tolist())
    return st.tuples(strata, numbers).map(lambda both: [(*row, n) for row, n in zip(*both, strict=False)])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.one_of(tables(1000), tables(60)), SAMPLINGS)
def test_what_is_drawn(rows: list[Row], sampling: Sampling) -> None:
    """Whatever the corpus: who is drawn, how many, from where."""
    utterances = utterances_of(rows)
    known = [u for u in utterances if u.emotion in LABELS and u.id not in sampling.exclude]
    named = [u for u in utterances if u.id in sampling.exclude]
    heard = recordings([*named, *(u for u in known if left_out(u, sampling))])
    pool = [u for u in known if u.recording not in heard]
    try:
        division = divide(utterances, LABELS, sampling)
    except InputError:
        reject()  # too few are left, which the next test is about
    drawn, validation = division.calibration, division.validation
    rest = [u for u in pool if u.recording not in recordings(drawn)]
    assert {*drawn} <= {*pool}
    assert {*validation} <= {*rest}
    assert len(drawn) == len({*drawn}) == min(sampling.count, len(pool)) >= SMALLEST
    assert len(validation) == len({*validation}) == min(sampling.validation, len(rest)) >= SMALLEST
    assert not recordings(drawn) & recordings(validation)
    assert not recordings([*drawn, *validation]) & heard
    assert not [u for u in (*drawn, *validation) if left_out(u, sampling)]
    in_session_or_speaker = dataclasses.replace(sampling, exclude=frozenset())
    assert list(division.excluded) == [u for u in known if left_out(u, in_session_or_speaker)]
    for some, of in ((drawn, pool), (validation, rest)):
        assert_balanced(some, of, lambda u: u.emotion)
        for emotion in LABELS:
            assert_recordings_first([u for u in some if u.emotion == emotion], [u for u in of if u.emotion == emotion])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 80), st.integers(SMALLEST, 60), st.sampled_from([(), ("ann",)]))
def test_when_too_few_are_left(size: int, count: int, out: tuple[str, ...]) -> None:
    """Sixteen for either set, of those that are not excluded."""
    utterances = plain()[: 1 + size]
    left = sum(u.speaker not in out for u in utterances)
    if left < SMALLEST:
        message = f"corpus: {left} utterances are left to calibrate on, expected at least 16: exclude less"
    elif left - min(count, left) < SMALLEST:
        message = f"corpus: {min(count, left)} of {left} utterances calibrate and {left - min(count, left)} of other"
    else:
        division = divide(utterances, LABELS, Sampling(count, SMALLEST, exclude_speakers=out))
        assert len(division.calibration) == count
        return
    with pytest.raises(InputError, match=message):
        divide(utterances, LABELS, Sampling(count, SMALLEST, exclude_speakers=out))


def assert_recordings_first(drawn: Sequence[Utterance], pool: Sequence[Utterance]) -> None:
    """Of an emotion, no recording comes twice before each was heard."""
    heard = recordings(drawn)
    assert len(heard) == len(drawn) or heard == recordings(pool)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tables(1), st.integers(SMALLEST, 40), st.integers(0, 1000))
def test_speakers_take_turns_in_each_emotion(rows: list[Row], count: int, seed: int) -> None:
    utterances = utterances_of([(*row[:3], place) for place, row in enumerate(rows)])
    division = divide(utterances, LABELS, Sampling(count, SMALLEST, seed))
    rest = [u for u in utterances if u not in division.calibration]
    for drawn, pool in ((division.calibration, utterances), (division.validation, rest)):
        for emotion in LABELS:
            of_emotion = [u for u in pool if u.emotion == emotion]
            assert_balanced([u for u in drawn if u.emotion == emotion], of_emotion, lambda u: u.speaker)


def test_a_rare_emotion_and_a_rare_speaker_are_all_taken() -> None:
    """300 of one emotion by one speaker do not crowd out the others."""
    rows = [("neutral", "ann", "1")] * 300 + [("sad", "ann", "1")] * 4 + [("neutral", "bob", "1")] * 5
    utterances = utterances_of([(*row, place) for place, row in enumerate(rows)])
    drawn = divide(utterances, LABELS, Sampling(20, SMALLEST)).calibration
    assert Counter((u.emotion, u.speaker) for u in drawn) == {
        ("sad", "ann"): 4,
        ("neutral", "bob"): 5,
        ("neutral", "ann"): 11,
    }


def test_the_seed_is_the_draw() -> None:
    utterances = plain()
    first, again, other = (divide(utterances, LABELS, Sampling(24, 24, seed)) for seed in (3, 3, 4))
    assert first == again
    assert {*first.calibration} != {*other.calibration}
    assert {*first.validation} != {*other.validation}
    draws = {divide(utterances, LABELS, Sampling(24, 24, seed)).calibration for seed in range(60)}
    assert len(draws) == 60
    assert {u for draw in draws for u in draw} == {*utterances}, "some are never drawn"


def test_no_recording_of_an_excluded_session_under_another_name() -> None:
    """Ann's first is also there as Bob's, in another session."""
    utterances = plain(speakers=2, each=20)
    first = utterances[0]
    twin = dataclasses.replace(first, id="twin", session="2", speaker="bob", transcript="other words")
    for sampling in (
        Sampling(40, 40, exclude_sessions=("1",)),
        Sampling(40, 40, exclude_speakers=("ann",)),
        Sampling(60, 60, exclude=frozenset({first.id})),
    ):
        division = divide([*utterances, twin], LABELS, sampling)
        assert first.recording not in recordings([*division.calibration, *division.validation])
        assert len(division.calibration) + len(division.validation) > 70, "all but the twin are drawn"


def test_recordings_of_an_excluded_id_without_a_label() -> None:
    """What an excluded utterance says or feels does not matter: it must not be heard."""
    utterances = plain()
    unlabelled = dataclasses.replace(utterances[0], id="unlabelled", emotion=None)
    division = divide([*utterances, unlabelled], LABELS, Sampling(60, 60, exclude=frozenset({"unlabelled"})))
    assert {*division.calibration, *division.validation} == {*utterances[1:]}
    assert division.excluded == ()


def test_two_stretches_of_a_file_are_two_recordings() -> None:
    utterances = [
        dataclasses.replace(u, audio=Path("all.wav"), start_s=float(place), end_s=place + 1.0)
        for place, u in enumerate(plain())
    ]
    division = divide(utterances, LABELS, Sampling(60, 60))
    assert {*division.calibration, *division.validation} == {*utterances}


def test_iemocap(iemocap: Path) -> None:
    """Ten speakers, two a session: with one session out, eight give as many of each emotion."""
    utterances = read_corpus(f"iemocap:{iemocap}")
    sampling = Sampling(16, 200, exclude_sessions=("5",))
    division = divide(utterances, LABELS, sampling)
    assert Counter(u.emotion for u in division.calibration) == dict.fromkeys(LABELS, 4)
    for emotion in LABELS:
        assert len({u.speaker for u in division.calibration if u.emotion == emotion}) == 4
    assert {u.session for u in division.excluded} == {"5"}
    assert len(division.excluded) == 10
    assert {*division.calibration, *division.validation, *division.excluded} == {*utterances}
    assert len(division.validation) == 24
    speaker_out = divide(utterances, LABELS, Sampling(16, 16, exclude_speakers=("Ses01F",)))
    assert {u.speaker for u in speaker_out.excluded} == {"Ses01F"}


def test_validation_in_shared_recordings(wide_corpus: str) -> None:
    """Forty utterances of twenty recordings: both sets hold some of each emotion, and share no recording."""
    with pytest.raises(InputError, match="left to validate on"):
        divide(read_corpus(wide_corpus), LABELS, Sampling(16, 16))
    once_more = [dataclasses.replace(u, id=f"{u.id}b", end_s=3.0) for u in read_corpus(wide_corpus)]
    division = divide([*read_corpus(wide_corpus), *once_more], LABELS, Sampling(16, 16))
    for drawn in (division.calibration, division.validation):
        assert Counter(u.emotion for u in drawn) == dict.fromkeys(LABELS, 4)
        assert len(recordings(drawn)) == 16
    assert not recordings(division.calibration) & recordings(division.validation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclude_sessions": ("2", "9")}, "--exclude-sessions: got 9, the corpus has 1, 2, 3"),
        ({"exclude_sessions": ("b", "a")}, "--exclude-sessions: got a, b, the corpus has 1, 2, 3"),
        ({"exclude_speakers": ("dan",)}, "--exclude-speakers: got dan, the corpus has ann, bob, cat"),
    ],
)
def test_unknown_sessions_and_speakers(changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        divide(plain(), LABELS, Sampling(16, 16, **changes))


def test_a_corpus_without_sessions() -> None:
    utterances = [dataclasses.replace(u, session="") for u in plain()]
    with pytest.raises(InputError, match="--exclude-sessions: got 5, the corpus has none"):
        divide(utterances, LABELS, Sampling(16, 16, exclude_sessions=("5",)))


@pytest.mark.parametrize(
    ("utterances", "found"),
    [([], "none"), (plain(emotions=2), "angry, happy"), (utterances_of([(None, "ann", "1", 0)]), "None")],
)
def test_labels_that_do_not_fit(utterances: list[Utterance], found: str) -> None:
    message = f"corpus: its emotions are {found}, the bundle's joy, fear: none fits, take the corpus"
    with pytest.raises(InputError, match=message):
        divide(utterances, ("joy", "fear"), Sampling(16, 16))


def test_sets_that_are_too_small() -> None:
    """Sixteen of each are enough, fifteen are not."""
    enough = plain(each=3)[:32]
    division = divide(enough, LABELS, Sampling(16, 16))
    assert (len(division.calibration), len(division.validation)) == (16, 16)
    with pytest.raises(
        InputError, match="corpus: 15 utterances are left to calibrate on, expected at least 16: exclude"
    ):
        divide(enough[:15], LABELS, Sampling(16, 16))
    message = "corpus: 16 of 31 utterances calibrate and 15 of other recordings are left to validate on, expected at"
    with pytest.raises(InputError, match=f"{message} least 16: lower --count"):
        divide(enough[:31], LABELS, Sampling(16, 16))
    with pytest.raises(InputError, match="corpus: 32 of 32 utterances calibrate and 0 of other recordings"):
        divide(enough, LABELS, Sampling())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 15}, "--count: got 15, expected at least 16 utterances to calibrate on"),
        ({"validation": 0}, "--validation: got 0, expected at least 16 utterances"),
        ({"seed": -1}, "--seed: got -1, expected 0 or more"),
    ],
)
def test_impossible_samplings(changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        Sampling(**changes)


def test_description() -> None:
    utterances = plain()
    ids = frozenset({"u1", "u2"})
    division = divide(utterances, LABELS, Sampling(20, 30, 7, exclude_sessions=("3",), exclude=ids))
    found = division.describe()
    names = "\n".join(sorted(u.id for u in division.calibration))
    assert found == {
        "method": "stratified by emotion and speaker, one utterance a recording while there are others",
        "utterances": 20,
        "ids_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "validation": 30,
        "seed": 7,
        "exclude_sessions": ["3"],
        "exclude_speakers": [],
        "exclude_ids": 2,
    }
    assert json.loads(json.dumps(found)) == found


def test_description_follows_the_set_not_its_order() -> None:
    division = divide(plain(), LABELS, Sampling(20, 20))
    turned = dataclasses.replace(division, calibration=division.calibration[::-1])
    less = dataclasses.replace(division, calibration=division.calibration[1:])
    other = divide(plain(), LABELS, Sampling(20, 20, seed=1))
    assert turned.describe() == division.describe()
    assert less.describe()["utterances"] == 19
    assert len({one.describe()["ids_sha256"] for one in (division, less, other)}) == 3


def test_default_division() -> None:
    assert Division((), (), ()).sampling == Sampling(128, 200, 0, (), (), frozenset())


def test_what_may_only_be_tested_on_calibrates_nothing() -> None:
    utterances = [dataclasses.replace(u, role=TEST_ONLY if u.speaker == "cat" else "") for u in plain()]
    division = divide(utterances, LABELS, Sampling(count=16))
    assert division.calibration
    assert all(not u.is_test_only for part in (division.calibration, division.validation) for u in part)
