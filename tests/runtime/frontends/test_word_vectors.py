from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from safetensors.numpy import save

from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends import WordVectors, restore_frontend

WORDS = ("the", "do", "n't", "hey", "so", "good", "soo", "!", "?", "she", "'s", "ii")
VECTORS = np.random.default_rng(0).normal(size=(len(WORDS), 8)).astype(np.float32)
FINITE = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)


@pytest.fixture(scope="module")
def frontend() -> WordVectors:
    return WordVectors.quantized(WORDS, VECTORS, 6)


@pytest.mark.parametrize(
    ("transcript", "tokens"),
    [
        ("", ""),
        (" \t\n", ""),
        ("... , - _ ; :", ""),
        ("Kids are TALKING", "kids are talking"),
        ("don't", "do n't"),
        ("DON'T", "do n't"),
        ("can't won't", "ca n't wo n't"),
        ("she's I'm you're we've they'll I'd", "she 's i 'm you 're we 've they 'll i 'd"),
        ("She\u2019s don\u2019t", "she 's do n't"),
        ("she\u2018s she\u00b4s she`s she\u0092s", "she 's she 's she 's she 's"),
        ("n't", "n't"),
        ("'tis the dogs' rock'n'roll o'clock", "tis the dogs rock'n'roll o'clock"),
        ("'", ""),
        ("''a''", "a"),
        ("snake_case well-known 3pm", "snake case well known 3pm"),
        ("naïve Größe Ёлка", "naïve größe ёлка"),
        ("no! No?", "no ! no ?"),
        ("no!!!", "no !"),
        ("what?!?!", "what ? !"),
        ("what!?!?", "what ! ?"),
        ("what! ! !", "what !"),
        ("!a! ?b?", "! a ! ? b ?"),
        ("no. yes, ok", "no yes ok"),
        ("heyyy", "heyyy"),
    ],
)
def test_the_rule(frontend: WordVectors, transcript: str, tokens: str) -> None:
    assert [token.text for token in frontend.tokens(transcript)] == tokens.split()


def test_offsets(frontend: WordVectors) -> None:
    tokens = frontend.tokens("  She\u2019s good, no?!")
    assert [(t.text, t.start, t.end) for t in tokens] == [
        *[("she", 2, 5), ("'s", 5, 7), ("good", 8, 12), ("no", 14, 16), ("?", 16, 17), ("!", 17, 18)]
    ]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40) | st.text("aİẞΣ'\u2019nNtTsS!?. ", max_size=20))
@example("İ's a")
@example("İİİ don't")
@example("ΑΣ's")
def test_offsets_index_any_text(frontend: WordVectors, transcript: str) -> None:
    end = 0
    for token in frontend.tokens(transcript):
        assert end <= token.start < token.end <= len(transcript)
        assert not transcript[end : token.start].isalnum()  # nothing that has letters is skipped
        end = token.end
        stands = transcript[token.start : token.end]
        for apostrophe in "\u2019\u2018\u00b4`\u0092":
            stands = stands.replace(apostrophe, "'")
        assert stands.lower() == token.text


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("the", "the"),
        ("heyyyy", "hey"),
        ("sooooo", "soo"),  # the longer form is tried first
        ("goooood", "good"),
        ("thee", "the"),
        ("iii", "ii"),
        ("unheard", None),
        ("", None),
        ("The", None),  # callers lower first
    ],
)
def test_finding_drawn_out_words(frontend: WordVectors, word: str, found: str | None) -> None:
    index = frontend.find(word)
    assert (None if index is None else WORDS[index]) == found


def test_an_unknown_word_keeps_its_place_and_says_nothing(frontend: WordVectors) -> None:
    features = frontend("the xyzzy door so")
    assert (features.valid, features.total) == (4, 4)
    assert features.values.shape == (6, 8)
    assert not features.values[[1, 2, 4, 5]].any()
    np.testing.assert_allclose(features.values[0], VECTORS[0], atol=0.02)
    np.testing.assert_allclose(features.values[3], VECTORS[4], atol=0.02)


def test_nothing_said_has_no_rows(frontend: WordVectors) -> None:
    for transcript in ("", " ", "...", "—"):
        features = frontend(transcript)
        assert (features.valid, features.total, features.values.any()) == (0, 0, False)


