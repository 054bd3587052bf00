"""A journal goes on from whatever a kill or a power cut left of it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.errors import InputError
from edgeser.runtime.scoring import Recording, journal_path
from edgeser.runtime.scoring.journal import Journal

HEADER = {"journal": 1, "bundle": "ab12", "engine": "onnxruntime"}
texts = st.text(st.characters(exclude_categories=()), max_size=8)  # surrogates too: file names hold them


def kept(path: Path, recordings: list[Recording]) -> dict[str, Any]:
    """What a journal says when it is opened again."""
    with Journal(path, HEADER) as journal:
        return {r.id: journal.row(r) for r in recordings if r in journal}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.dictionaries(texts, texts, min_size=1, max_size=6),
    cut=st.floats(0, 1),
    tail=st.sampled_from([b"", b"\0" * 40, b"\0\n" * 3, b'{"key": "zz", "row": {}}\n', b"[1]\n", b"\xff\xfe\n"]),
)
def test_any_beginning_of_it_goes_on_without_loss_or_repetition(rows: dict[str, str], cut: float, tail: bytes) -> None:
    recordings = [Recording(name, Path("a")) for name in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        ends = []
        with Journal(path, HEADER) as journal:
            header_end = path.stat().st_size
            for recording in recordings:
                journal.append(recording, {"text": rows[recording.id]})
                ends.append(path.stat().st_size)
        whole = path.read_bytes()
        size = round(cut * len(whole))
        # What a power cut leaves behind the last bytes that reached the disk; a header is one write, and the first.
        path.write_bytes(whole[:size] + (tail if size >= header_end else b""))
        left = sum(end <= size for end in ends)
        with Journal(path, HEADER) as journal:
            assert [recording in journal for recording in recordings] == [i < left for i in range(len(recordings))]
            for recording in recordings[left:]:
                journal.append(recording, {"text": rows[recording.id]})
            assert {r.id: journal.row(r)["text"] for r in recordings} == rows
        assert path.read_bytes() == whole


def test_a_byte_that_changed_costs_the_rows_behind_it_only(tmp_path: Path) -> None:
    recordings = [Recording(str(i), Path("a")) for i in range(4)]
    with Journal(tmp_path / "j", HEADER) as journal:
        for recording in recordings:
            journal.append(recording, {"n": recording.id})
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join([*lines[:3], lines[3].replace(b"{", b"?"), *lines[4:]]))
    assert kept(tmp_path / "j", recordings) == {"0": {"n": "0"}, "1": {"n": "1"}}


def test_what_failed_is_tried_again_and_the_last_row_counts(tmp_path: Path) -> None:
    recording = Recording("a", Path("a.wav"))
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.append(recording, {"id": "a", "error": "no such file"})
        assert journal.row(recording)["error"] == "no such file"
    with Journal(tmp_path / "j", HEADER) as journal:
        assert recording not in journal
        journal.append(recording, {"id": "a", "label": "sad"})
    assert kept(tmp_path / "j", [recording]) == {"a": {"id": "a", "label": "sad"}}


def test_one_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, HEADER) as journal:
        journal.append(Recording("a", Path("a")), {})
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
