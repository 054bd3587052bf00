from __future__ import annotations

from pathlib import Path

import pytest

from edgeser.corpora import Utterance, read_corpus
from edgeser.runtime.errors import InputError


def write(folder: Path, text: str) -> str:
    file = folder / "m.csv"
    file.write_text(text, encoding="utf-8")
    return f"manifest:{file}"


def test_reads_what_is_there_and_knows_what_is_not(tmp_path: Path) -> None:
    spec = write(
        tmp_path,
        "id,audio,transcript,emotion,session,start_s,end_s,note\n"
        'a,x/a.wav,"Well, ""no"".",exc,1,0.5,2,ignored\n'
        "b,b.flac,,,,,,\n",
    )
    first, second = read_corpus(spec)
    assert first == Utterance("a", tmp_path / "x/a.wav", "happy", 'Well, "no".', 0.5, 2.0, "", "1", "", "m")
    assert second == Utterance("b", tmp_path / "b.flac", None, "", 0.0, None, corpus="m")


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    (utterance,) = read_corpus(write(tmp_path, "\ufeffid,audio\na,b.wav\n"))
    assert utterance.transcript is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column id, audio"),
        ("id,emotion\na,sad\n", "no column audio"),
        ("id,audio\n", "holds no utterances"),
        ("id,audio\na,x.wav\na,y.wav\n", "line 3: id 'a' stands twice"),
        ("id,audio\n,x.wav\n", "line 2: id is empty"),
        ("id,audio,emotion\na,x.wav,cheerful\n", "line 2: emotion: got 'cheerful'"),
        ("id,audio,end_s\na,x.wav,soon\n", "line 2: could not convert string to float: 'soon'"),
        ('id,audio\n"a,x.wav\n', "not readable as UTF-8 CSV"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_corpus(write(tmp_path, text))


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"id,audio\na,\xff.wav\n")
    with pytest.raises(InputError, match="not readable as UTF-8 CSV"):
        read_corpus(f"manifest:{tmp_path / 'm.csv'}")
