from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.files import check_file, check_folder, check_room, part_of, replacing, write_text, write_together


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


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut may leave the name with nothing behind it."""
    happened: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        happened.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        sync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        happened.append(f"rename {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_text(tmp_path / "out.txt", "new")
    part, *rest = happened
    assert part.endswith(".part")
    assert rest == ["rename out.txt", f"sync {tmp_path.name}"]


def test_names_at_the_limit(tmp_path: Path) -> None:
    for check in (check_file, check_folder):
        with pytest.raises(InputError, match="File name too long"):
            check(tmp_path / ("x" * 300))
    assert names(tmp_path) == []


def test_several_files_are_replaced_together(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    write_together(folder, {"a": b"1", "b": b"2"})
    (folder / "c").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write_together(folder, {"a": b"3", "c": b"4"})
    with pytest.raises(InputError, match="File name too long"):
        write_together(tmp_path / "other" / "run", {"a": b"3", "x" * 300: b"4"})
    assert names(tmp_path) == ["new"]
    assert names(folder) == ["a", "b", "c"]
    assert (folder / "b").read_bytes() == b"2"


def test_room_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    check_room(tmp_path / "new" / "folder" / "out.bin", 1000)
    with pytest.raises(EdgeSerError, match=r"out\.bin: needs [\d,]+\.0 MB, [\d,.]+ MB are free: make room") as raised:
        check_room(tmp_path / "new" / "out.bin", 10**18)
    assert not isinstance(raised.value, InputError)
    assert names(tmp_path) == []


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    """Only what was to be the same file, and only when the process is gone."""
    killed = """
import os, signal, sys
from edgeser.runtime.files import part_of, replacing
from pathlib import Path
folder = part_of(Path(sys.argv[1]).with_name("bundle"))
folder.mkdir()
(folder / "model.onnx").write_bytes(b"half")
with replacing(sys.argv[1]) as part:
    part.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    target, other = tmp_path / "a[1].csv", tmp_path / "b.csv"
    for path in (target, other):
        assert subprocess.run([sys.executable, "-c", killed, path], check=False).returncode == -signal.SIGKILL
    mine, notes = tmp_path / f".a[1].csv.{os.getppid()}.part", tmp_path / ".a[1].csv.old.part"
    mine.write_bytes(b"somebody is writing this")
    notes.write_bytes(b"no process is named")
    assert len(names(tmp_path)) == 5  # one part of each, two of somebody else's, one bundle: the first one's is gone
    with replacing(target) as part:
        part.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    left = [name for name in names(tmp_path) if not name.startswith((".b.csv.", ".bundle."))]
    assert left == sorted([mine.name, notes.name, target.name])
    with replacing(other) as part:
        part.write_bytes(b"whole")
    part_of(tmp_path / "bundle")
    assert names(tmp_path) == sorted([mine.name, notes.name, target.name, other.name])
