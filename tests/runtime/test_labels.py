from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import EMODB_CODES, FOUR_EMOTIONS, RAVDESS_CODES, SEVEN_EMOTIONS, emotion_name

CORPORA = {
    "iemocap": "ang hap exc sad neu fru fea sur dis",
    "meld": "anger disgust fear joy neutral sadness surprise",
    "ravdess": "neutral calm happy sad angry fearful disgust surprised",
    "lssed": "angry neutral fear happy sad bored disgusted excited surprised",
    "emodb": "anger boredom disgust anxiety happiness sadness neutral",
}


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("exc", "happy"),
        ("excited", "happy"),
        ("joy", "happy"),
        ("hap", "happy"),
        ("Anger", "angry"),
        ("  SADNESS\n", "sad"),
        ("fearful", "fear"),
        ("anxiety", "fear"),
        ("surprised", "surprise"),
        ("fru", "frustrated"),
        ("neu", "neutral"),
        ("bored", "boredom"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert emotion_name(spelling) == name


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_label_of_a_corpus_is_known(corpus: str) -> None:
    names = [emotion_name(label) for label in CORPORA[corpus].split()]
    assert [emotion_name(name) for name in names] == names


@pytest.mark.parametrize("labels", [FOUR_EMOTIONS, SEVEN_EMOTIONS, RAVDESS_CODES.values(), EMODB_CODES.values()])
def test_label_sets_hold_canonical_names_once(labels: tuple[str, ...]) -> None:
    assert [emotion_name(label) for label in labels] == list(labels)
    assert len(set(labels)) == len(labels)


def test_label_sets_are_sorted() -> None:
    assert sorted(FOUR_EMOTIONS) == list(FOUR_EMOTIONS)
    assert sorted(SEVEN_EMOTIONS) == list(SEVEN_EMOTIONS)


@pytest.mark.parametrize("codes", [RAVDESS_CODES, EMODB_CODES])
def test_code_tables_are_read_only(codes: Mapping[str, str]) -> None:
    with pytest.raises(TypeError, match="does not support item assignment"):
        codes["01"] = "sad"  # type: ignore[index]


def test_ravdess_codes_read_the_clips_names(clips: list[Path]) -> None:
    assert {RAVDESS_CODES[clip.stem.split("-")[2]] for clip in clips} == set(FOUR_EMOTIONS)


@given(st.text(max_size=20))
def test_any_text_is_a_known_emotion_or_refused(text: str) -> None:
    try:
        assert emotion_name(text) == emotion_name(emotion_name(text))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("spelling", ["", "xxx", "angry!", "oth"])
def test_unknown_label_is_refused(spelling: str) -> None:
    with pytest.raises(InputError, match=f"emotion: got '{spelling}', expected one of ang, "):
        emotion_name(spelling)
