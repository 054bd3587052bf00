"""A journal goes on from whatever a kill or a power cut left of it."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.errors import InputError
from edgeser.runtime.scoring import Recording, journal_path
from edgeser.runtime.scoring.journal import Journal, key_of

HEADER = {"journal": 2, "bundle": "ab12", "engine": "onnxruntime"}
TAILS = [
    b"",
    b"\0" * 40,
    b"\0\n" * 3,
    b'{"key": "zz", "row": {}}\n',
    b"[1]\n",
    b'{"key": "ab", "row": {"n": 1}}\n',
    b"[" * 100_000 + b"\n",
    b"\xff\xfe\n",
]
texts = st.text(st.characters(exclude_categories=()), max_size=8)  # surrogates too: file names hold them


def key(name: str) -> bytes:
    return key_of(Recording(name, Path("a")))


def kept(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """What a journal says when it is opened again."""
    with Journal(path, HEADER) as journal:
        return {name: journal.row(key(name)) for name in names if key(name) in journal}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.dictionaries(texts, texts, min_size=1, max_size=6),
    cut=st.floats(0, 1),
    tail=st.sampled_from(TAILS),
)
def test_any_beginning_of_it_goes_on_without_loss_or_repetition(rows: dict[str, str], cut: float, tail: bytes) -> None:
    keys = {key(name): name for name in rows}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        ends = []
        with Journal(path, HEADER) as journal:
            header_end = path.stat().st_size
            for name, label in rows.items():
                journal.append(key(name), {"label": label})
                ends.append(path.stat().st_size)
        whole = path.read_bytes()
        size = round(cut * len(whole))
        # What a power cut leaves behind the last bytes that reached the disk; a header is one write, and the first.
        path.write_bytes(whole[:size] + (tail if size >= header_end else b""))
        left = sum(end <= size for end in ends)
        with Journal(path, HEADER) as journal:
            assert [one in journal for one in keys] == [i < left for i in range(len(keys))]
            for one in list(keys)[left:]:
                journal.append(one, {"label": rows[keys[one]]})
            assert {name: journal.row(one)["label"] for one, name in keys.items()} == rows
        assert path.read_bytes() == whole


def test_a_byte_that_changed_costs_the_rows_behind_it_only(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER) as journal:
        for name in "0123":
            journal.append(key(name), {"label": name})
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join([*lines[:3], lines[3].replace(b"{", b"?"), *lines[4:]]))
    assert kept(tmp_path / "j", "0123") == {"0": {"label": "0"}, "1": {"label": "1"}}


def test_what_failed_is_tried_again_and_the_last_row_counts(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.append(key("a"), {"id": "a", "error": "no such file"})
        assert journal.row(key("a"))["error"] == "no such file"
    with Journal(tmp_path / "j", HEADER) as journal:
        assert key("a") not in journal
        journal.append(key("a"), {"id": "a", "label": "sad"})
    assert kept(tmp_path / "j", "a") == {"a": {"id": "a", "label": "sad"}}


def test_one_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, HEADER) as journal:
        journal.append(key("a"), {"label": "sad"})
    content = path.read_bytes()
    with pytest.raises(InputError, match=r"j: was begun with engine onnxruntime, not openvino: .*--restart"):
        Journal(path, {**HEADER, "engine": "openvino"})
    assert path.read_bytes() == content
    with Journal(path, {**HEADER, "engine": "openvino"}, restart=True) as journal:
        assert len(journal) == 0
    assert json.loads(path.read_bytes())["engine"] == "openvino"


@pytest.mark.parametrize("content", [b"my notes", b"my notes\n", b"{}\n", b"[]\n", b"\0\0\0\0", b'{"journal": 1}\n'])
def test_what_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(InputError, match="is no journal that this EdgeSER reads: start over with --restart"):
        Journal(tmp_path / "j", HEADER)
    assert (tmp_path / "j").read_bytes() == content


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER), pytest.raises(InputError, match="another process is writing it"):
        Journal(tmp_path / "j", HEADER)
    with Journal(tmp_path / "j", HEADER):
        pass


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its folder does not exist: create"):
        Journal(journal_path(tmp_path / "gone" / "scores.csv"), HEADER)


def test_one_that_is_finished_goes_on_or_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, HEADER) as journal:
        journal.append(key("a"), {"label": "sad"})
        journal.finish({"a": key("a")})
    with Journal(path, HEADER) as journal:
        assert key("a") in journal
        journal.finish({"a": key("a")})
    with Journal(path, {**HEADER, "engine": "openvino"}) as journal:  # the file has its rows: nothing is lost
        assert len(journal) == 0
        journal.append(key("a"), {"label": "angry"})
    with pytest.raises(InputError, match="was begun with engine openvino, not onnxruntime"):
        Journal(path, HEADER)


def test_rows_that_nobody_will_ask_for_go_where_there_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose files change every night does not make it grow; what a run does not ask for stays."""
    monkeypatch.setattr("edgeser.runtime.scoring.journal._MANY", 2)
    path, here, gone = tmp_path / "j", tmp_path / "here.wav", tmp_path / "gone.wav"
    here.touch()
    with Journal(path, HEADER) as journal:
        for name, file in (("other", here), ("lost", gone)):
            journal.append(key(name), {"id": name, "path": str(file), "label": "sad"})
        journal.finish({name: key(name) for name in ("other", "lost")})
    sizes = []
    for night in range(9):
        with Journal(path, HEADER) as journal:
            changed = key_of(Recording("a", here, start_s=night))
            journal.append(changed, {"id": "a", "path": str(here), "label": f"{night}"})
            journal.finish({"a": changed})
        sizes.append(path.stat().st_size)
        with Journal(path, HEADER) as journal:
            assert journal.row(changed)["label"] == f"{night}"
            assert key("other") in journal
            journal.finish({"a": changed})
    assert max(sizes[3:]) <= max(sizes[:3])
    with Journal(path, HEADER) as journal:
        assert key("lost") not in journal
    assert sorted(file.name for file in tmp_path.iterdir()) == ["here.wav", "j"]


