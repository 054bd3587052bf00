from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeser.cli import score as cli
from edgeser.cli.main import main
from edgeser.corpora.folder import audio_files
from edgeser.runtime.errors import InputError
from edgeser.runtime.scoring import AUDIO_SUFFIXES, Found, Recording, find_recordings, search


def test_folders_are_searched_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.WAV", "a/c.flac", ".hidden/d.wav", "notes.txt", "a/._c.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [r.id for r in find_recordings([tmp_path])] == ["a/c.flac", "b.WAV"]


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.wav", "b/x.wav", "b/y.wav"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"x")
    assert [r.id for r in find_recordings([Path("a"), Path("b")])] == ["a/x.wav", "b/x.wav", "b/y.wav"]
    assert [r.id for r in find_recordings([Path("b"), Path("a/x.wav").absolute()])] == [
        "b/x.wav",
        "b/y.wav",
        str(tmp_path / "a/x.wav"),
    ]


def test_a_file_that_is_named_twice_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").write_bytes(b"x")
    paths = [Path("a"), Path("a/x.wav"), tmp_path / "a", Path("a/../a/x.wav")]
    assert find_recordings(paths) == [Recording("x.wav", Path("a/x.wav"))]


@pytest.mark.parametrize(("name", "message"), [("gone", "no such file or folder"), (".", "no audio found")])
def test_nothing_to_score_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_recordings([tmp_path / name])


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_every_container_that_can_be_read_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'edgeser[video]'")
    touch(tmp_path, *(f"a{suffix}" for suffix in AUDIO_SUFFIXES), "b.MP3")
    assert {Path(r.id).suffix.lower() for r in find_recordings([tmp_path])} == set(AUDIO_SUFFIXES)
    assert {".mp3", ".m4a", ".opus", ".aiff", ".caf", ".au", ".w64", ".wave", ".mp4"} <= set(AUDIO_SUFFIXES)
    assert not caplog.messages


def test_what_is_left_out_is_counted_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.wav", "a.txt", "b.txt", "c.csv", "README", ".hidden.doc")
    caplog.set_level("INFO")
    found = search([tmp_path])
    assert found.left_out == {".txt": 2, ".csv": 1, "": 1}
    assert caplog.messages == [
        "left out: 2 .txt, 1 without suffix, 1 .csv files, whose names are not those of recordings"
    ]


def test_videos_that_nothing_here_can_read_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else find(name))
    touch(tmp_path, "a.wav", "b.mp4")
    caplog.set_level("INFO")
    assert [r.id for r in find_recordings([tmp_path])] == ["a.wav"]
    (line,) = caplog.messages
    assert line == "left out: 1 .mp4 files; of videos the sound is read with PyAV: pip install 'edgeser[video]'"
    assert [r.id for r in find_recordings([tmp_path / "b.mp4"])] == ["b.mp4"]  # one that is named says so itself


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/b/x.wav", "elsewhere/y.wav")
    inside = tmp_path / "in"
    (inside / "a").symlink_to(inside / "b")  # what is there without a link is named without one
    (inside / "loop").symlink_to(inside)
    (inside / "b" / "up").symlink_to(Path("..", ".."))
    (inside / "c").symlink_to(tmp_path / "elsewhere")
    assert [r.id for r in find_recordings([inside])] == ["b/x.wav", "c/y.wav"]


@pytest.fixture
def partly_closed(clip: Path) -> Iterator[Path]:
    """A folder with a recording and a sub-folder that may not be read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        touch(folder, "closed/b.wav")
        (folder / "a.flac").write_bytes(clip.read_bytes())
        folder.chmod(0o755)
        (folder / "closed").chmod(0)
        yield folder
        (folder / "closed").chmod(0o700)


@contextlib.contextmanager
def no_administrator() -> Iterator[None]:
    """Who may read everything is somebody else for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_may_not_be_read_is_said(partly_closed: Path, caplog: pytest.LogCaptureFixture) -> None:
    closed = partly_closed / "closed"
    with no_administrator():
        found = search([partly_closed])
        with pytest.raises(InputError, match=r"no audio found \(may not be read: .*closed: Permission denied\)"):
            search([closed])
    assert [r.id for r in found.recordings] == ["a.flac"]
    assert found.closed == [f"{closed}: Permission denied"]
    assert caplog.messages == [f"left out, may not be read: {closed}: Permission denied"]


def test_a_corpus_with_a_folder_that_may_not_be_read_is_refused(partly_closed: Path) -> None:
    with (
        no_administrator(),
        pytest.raises(InputError, match=r"closed: may not be read \(Permission denied\): a part of the corpus"),
    ):
        list(audio_files(partly_closed))


def test_the_status_of_score_tells_of_one(
    partly_closed: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(paths: list[Path]) -> Found:
        with no_administrator():
            return search(paths)

    monkeypatch.setattr(cli, "search", searched)
    assert main(["score", str(partly_closed), "--asr", "none", "--engine", "onnxruntime", "--no-self-test"]) == 1
    assert json.loads(capsys.readouterr().out)["id"] == "a.flac"
