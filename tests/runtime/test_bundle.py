from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeser.runtime.bundle import GOLDEN, MANIFEST, Bundle, frontend_files, write_bundle
from edgeser.runtime.errors import BundleError, EdgeSerError
from edgeser.runtime.frontends import LogMel, Statistics, WordVectors
from edgeser.runtime.manifest import InputEntry, Manifest, ModelEntry
from edgeser.runtime.stored_zip import write_zip

AUDIO = LogMel(40, 46, Statistics(np.full(40, -9, np.float32), np.full(40, 3, np.float32)))
TEXT = WordVectors.quantized(["the", "door"], np.array([[0.5, -1.0], [0.25, 0.0]], np.float32), 20)
FILES = {
    "model.onnx": b"\x08\x0a\x12\x08a graph\n" * 4,
    "README.md": "Größe: klein\n".encode(),
    GOLDEN: bytes(64),
    "empty.bin": b"",
    **frontend_files("audio", AUDIO),
    **frontend_files("text", TEXT),
}
TINY = Manifest(
    name="tiny",
    version="1.0",
    model=ModelEntry("ks-transformer", "compact", {"keep_rate": 0.8}),
    labels=("angry", "sad"),
    inputs={
        "audio": InputEntry(46, 40, {"kind": "log-mel", **AUDIO.options()}),
        "text": InputEntry(20, 2, {"kind": "word-vectors", **TEXT.options()}),
    },
    graphs={"portable": "model.onnx"},
    metrics={"ua": 0.71},
    provenance={"corpora": ["ravdess"]},
)
FORMS = ("tiny.edgeser", "tiny")
SMALL = {name: FILES[name] for name in ("model.onnx", "README.md", "empty.bin", "frontends/text/vocabulary.txt")}
MEMBERS = sorted([MANIFEST, *SMALL])


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("zipped") / "tiny.edgeser", TINY, SMALL).path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = write_bundle(tmp_path_factory.mktemp("folder") / "tiny", TINY, SMALL).path
    yield path
    Bundle.open(path)  # every test put it back


def failing_at(call: int, real: Callable[..., object]) -> Callable[..., object]:
    """Return a stand-in for `real` whose `call`-th call finds the disk full."""
    calls = itertools.count(1)

    def stand_in(*given: object) -> object:
        if next(calls) == call:
            raise OSError(28, "No space left on device")
        return real(*given)

    return stand_in


def refusal(path: Path) -> str:
    with pytest.raises(BundleError, match=path.name) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(path: Path, file: Path, content: bytes) -> str:
    """Open the bundle with `file` changed to `content`, and change it back."""
    before = file.read_bytes()
    assert content != before
    try:
        file.write_bytes(content)
        return refusal(path)
    finally:
        file.write_bytes(before)


def accepted_flips(path: Path, file: Path) -> list[str]:
    """Flip one bit of every byte of `file` and list those that were not refused with one clear line."""
    intact = file.read_bytes()
    wrong = []
    try:
        for i, byte in enumerate(intact):
            file.write_bytes(intact[:i] + bytes([byte ^ 1 << i % 8]) + intact[i + 1 :])
            try:
                Bundle.open(path)
                wrong.append(f"byte {i} accepted: {intact[max(0, i - 8) : i + 8]!r}")
            except BundleError as error:
                if "\n" in str(error):
                    wrong.append(f"byte {i}: {str(error)!r}")
    finally:
        file.write_bytes(intact)
    return wrong


