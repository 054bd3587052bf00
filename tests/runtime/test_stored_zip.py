from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.errors import BundleError
from edgeser.runtime.stored_zip import _END, MOST_ENTRIES, open_zip, read_entry, write_zip

FILES = {"manifest.json": b"{}\n", "empty": b"", "frontends/text/v.bin": bytes(range(256))}
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,8}(/[A-Za-z0-9_.-]{1,8}){0,2}", fullmatch=True)
REFUSED = "damaged, or packed by another tool: fetch it again, or unpack it and use the folder"


class Huge(bytes):
    """Bytes that claim to be 4 GiB."""

    def __len__(self) -> int:
        return 1 << 32


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zip") / "a.zip"


@pytest.fixture(scope="module")
def intact(place: Path) -> bytes:
    write_zip(place, FILES.items())
    return place.read_bytes()


def read_all(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        return {name: read_entry(file, entry) for name, entry in open_zip(path).items()}


def refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BundleError, match=REFUSED) as caught:
        open_zip(path)
    assert "\n" not in str(caught.value)


def headers(intact: bytes) -> list[int]:
    """Positions of every byte that is not content."""
    inside: set[int] = set()
    for content in filter(None, FILES.values()):
        start = intact.index(content)
        inside |= set(range(start, start + len(content)))
    return [i for i in range(len(intact)) if i not in inside]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=64), max_size=5))
def test_round_trip_and_any_zip_tool_reads_it(place: Path, files: dict[str, bytes]) -> None:
    write_zip(place, files.items())
    assert list(read_all(place).items()) == list(files.items())
    with zipfile.ZipFile(place) as archive:
        assert archive.testzip() is None
        assert [(info.filename, archive.read(info)) for info in archive.infolist()] == list(files.items())
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


def test_same_content_gives_the_same_bytes(place: Path, intact: bytes) -> None:
    write_zip(place, FILES.items())
    assert place.read_bytes() == intact


@pytest.mark.parametrize("bit", [0, 5, 7])
def test_any_bit_outside_the_content_flipped(place: Path, intact: bytes, bit: int) -> None:
    positions = headers(intact)
    assert len(positions) == len(intact) - sum(map(len, FILES.values()))
    for i in positions:
        refuse(place, intact[:i] + bytes([intact[i] ^ 1 << bit]) + intact[i + 1 :])


def test_cut_at_any_length(place: Path, intact: bytes) -> None:
    for length in range(len(intact)):
        refuse(place, intact[:length])


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=80), st.integers(0, 1 << 16))
def test_bytes_put_in_anywhere_outside_the_content(place: Path, intact: bytes, extra: bytes, where: int) -> None:
    positions = [*headers(intact), len(intact)]
    i = positions[where % len(positions)]
    refuse(place, intact[:i] + extra + intact[i:])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes(place: Path, content: bytes) -> None:
    refuse(place, content)
    refuse(place, content + b"PK\5\6" + content)


def test_packed_by_another_tool(place: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(place, "w", method) as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
        refuse(place, place.read_bytes())


def test_one_name_twice(place: Path) -> None:
    write_zip(place, [("a", b"1"), ("a", b"2")])
    refuse(place, place.read_bytes())


def test_what_cannot_be_read_is_not_called_damaged(tmp_path: Path, intact: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(intact)
    for path, why in (
        (tmp_path, "Is a directory"),
        (tmp_path / "missing.zip", "No such file or directory"),
        (tmp_path / "a.zip" / "b.zip", "Not a directory"),
        (tmp_path / ("a" * 300), "File name too long"),
    ):
        with pytest.raises(BundleError, match=f"cannot be read: {why}"):
            open_zip(path)


def test_too_many_files_are_refused_before_their_names_are_read(tmp_path: Path) -> None:
    """The directory of this one is all zeros: reading it would find it damaged."""
    path = tmp_path / "a.zip"
    for count, size in ((65_535, 46 * 65_535), (MOST_ENTRIES + 1, 46), (3, 100_000)):
        path.write_bytes(bytes(size) + _END.pack(b"PK\5\6", 0, 0, count, count, size, 0, 0))
        with pytest.raises(BundleError, match=f"{count} files, expected at most {MOST_ENTRIES}"):
            open_zip(path)


def test_as_many_files_as_there_may_be(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    files = {f"{i:04}-{'x' * 195}": b"" for i in range(MOST_ENTRIES)}
    write_zip(path, files.items())
    assert read_all(path) == files


def test_more_than_a_zip_can_hold(place: Path) -> None:
    with pytest.raises(BundleError, match="more than 4 GiB: write the bundle as a folder instead"):
        write_zip(place, [("a", b"1"), ("b", Huge(b"x"))])
