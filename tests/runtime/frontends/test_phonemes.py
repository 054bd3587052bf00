from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends import PHONEMES, Phonemes, WordVectors, read_frontend, restore_frontend, write_frontend
from edgeser.runtime.frontends.letter_to_sound import letter_to_sound
from edgeser.runtime.frontends.phonemes import ARPABET

LONG = "antidisestablishmentarianism"
LONG_SAID = "AE N T IY D IH S IH S T AE B L IH SH M AH N T EH R IY AH N IH Z AH M"
KNOWN = {
    "dogs": ("D", "AA", "G", "Z"),
    "do": ("D", "UW"),
    "she": ("SH", "IY"),
    "hey": ("HH", "EY"),
    "so": ("S", "OW"),
    "i": ("AY",),
    "we": ("W", "IY"),
    "soon": ("S", "UW", "N"),
    "ca": ("S", "IY", "EY"),  # as a dictionary has it; behind it comes n't nearly always
    LONG: tuple(LONG_SAID.split()),
}


@pytest.fixture(scope="module")
def frontend() -> Phonemes:
    return Phonemes(KNOWN, length=6)


def spoken(frontend: Phonemes, transcript: str) -> list[str]:
    """The rows of a transcript, read back from their ids."""
    rows = frontend.rows(frontend.tokens(transcript))
    return [" ".join(PHONEMES[int(i) - 1] for i in row if i) for row in rows]


def test_ids_are_the_phonemes_from_one_on() -> None:
    assert len(ARPABET) == len(set(ARPABET)) == 39
    assert (*ARPABET, "!", "?") == PHONEMES
    rows = Phonemes({"all": ARPABET}, dim=39)("all !?").values
    assert rows[0].tolist() == list(range(1, 40))
    assert rows[1:3, 0].tolist() == [40, 41]
    assert not rows[1:, 1:].any()
    assert not rows[3:].any()
    assert rows.dtype == np.float32


@pytest.mark.parametrize(
    ("transcript", "expected"),
    [
        ("Dogs!", ["D AA G Z", "!"]),
        ("don't can't won't ain't", ["D UW", "N T", "K AE", "N T", "W OW", "N T", "EY", "N T"]),
        ("she's she'll she'd", ["SH IY", "Z", "SH IY", "L", "SH IY", "D"]),
        ("I'm we've", ["AY", "M", "W IY", "V"]),
        ("heyyyy sooooon soo", ["HH EY", "S UW N", "S OW"]),
        ("grrreeenk", ["G R IY NG K"]),  # unknown, so read with its drawn-out letters shortened to two
        ("42 3rd 1000", ["F AO R T UW", "TH R IY R D", "W AH N Z IH R OW Z IH R OW Z IH R OW"]),
        ("Thinking naïve", ["TH IH NG K IH NG", "N EY V"]),
        ("☃ Ёлка так", ["", ""]),  # two words, which no rule can read
        ("", []),
    ],
)
def test_the_rule(frontend: Phonemes, transcript: str, expected: list[str]) -> None:
    assert spoken(frontend, transcript) == expected


def test_long_words_are_cut_and_kept_whole_in_the_bundle(frontend: Phonemes) -> None:
    assert frontend.pronounce(LONG) == KNOWN[LONG]
    assert spoken(frontend, LONG) == [" ".join(KNOWN[LONG][:16])]
    assert Phonemes(KNOWN, dim=3)("dogs").values[0].tolist() == [PHONEMES.index(p) + 1 for p in KNOWN["dogs"][:3]]


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=60))
@example("Don't!!! she's 3pm, o'clock?! heyyy ☃ x\u00b2")
def test_rows_stand_beside_those_of_word_vectors(frontend: Phonemes, transcript: str) -> None:
    words = WordVectors.quantized(["a"], np.ones((1, 2), np.float32), frontend.length)
    assert frontend.tokens(transcript) == words.tokens(transcript)
    features, others = frontend(transcript), words(transcript)
    assert (features.valid, features.total) == (others.valid, others.total)
    assert features.values.shape == (6, 16)
    assert ((features.values >= 0) & (features.values <= len(PHONEMES))).all()
    behind = np.diff((features.values > 0).astype(int), axis=1)
    assert (behind <= 0).all()  # no zero stands before a phoneme


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
@example("xqzjwvk")
def test_any_letters_have_sounds(word: str) -> None:
    said = letter_to_sound(word.lower())
    assert set(said) <= set(ARPABET)
    plain = re.sub("[^a-z]", "", word.lower())
    assert len(said) <= 4 * len(word)
    if re.search("[aiou]", plain):
        assert said


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("making", "M AE K IH NG"),  # the e that made it long is gone: what a table cannot know
        ("make", "M EY K"),
        ("knight", "N AY T"),
        ("nation", "N EY SH AH N"),
        ("phone", "F OW N"),
        ("bridge", "B R IH JH"),
        ("stopped", "S T AA P T"),
        ("wanted", "W AE N T IH D"),
        ("boxes", "B AA K S IH Z"),
        ("queen", "K W IY N"),
        ("happy", "HH AE P IY"),
        ("dangerous", "D EY N JH ER AH S"),
    ],
)
def test_words_as_the_table_reads_them(word: str, said: str) -> None:
    assert letter_to_sound(word) == tuple(said.split())


