from __future__ import annotations

from pathlib import Path

import pytest

from edgeser.corpora.folder import audio_files, check_folder, several, visible_files
from edgeser.runtime.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.wav",
        "a.FLAC",
        "._b.wav",
        "x/b.wav",
        "x/c.flac",
        "x/c.wav",
        "x/y/d.wav",
        ".git/e.wav",
        "x/notes.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    (tmp_path / "x" / "gone.wav").symlink_to(tmp_path / "nothing")
    return tmp_path


def names(root: Path, files: object) -> list[str]:
    return [str(file.relative_to(root)) for file in files]  # type: ignore[attr-defined]


def test_near_files_first_and_hidden_ones_never(tree: Path) -> None:
    everything = ["a.FLAC", "b.wav", "x/b.wav", "x/c.flac", "x/c.wav", "x/notes.txt", "x/y/d.wav"]
    assert names(tree, visible_files(tree)) == everything
    assert names(tree, visible_files(tree, depth=1)) == everything[:-1]
    assert names(tree, visible_files(tree, depth=0)) == everything[:2]


def test_each_name_once_the_nearest_and_a_wav_before_a_flac(tree: Path) -> None:
    assert names(tree, audio_files(tree)) == ["a.FLAC", "b.wav", "x/c.wav", "x/y/d.wav"]


def test_a_folder_is_needed(tree: Path) -> None:
    check_folder(tree, "a corpus")
    with pytest.raises(InputError, match="none: no such folder, expected a corpus"):
        check_folder(tree / "none", "a corpus")
    with pytest.raises(InputError, match=r"b\.wav: is a file, expected a corpus"):
        check_folder(tree / "b.wav", "a corpus")


def test_counting() -> None:
    assert several("file", []) == ""
    assert several("file", ["a"]) == "1 file (a)"
    assert several("file", ["a", "b", "c"]) == "3 files (a, b, c)"
    assert several("file", ["a"] * 1234) == "1,234 files (a, a, a, ...)"