class TestRoundTrip:
    @pytest.mark.parametrize("form", FORMS)
    def test_every_file_comes_back(self, tmp_path: Path, form: str) -> None:
        bundle = write_bundle(tmp_path / form, TINY, FILES)
        assert (tmp_path / form).is_dir() == (form == "tiny")
        assert {name: bundle.read(name) for name in bundle.manifest.files} == FILES
        assert bundle.graph() == FILES["model.onnx"]
        assert dataclasses.replace(bundle.manifest, files={}) == TINY
        assert bundle.manifest.files["README.md"].sha256 == hashlib.sha256(FILES["README.md"]).hexdigest()

    @settings(max_examples=25, deadline=None)
    @given(st.dictionaries(st.from_regex(r"[a-z]{1,6}/[a-z0-9_-]{1,6}\.bin", fullmatch=True), st.binary(), max_size=4))
    def test_any_content(self, tmp_path_factory: pytest.TempPathFactory, extra: dict[str, bytes]) -> None:
        for form in FORMS:
            bundle = write_bundle(tmp_path_factory.getbasetemp() / form, TINY, {**FILES, **extra})
            assert {name: bundle.read(name) for name in bundle.manifest.files} == {**FILES, **extra}

    def test_a_bundle_has_one_identity(self, tmp_path: Path, zipped: Path, folder: Path) -> None:
        assert Bundle.open(zipped).sha256 == Bundle.open(folder).sha256
        again = write_bundle(tmp_path / "again.edgeser", TINY, dict(reversed(SMALL.items())))
        assert again.path.read_bytes() == zipped.read_bytes()
        other = write_bundle(tmp_path / "other.edgeser", TINY, {**SMALL, "README.md": b"other"})
        assert other.sha256 != again.sha256

    @pytest.mark.parametrize("form", FORMS)
    def test_frontends_come_back_bit_for_bit(self, tmp_path: Path, form: str, speech: np.ndarray) -> None:
        bundle = write_bundle(tmp_path / form, TINY, FILES)
        audio, text = bundle.frontend("audio"), bundle.frontend("text")
        assert isinstance(audio, LogMel)
        assert isinstance(text, WordVectors)
        np.testing.assert_array_equal(audio(speech).values, AUDIO(speech).values)
        np.testing.assert_array_equal(text("the red door").values, TEXT("the red door").values)