def test_restored_gives_the_same_bits(frontend: Phonemes, tmp_path: Path) -> None:
    noted = Phonemes(KNOWN, 6, notice="A dictionary\n\n(c) its makers ")
    assert noted.options() == {"words": len(KNOWN), "dim": 16}
    write_frontend(tmp_path, noted)
    restored = read_frontend(tmp_path)
    assert isinstance(restored, Phonemes)
    assert (restored.length, restored.dim, restored.kind) == (6, 16, "phonemes")
    assert restored.files() == noted.files()
    assert restored.notice == "A dictionary\n\n(c) its makers"
    content = noted.files()["pronunciations.txt"].decode()
    assert content.startswith(";;; A dictionary\n;;;\n;;; (c) its makers\ndogs D AA G Z\ndo D UW\n")
    transcript = "She don't heyyy unheard so !"
    np.testing.assert_array_equal(restored(transcript).values, frontend(transcript).values)


WORD = st.text(st.characters(exclude_categories=("Cs", "Z", "C")), min_size=1, max_size=6).filter(
    lambda w: w.split() == [w] and not w.startswith(";;;")
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(WORD, st.lists(st.sampled_from(ARPABET), min_size=1, max_size=5), max_size=8))
def test_any_dictionary_is_restored(known: dict[str, list[str]]) -> None:
    frontend = Phonemes(known, 2, 5)
    spec = {"kind": "phonemes", **frontend.options()}
    restored = restore_frontend(2, spec, frontend.files().__getitem__)
    assert isinstance(restored, Phonemes)
    assert restored.files() == frontend.files()
    assert restored.options()["words"] == len(known)


@pytest.mark.parametrize("word", ["", "two words", "line\n", ";;;", "a\u2028b"])
def test_words_that_would_not_come_back_are_refused(word: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"phonemes: got {word!r}, expected a word")):
        Phonemes({word: ("AA",)})


@pytest.mark.parametrize("said", [(), ("AA1",), ("aa",), ("!",), ("D", "")])
def test_phonemes_that_are_none_are_refused(said: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"phonemes: 'word' is '.*', expected some of AA AE AH"):
        Phonemes({"word": said})


@pytest.mark.parametrize(("length", "dim"), [(0, 16), (20, 0), (-1, -1)])
def test_sizes_that_cannot_be_are_refused(length: int, dim: int) -> None:
    with pytest.raises(InputError, match=f"phonemes: got {length} rows of {dim}, expected at least 1 of each"):
        Phonemes({}, length, dim)


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        ({"dim": 16}, b"dogs D AA G Z\ndo\n", "pronunciations.txt is not usable: phonemes: 'do' is ''"),
        ({"dim": 16}, b"dogs D AA G X\n", "'dogs' is 'D AA G X'"),
        ({"dim": 16}, b"dogs D AA G\r\n", "'dogs' is 'D AA G\\\\r'"),
        ({"dim": 16}, b"dogs  D AA G\n", "'dogs' is ' D AA G'"),
        ({"dim": 16}, b" D AA G\n", "got '', expected a word"),
        ({"dim": 16}, b"\xff D\n", "pronunciations.txt is not usable"),
        ({"dim": 0}, b"dogs D\n", "got 20 rows of 0"),
        ({}, b"dogs D\n", "frontend option 'dim': got None, expected int"),
    ],
)
def test_restoring_from_what_is_not_usable(options: dict[str, object], content: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        restore_frontend(20, {"kind": "phonemes", **options}, lambda name: content)
    assert "\n" not in str(caught.value)
