from __future__ import annotations

from pathlib import Path

import pytest

from edgeser.runtime.errors import InputError
from edgeser.runtime.files import replacing, write_text


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    with replacing(target) as part:
        part.write_bytes(b"new")
        assert not target.exists()
        assert part.parent == target.parent  # a rename across file systems is a copy
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")
    with pytest.raises(error, match="half way"), replacing(target) as part:  # noqa: PT012
        part.write_bytes(b"half")
        raise error("half way")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


def test_a_block_that_writes_nothing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError), replacing(target):
        pass
    assert target.read_bytes() == b"old"


def test_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    write_text(target, "grüße\n")
    assert target.read_bytes() == "grüße\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "no UTF-8 for \ud800")
    assert target.read_bytes() == "grüße\n".encode()
    assert names(tmp_path) == ["out.txt"]


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its folder does not exist: create .*missing first"):
        write_text(tmp_path / "missing" / "out.txt", "")


def test_folder_as_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="is a folder, expected a file name"):
        write_text(tmp_path / "out", "")
    assert names(tmp_path) == ["out"]