class TestDamage:
    def test_every_byte_of_a_zip(self, zipped: Path) -> None:
        assert accepted_flips(zipped, zipped) == []

    @pytest.mark.parametrize("member", [name for name in MEMBERS if SMALL.get(name) != b""])
    def test_every_byte_of_a_folder(self, folder: Path, member: str) -> None:
        assert accepted_flips(folder, folder / member) == []

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0), st.integers(1, 255))
    def test_any_flip_in_a_zip(self, zipped: Path, where: int, mask: int) -> None:
        raw = bytearray(zipped.read_bytes())
        raw[where % len(raw)] ^= mask
        refused(zipped, zipped, bytes(raw))

    @settings(max_examples=150, deadline=None)
    @given(st.sampled_from([name for name in MEMBERS if SMALL.get(name) != b""]), st.integers(0), st.integers(1, 255))
    def test_any_flip_in_a_folder(self, folder: Path, member: str, where: int, mask: int) -> None:
        raw = bytearray((folder / member).read_bytes())
        raw[where % len(raw)] ^= mask
        refused(folder, folder / member, bytes(raw))

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0))
    @example(0)
    @example(-1)
    def test_cut_at_any_length(self, zipped: Path, folder: Path, length: int) -> None:
        raw = zipped.read_bytes()
        refused(zipped, zipped, raw[: length % len(raw)])
        for member in (MANIFEST, "model.onnx"):
            raw = (folder / member).read_bytes()
            refused(folder, folder / member, raw[: length % len(raw)])

    @settings(max_examples=50, deadline=None)
    @given(st.binary(min_size=1, max_size=100))
    def test_bytes_appended(self, zipped: Path, folder: Path, extra: bytes) -> None:
        refused(zipped, zipped, zipped.read_bytes() + extra)
        refused(zipped, zipped, extra + zipped.read_bytes())
        for member in MEMBERS:
            refused(folder, folder / member, (folder / member).read_bytes() + extra)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=300))
    def test_arbitrary_bytes(self, zipped: Path, content: bytes) -> None:
        assert "damaged, or packed by another tool" in refused(zipped, zipped, content)

    @pytest.mark.parametrize("member", MEMBERS)
    def test_each_file_missing(self, tmp_path: Path, member: str) -> None:
        whole = write_bundle(tmp_path / "tiny", TINY, SMALL)
        contents = {name: (whole.path / name).read_bytes() for name in MEMBERS if name != member}
        (whole.path / member).unlink()
        assert f"{member}: missing from the bundle" in refusal(whole.path)
        (whole.path / member).mkdir()  # a folder in its place is no file either
        assert f"{member}: missing from the bundle" in refusal(whole.path)
        write_zip(tmp_path / "tiny.edgeser", contents.items())
        assert f"{member}: missing from the bundle" in refusal(tmp_path / "tiny.edgeser")

    def test_damage_names_the_file_and_what_to_do(self, folder: Path) -> None:
        message = refused(folder, folder / "model.onnx", b"other")
        assert message.endswith(
            "model.onnx: damaged: size or SHA-256 is not what the manifest says: fetch the bundle again"
        )

    def test_damage_after_opening_is_noticed(self, tmp_path: Path) -> None:
        bundle = write_bundle(tmp_path / "tiny", TINY, FILES)
        (tmp_path / "tiny" / "model.onnx").write_bytes(b"other")
        with pytest.raises(BundleError, match=r"model\.onnx: damaged"):
            bundle.graph()

    def test_undeclared_file_in_a_zip(self, tmp_path: Path, folder: Path) -> None:
        contents = {name: (folder / name).read_bytes() for name in MEMBERS}
        write_zip(tmp_path / "tiny.edgeser", {**contents, "more.py": b""}.items())
        assert "more.py: in the bundle, but not in its manifest" in refusal(tmp_path / "tiny.edgeser")

    def test_undeclared_file_in_a_folder_is_never_read(self, tmp_path: Path) -> None:
        path = write_bundle(tmp_path / "tiny", TINY, FILES).path
        (path / ".DS_Store").write_bytes(b"x")
        with pytest.raises(BundleError, match=r"\.DS_Store: the manifest declares no such file"):
            Bundle.open(path).read(".DS_Store")

    @pytest.mark.parametrize("linked", ["../secret", "frontends/audio"])
    def test_links_are_not_followed_out(self, tmp_path: Path, linked: str) -> None:
        path = write_bundle(tmp_path / "tiny", TINY, FILES).path
        place = path / ("model.onnx" if linked == "../secret" else linked)
        outside = tmp_path / "secret"
        place.rename(outside)
        place.symlink_to(outside)
        assert "missing from the bundle" in refusal(path)

    def test_no_such_bundle(self, tmp_path: Path) -> None:
        for name in FORMS:
            with pytest.raises(BundleError, match=r"no such bundle: expected a \.edgeser file or folder"):
                Bundle.open(tmp_path / name)

    def test_folder_without_a_manifest(self, tmp_path: Path) -> None:
        assert "manifest.json: missing from the bundle" in refusal(tmp_path)

    @pytest.mark.parametrize("form", FORMS)
    def test_unknown_schema(self, tmp_path: Path, folder: Path, form: str) -> None:
        content = {**json.loads((folder / MANIFEST).read_bytes()), "schema": 3}
        raw = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
        members = {name: (folder / name).read_bytes() for name in MEMBERS} | {MANIFEST: raw}
        place = tmp_path / form
        if form == "tiny":
            shutil.copytree(folder, place)
            (place / MANIFEST).write_bytes(raw)
        else:
            write_zip(place, members.items())
        assert "got schema 3, this EdgeSER reads 1 and 2: update one of them" in refusal(place)


class TestAsking:
    def test_lowering_it_has_not(self, zipped: Path) -> None:
        with pytest.raises(BundleError, match="has no plugin graph, only portable"):
            Bundle.open(zipped).graph("plugin")

    def test_file_it_has_not(self, zipped: Path) -> None:
        with pytest.raises(BundleError, match=r"\.\./x: the manifest declares no such file"):
            Bundle.open(zipped).read("../x")

    def test_frontend_of_another_width(self, tmp_path: Path) -> None:
        inputs = {**TINY.inputs, "audio": dataclasses.replace(TINY.inputs["audio"], dim=80)}
        bundle = write_bundle(tmp_path / "a.edgeser", dataclasses.replace(TINY, inputs=inputs), FILES)
        with pytest.raises(BundleError, match="audio is 80 wide, its frontend gives 40"):
            bundle.frontend("audio")

    def test_modality_it_has_not(self, tmp_path: Path) -> None:
        alone = dataclasses.replace(TINY, inputs={"audio": TINY.inputs["audio"]})
        with pytest.raises(BundleError, match="text"):
            write_bundle(tmp_path / "a.edgeser", alone, FILES).frontend("text")