def test_what_is_no_file_of_its_own_is_refused_and_left_alone(tmp_path: Path) -> None:
    notes, link, pipe = tmp_path / "notes", tmp_path / "link", tmp_path / "pipe"
    notes.write_text("mine")
    link.symlink_to(notes)
    os.mkfifo(pipe)
    for restart in (False, True):
        with pytest.raises(InputError, match="link: is a link, expected a file of its own: remove it"):
            Journal(link, HEADER, restart)
        with pytest.raises(InputError, match="pipe: is no regular file"):
            Journal(pipe, HEADER, restart)
    assert notes.read_text() == "mine"


def test_a_key_stands_for_everything_that_a_row_depends_on(tmp_path: Path) -> None:
    file = tmp_path / "b"
    file.write_bytes(b"content")
    one = Recording("a", file, "c", "sad", 1.0, 2.0)
    changes: list[dict[str, Any]] = [
        {},
        {"id": "b"},
        {"path": Path("a")},
        {"transcript": None},
        {"transcript": ""},
        {"emotion": None},
        {"start_s": 0.5},
        {"end_s": None},
    ]
    keys = [key_of(dataclasses.replace(one, **change)) for change in changes]
    assert keys[0] == key_of(one)
    before = file.stat()
    file.write_bytes(b"another")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    keys.append(key_of(one))
    file.write_bytes(b"longer than before")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    keys.append(key_of(one))
    file.unlink()
    keys.append(key_of(one))
    assert len(set(keys)) == len(changes) + 3
    assert {len(one) for one in keys} == {16}
    strange = os.fsdecode(b"\xff")
    assert len(key_of(Recording(strange, Path(strange)))) == 16
    assert len(key_of(Recording("a", Path("\0")))) == 16
