from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.runtime.frontends.phonemes import ARPABET, COMMENT
from edgeser.training.glove import load_word_vectors
from edgeser.training.pronunciations import load_pronunciations, phoneme_error_rate, read_dictionary

Dictionary = dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def cmudict() -> Dictionary:
    return read_dictionary()[0]


def test_every_phoneme_of_cmudict_is_known(cmudict: Dictionary) -> None:
    assert len(cmudict) > 120_000
    assert {phoneme for said in cmudict.values() for phoneme in said} == set(ARPABET)
    assert cmudict["wonderful"] == ("W", "AH", "N", "D", "ER", "F", "AH", "L")
    assert not any(word.endswith(")") for word in cmudict)


def test_cut_to_the_word_vectors_it_is_small_and_says_whose_it_is() -> None:
    words = load_word_vectors()
    frontend = load_pronunciations(words.vocabulary)
    content = frontend.files()["pronunciations.txt"]
    assert len(content) < 600_000
    assert frontend.options()["words"] > 0.85 * len(words.vocabulary)  # the rest are names, numbers and marks
    head = content.decode()[:3000]
    assert head.startswith(COMMENT)
    assert "Copyright (c) 1999-2016 Carnegie Mellon University" in head
    assert "Redistributions in binary form must reproduce" in head
    line = "I can't believe it's wonderful, isn't it? Get out of my house, now!"
    assert (frontend(line).valid, frontend.length, frontend.dim) == (words(line).valid, 20, 16)
    assert all(frontend.pronounce(token.text) for token in frontend.tokens(line))


def test_rule_is_as_good_as_it_was_measured(cmudict: Dictionary) -> None:
    """0.179 on these 1,175 words, 0.175 on all 117,493 that are letters alone: a rule that got worse fails."""
    letters = [word for word in cmudict if re.fullmatch("[a-z]+", word)]
    sample = {word: cmudict[word] for word in letters[7::100]}
    assert len(sample) > 1_100
    assert phoneme_error_rate(sample) < 0.185


def test_error_rate_counts_edits() -> None:
    assert phoneme_error_rate({"make": ("M", "EY", "K")}) == 0.0
    assert phoneme_error_rate({"make": ("M", "EY", "K", "S")}) == pytest.approx(1 / 4)  # one to put in
    assert phoneme_error_rate({"make": ("EY",)}) == pytest.approx(2 / 1)  # two to take out
    assert phoneme_error_rate({"make": ("M", "AY", "K"), "phone": ("F", "OW", "N")}) == pytest.approx(1 / 6)


def test_a_users_own_dictionary(tmp_path: Path) -> None:
    file = tmp_path / "own.dict"
    file.write_text(
        ";;; Mine, CC0\n;;;\nHELLO  HH AH0 L OW1\nhello(2) HH EH L OW\n\n"
        "WORLD(1)  W ER1 L D # the globe\nother AH DH ER\n",
        encoding="utf-8",
    )
    known, notice = read_dictionary(file)
    assert known == {"hello": ("HH", "AH", "L", "OW"), "world": ("W", "ER", "L", "D"), "other": ("AH", "DH", "ER")}
    assert notice == "Mine, CC0\n"
    frontend = load_pronunciations(["world", "hello", "world", "unheard"], file, length=5, dim=4)
    assert (frontend.length, frontend.dim, frontend.options()["words"]) == (5, 4, 2)
    assert frontend.files()["pronunciations.txt"].startswith(b";;; Mine, CC0\nworld W ER L D\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello HH AH L OW\nworld W ER5 L D\n", "line 2: got 'world W ER5 L D', expected a word and its ARPAbet"),
        (b"hello\n", "line 1: got 'hello', expected a word and its ARPAbet phonemes"),
        (b"\n;;; nothing\n", "holds no words, expected lines of a word and its phonemes"),
        (b"h\xe9 HH\n", "not readable as a pronouncing dictionary"),
    ],
)
def test_what_is_no_dictionary_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "own.dict"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_dictionary(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"gone\.dict: no such pronouncing dictionary"):
        read_dictionary(tmp_path / "gone.dict")
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgeser\[train\]'"):
        read_dictionary()
