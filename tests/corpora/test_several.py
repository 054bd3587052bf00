"""Several corpora read as one, and rows of them chosen by a column."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeser.corpora import (
    as_spec,
    as_test_only,
    corpus_identity,
    corpus_text,
    make_folds,
    read_corpus,
    recognise_corpus,
)
from edgeser.corpora.selection import Condition, parse_conditions
from edgeser.runtime.errors import InputError
from edgeser.training.options import TrainOptions, differing

ROWS = [
    ("a", "nemo", "train", "pl"),
    ("b", "nemo", "train", "pl"),
    ("c", "tess", "test", "en"),
    ("d", "emovo", "test", "it"),
    ("e", "", "", ""),
]


def manifest(folder: Path, rows: list[tuple[str, str, str, str]], name: str = "manifest.csv") -> str:
    folder.mkdir(exist_ok=True)
    lines = ["id,audio,corpus,role,language", *(f"{i},{i}.wav,{c},{r},{la}" for i, c, r, la in rows)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"manifest:{folder / name}"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", "abcde"),
        ("?role=train", "ab"),
        ("?role!=test", "abe"),
        ("?role=test&corpus!=tess", "d"),
        ("?corpus=tess,emovo", "cd"),
        ("?role=", "e"),
        ("?role!=", "abcd"),
    ],
)
def test_rows_are_chosen_by_any_column(tmp_path: Path, query: str, ids: str) -> None:
    spec = manifest(tmp_path / "voices", ROWS) + query
    assert "".join(u.id for u in read_corpus(spec)) == ids
    assert "".join(u.id for u in read_corpus(recognise_corpus(spec.partition(":")[2]))) == ids


def test_every_utterance_knows_its_corpus_and_language(tmp_path: Path) -> None:
    everything = {u.id: u for u in read_corpus(manifest(tmp_path / "voices", ROWS))}
    assert (everything["a"].corpus, everything["a"].language) == ("nemo", "pl")
    # A manifest without the column, or a row without a value: the folder's name, or the file's where it has one.
    assert (everything["e"].corpus, everything["e"].language) == ("voices", "")
    assert read_corpus(manifest(tmp_path / "voices", ROWS[-1:], "mine.csv"))[0].corpus == "mine"


def test_readers_of_folders_name_their_corpus_and_choose_by_what_an_utterance_has(
    clips: list[Path], tmp_path: Path
) -> None:
    for number, clip in enumerate(clips):
        actor = clip.stem[-2:]
        (tmp_path / f"Actor_{actor}").mkdir(exist_ok=True)
        (tmp_path / f"Actor_{actor}" / clip.name).write_bytes(clip.read_bytes() + bytes(number))
    everything = read_corpus(f"ravdess:{tmp_path}")
    assert {u.corpus for u in everything} == {"ravdess"}
    emotion = everything[0].emotion
    assert {u.emotion for u in read_corpus(f"ravdess:{tmp_path}?emotion={emotion}")} == {emotion}
    assert len(read_corpus(f"ravdess:{tmp_path}?emotion!={emotion}&corpus=ravdess")) < len(everything)
    with pytest.raises(InputError, match="has no column role to choose by, it has id, audio, emotion"):
        read_corpus(f"ravdess:{tmp_path}?role=train")


def test_several_are_read_in_their_order(tmp_path: Path) -> None:
    one, two = manifest(tmp_path / "one", ROWS[3:]), manifest(tmp_path / "two", ROWS[:3])
    assert "".join(u.id for u in read_corpus([one, f"{two}?role=train"])) == "deab"
    assert [u.corpus for u in read_corpus((one, two))] == ["emovo", "one", "nemo", "nemo", "tess"]


def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    one, two = manifest(tmp_path / "one", ROWS), manifest(tmp_path / "two", ROWS[2:])
    with pytest.raises(InputError, match=r"corpus: id 'c' stands in .*one.manifest\.csv and in .*two.manifest\.csv"):
        read_corpus([one, two])
    with pytest.raises(InputError, match=r"id 'a' stands in .* and in"):
        read_corpus([one, one])
    with pytest.raises(InputError, match=r"manifest.csv: has no column rolle to choose by, it has id, audio, corpus"):
        read_corpus(f"{one}?rolle=train")
    with pytest.raises(InputError, match=r"holds no utterances with role=dev"):
        read_corpus(f"{one}?role=dev")
    for query in ("role", "=train", "role=train&", "!=x"):
        with pytest.raises(InputError, match=r"expected column=value or column!=value"):
            read_corpus(f"{one}?{query}")
    with pytest.raises(InputError, match=r"corpus: got an empty list, expected one or more of manifest:PATH"):
        read_corpus([])


def test_a_path_may_have_a_question_mark(tmp_path: Path) -> None:
    spec = manifest(tmp_path / "why?", ROWS)
    assert len(read_corpus(spec)) == len(ROWS)
    assert len(read_corpus(f"{spec}?role=train")) == 2


def test_an_identity_says_what_was_chosen(tmp_path: Path) -> None:
    one, two = manifest(tmp_path / "one", ROWS[:2]), manifest(tmp_path / "two", ROWS[2:])
    alone, chosen = corpus_identity(one), corpus_identity(f"{one}?role=train")
    assert alone["name"] == "manifest.csv"
    assert "where" not in alone
    assert chosen == {**alone, "where": "role=train"}
    both = corpus_identity([one, f"{two}?role=test"])
    assert both["name"] == "one, two?role=test"
    assert both["corpora"] == [alone, corpus_identity(f"{two}?role=test")]
    assert str(tmp_path) not in str(both)
    assert corpus_identity([one]) == alone


def test_a_run_is_of_its_corpora_and_of_what_was_chosen_of_them(tmp_path: Path) -> None:
    run = TrainOptions(["manifest:a.csv", "manifest:b.csv?role=train"], tmp_path)
    assert run.corpus == ("manifest:a.csv", "manifest:b.csv?role=train")
    assert corpus_text(run.corpus) == "manifest:a.csv, manifest:b.csv?role=train"
    assert differing(run.as_dict(), run) == []
    assert differing(run.as_dict(), TrainOptions(("manifest:a.csv", "manifest:b.csv"), tmp_path)) == ["corpus"]
    # One is written as it always was, so that the runs of earlier versions go on.
    assert TrainOptions(("manifest:a.csv",), tmp_path).as_dict()["corpus"] == "manifest:a.csv"
    assert as_spec(["x"]) == "x"


words = st.text(st.characters(exclude_characters="=&,!", exclude_categories=("Cs", "Z", "C")), min_size=1, max_size=5)


@given(st.lists(st.tuples(words, st.lists(words, min_size=1), st.booleans()), max_size=4))
def test_conditions_are_read_as_they_are_written(parts: list[tuple[str, list[str], bool]]) -> None:
    text = "&".join(f"{column}{'!' * is_not}={','.join(values)}" for column, values, is_not in parts)
    assert parse_conditions(text) == tuple(Condition(column, tuple(values), is_not) for column, values, is_not in parts)


def test_a_corpus_that_may_only_be_tested_on(corpus: str) -> None:
    """Said before the reader, or by a manifest's column: no fold trains on it, and identity and reader name it."""
    kept = as_test_only(corpus)
    assert kept == f"test:{corpus}" == as_test_only(kept)
    assert recognise_corpus(f"test:{corpus.removeprefix('manifest:')}") == kept
    assert {u.role for u in read_corpus(kept)} == {"test"}
    assert corpus_identity(kept) == {**corpus_identity(corpus), "role": "test"}
    with pytest.raises(InputError, match="8 of 8 utterances may only be tested on"):
        make_folds("leave-one-session-out", read_corpus(kept))
