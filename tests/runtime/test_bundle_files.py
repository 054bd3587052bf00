"""What lies where a bundle's files should: sizes come first, whatever it is."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeser.runtime.bundle import MANIFEST, Bundle, write_bundle
from edgeser.runtime.errors import BundleError
from edgeser.runtime.manifest import InputEntry, Manifest, ModelEntry

TINY = Manifest(
    name="tiny",
    version="1.0",
    model=ModelEntry("ks-transformer", "compact", {}),
    labels=("angry", "sad"),
    inputs={"audio": InputEntry(46, 40, {"kind": "log-mel", "bins": 40})},
    graphs={"portable": "model.onnx"},
)
FILES = {"model.onnx": b"\x08\x0a\x12\x08a graph\n", "README.md": b"small\n"}
# Opens a bundle and prints the error, and the megabytes of memory that took.
OPENING = """
import resource, sys
from edgeser.runtime.bundle import Bundle
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Bundle.open(sys.argv[1])
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def opened(path: Path) -> tuple[str, int]:
    """Open a bundle in a process of its own; return its error, and the megabytes that it needed."""
    command = [sys.executable, "-c", OPENING, path]
    process = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    *error, megabytes = process.stdout.splitlines()
    assert len(error) == 1, process
    return error[0], int(megabytes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny", TINY, FILES).path


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny.edgeser", TINY, FILES).path


def refusal(path: Path) -> str:
    with pytest.raises(BundleError, match=path.name) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Take away the right to read a file or folder, from the administrator too."""
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


@pytest.mark.parametrize(
    ("name", "message"),
    [("README.md", "damaged: size or SHA-256"), (MANIFEST, "4,000,000,000 bytes, expected at most 1,048,576")],
)
def test_sparse_files_are_refused_unread(folder: Path, name: str, message: str) -> None:
    os.truncate(folder / name, 4_000_000_000)  # no block of it is on the disk
    error, megabytes = opened(folder)
    assert f"{name}: {message}" in error
    assert megabytes < 20


def test_a_sparse_zip_is_refused_unread(zipped: Path) -> None:
    os.truncate(zipped, 4_000_000_000)
    error, megabytes = opened(zipped)
    assert "damaged, or packed by another tool" in error
    assert megabytes < 20


def test_large_files_are_verified_in_blocks(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "large.edgeser", TINY, {**FILES, "large.safetensors": bytes(200_000_000)}).path
    with path.open("r+b") as file:
        file.seek(100_000_000)
        file.write(b"x")
    error, megabytes = opened(path)
    assert "large.safetensors: damaged" in error
    assert megabytes < 20


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST])
def test_links_in_a_circle(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to("other")
    (folder / "other").symlink_to(name)
    assert f"{name}: cannot be read: Too many levels of symbolic links" in refusal(folder)


def test_the_bundle_is_a_link_to_itself(tmp_path: Path) -> None:
    for name in ("tiny", "tiny.edgeser"):
        (tmp_path / name).symlink_to(name)
        assert "cannot be read: Too many levels of symbolic links" in refusal(tmp_path / name)


def test_links_inside_the_folder_are_followed(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "other")
    (folder / "model.onnx").symlink_to("other")
    assert Bundle.open(folder).read("model.onnx") == FILES["model.onnx"]


@pytest.mark.parametrize("name", ["model.onnx", MANIFEST])
def test_pipes_and_devices_are_no_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"{name}: missing from the bundle" in refusal(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert f"{name}: missing from the bundle" in refusal(folder)


def test_a_pipe_or_device_is_no_bundle(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tiny.edgeser")
    for path in (tmp_path / "tiny.edgeser", Path("/dev/zero")):
        assert "no such bundle: expected a .edgeser file or folder" in refusal(path)


def test_what_may_not_be_read_is_not_called_damaged() -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to everyone else
        Path(place).chmod(0o755)
        folder, zipped = (write_bundle(Path(place) / name, TINY, FILES).path for name in ("tiny", "tiny.edgeser"))
        for closed, bundle, message in (
            (zipped, zipped, "cannot be read: Permission denied"),
            (folder, folder, f"{MANIFEST}: cannot be read: Permission denied"),
            (folder / "model.onnx", folder, "model.onnx: cannot be read: Permission denied"),
            (Path(place), zipped, "cannot be read: Permission denied"),
        ):
            with unreadable(closed):
                assert message in refusal(bundle)


@pytest.mark.parametrize("name", ["a\0b", "", "x" * 300])
def test_paths_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no such bundle|manifest.json: missing|cannot be read: File name too long"):
        Bundle.open(f"{tmp_path}/{name}")


def test_names_in_a_zip_are_shown_escaped(tmp_path: Path, folder: Path) -> None:
    from edgeser.runtime.stored_zip import write_zip

    contents = {name: (folder / name).read_bytes() for name in (MANIFEST, *FILES)}
    write_zip(tmp_path / "a.edgeser", {**contents, "\x1b[2J\n\u202e": b"", "y" * 190: b"", "z" * 190: b""}.items())
    error = refusal(tmp_path / "a.edgeser")
    assert r"\x1b[2J\n\u202e" in error
    assert len(error) < 400


def test_a_label_that_clears_the_screen(tmp_path: Path, folder: Path) -> None:
    """What an export refuses, a hostile manifest may hold, properly sealed."""
    from edgeser.runtime.manifest import sealed_json

    content = json.loads((folder / MANIFEST).read_bytes())
    del content["seal"]
    (folder / MANIFEST).write_bytes(sealed_json({**content, "labels": ["angry", "\x1b[2Jsad"]}))
    assert r"label has control characters, which could rewrite what a terminal shows: '\x1b[2Jsad'" in refusal(folder)