class TestWriting:
    """Whole or not at all."""

    @pytest.mark.parametrize("form", FORMS)
    def test_replaces_a_bundle(self, tmp_path: Path, form: str) -> None:
        write_bundle(tmp_path / form, TINY, {**FILES, "gone.bin": b"x"})
        bundle = write_bundle(tmp_path / form, TINY, FILES)
        assert set(bundle.manifest.files) == set(FILES)
        assert not (tmp_path / form / "gone.bin").exists()
        assert [path.name for path in tmp_path.iterdir()] == [form]

    @pytest.mark.parametrize("form", FORMS)
    def test_a_failing_write_leaves_the_old_bundle(
        self, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = write_bundle(tmp_path / form, TINY, FILES)
        with monkeypatch.context() as patch:
            # The disk is full when the third file comes.
            patch.setattr(zlib, "crc32", failing_at(3, zlib.crc32))
            patch.setattr(Path, "write_bytes", failing_at(3, Path.write_bytes))
            with pytest.raises(EdgeSerError, match="No space left"):
                write_bundle(tmp_path / form, TINY, {**FILES, "README.md": b"new"})
        assert Bundle.open(old.path).sha256 == old.sha256
        assert [path.name for path in tmp_path.iterdir()] == [form]

    @pytest.mark.parametrize("call", [1, 2])
    def test_a_failing_rename_leaves_the_old_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
    ) -> None:
        old = write_bundle(tmp_path / "tiny", TINY, FILES)
        with monkeypatch.context() as patch, contextlib.suppress(EdgeSerError):
            patch.setattr(os, "rename", failing_at(call, os.rename))
            new = write_bundle(tmp_path / "tiny", TINY, {**FILES, "README.md": b"new"})
            assert new.read("README.md") == b"new"  # it needs fewer renames, none failed
            return
        assert Bundle.open(old.path).sha256 == old.sha256
        assert [path.name for path in tmp_path.iterdir()] == ["tiny"]

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("name", ["../x", "/tmp/x", "a\\b", "", "a/../b"])
    def test_refuses_paths_it_would_not_read(self, tmp_path: Path, form: str, name: str) -> None:
        with pytest.raises(BundleError, match="is not a plain relative path"):
            write_bundle(tmp_path / form, TINY, {**FILES, name: b"x"})
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("form", FORMS)
    def test_refuses_a_second_manifest(self, tmp_path: Path, form: str) -> None:
        old = write_bundle(tmp_path / form, TINY, FILES)
        with pytest.raises(BundleError, match=r"manifest\.json"):
            write_bundle(tmp_path / form, TINY, {**FILES, MANIFEST: b"{}"})
        assert Bundle.open(old.path).sha256 == old.sha256

    def test_refuses_graphs_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"graph 'model\.onnx' is not among the files"):
            write_bundle(tmp_path / "a.edgeser", TINY, {"README.md": b"x"})

    @pytest.mark.parametrize("form", FORMS)
    def test_refuses_no_files_at_all(self, tmp_path: Path, form: str) -> None:
        with pytest.raises(BundleError, match=r"graph 'model\.onnx' is not among the files"):
            write_bundle(tmp_path / form, TINY, {})

    def test_never_replaces_a_folder_that_is_no_bundle(self, tmp_path: Path) -> None:
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
        with pytest.raises(BundleError, match="exists and is no bundle: choose another place"):
            write_bundle(tmp_path / "thesis", TINY, FILES)
        assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