def test_the_first_tokens_are_kept(frontend: WordVectors) -> None:
    features = frontend("the so good hey she do the so")
    assert (features.valid, features.total) == (6, 8)
    np.testing.assert_array_equal(features.values, frontend("the so good hey she do").values)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=FINITE))
def test_int8_is_within_half_a_step_of_every_row(vectors: NDArray[np.float32]) -> None:
    words = [f"w{i}" for i in range(vectors.shape[0])]
    frontend = WordVectors.quantized(words, vectors, len(words))
    rows = frontend(" ".join(words)).values
    half_step = np.abs(vectors).max(axis=1, keepdims=True) / 127 / 2
    assert (np.abs(rows - vectors) <= half_step * 1.0001).all()
    assert (rows[~vectors.any(axis=1)] == 0).all()


def test_stored_in_a_byte_per_number(frontend: WordVectors) -> None:
    assert len(frontend.files()["vectors.safetensors"]) < 12 * 8 + 12 * 4 + 300


def test_restored_gives_the_same_bits(frontend: WordVectors) -> None:
    spec = {"kind": "word-vectors", **frontend.options()}
    restored = restore_frontend(6, spec, frontend.files().__getitem__)
    assert (restored.length, restored.dim, restored.kind) == (6, 8, "word-vectors")
    assert restored.files() == frontend.files()
    assert isinstance(restored, WordVectors)
    transcript = "She don't heyyy unheard so !"
    np.testing.assert_array_equal(restored(transcript).values, frontend(transcript).values)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n"), min_size=1, max_size=6), min_size=1
    )
)
@example(["a\u0085b", "c"])
@example(["a\u2028", "c"])
@example(["a\r", "c"])
def test_any_vocabulary_is_restored(words: list[str]) -> None:
    """Web vocabularies hold odd line separators; only the line feed may part words."""
    frontend = WordVectors.quantized(words, np.ones((len(words), 2), np.float32), 2)
    restored = restore_frontend(2, {"kind": "word-vectors", **frontend.options()}, frontend.files().__getitem__)
    assert isinstance(restored, WordVectors)
    assert restored.vocabulary == tuple(words)


@pytest.mark.parametrize(
    ("codes", "scales"),
    [((3, 2), (2,)), ((2, 2), (3,)), ((2,), (2,)), ((2, 2), (2, 1)), ((2, 2, 1), (2,))],
)
def test_tables_that_do_not_fit_are_refused(codes: tuple[int, ...], scales: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"2 words, codes \(.*\), scales \(.*\): expected one row and one scale per"):
        WordVectors(["a", "b"], np.zeros(codes, np.int8), np.zeros(scales, np.float32))


TABLE = {"codes": np.zeros((2, 4), np.int8), "scales": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    ("vectors", "vocabulary"),
    [
        (b"", b"a\nb\n"),
        (save(TABLE)[:-1], b"a\nb\n"),
        (save({"codes": TABLE["codes"]}), b"a\nb\n"),
        (save(TABLE), b"a\n"),
        (save(TABLE), b"a\n\xff\n"),
        (save({**TABLE, "codes": np.zeros((2, 4), np.float32)}), b"a\nb\n"),
        (save({**TABLE, "scales": np.array([1, np.nan], np.float32)}), b"a\nb\n"),
    ],
)
def test_restoring_from_what_is_not_usable(vectors: bytes, vocabulary: bytes) -> None:
    files = {"vectors.safetensors": vectors, "vocabulary.txt": vocabulary}
    with pytest.raises(BundleError, match="word-vectors: the table is not usable") as caught:
        restore_frontend(20, {"kind": "word-vectors", "words": 2}, files.__getitem__)
    assert "\n" not in str(caught.value)


def test_a_column_major_table_is_restored_as_it_was() -> None:
    """GloVe's own file loads column by column; safetensors writes memory as it lies."""
    vectors = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))
    frontend = WordVectors.quantized(["a", "b", "c", "d"], vectors, length=4)
    restored = WordVectors.restore(4, frontend.options(), frontend.files().__getitem__, open_engine)
    np.testing.assert_array_equal(restored("d c b a").values, frontend("d c b a").values)
