from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.audio import Samples
from edgeser.runtime.engines import Engine, open_engine
from edgeser.runtime.errors import BundleError, EdgeSerError, InputError
from edgeser.runtime.frontends import LogMel, SpeechEncoder, Statistics, read_frontend, write_frontend

DESCRIPTION = {"hop_s": 4 / 16_000, "window_s": 4 / 16_000, "normalisation": "none", "name": "sliced"}


@pytest.fixture
def encoder(speech_graph: Callable[..., bytes]) -> SpeechEncoder:
    return SpeechEncoder(6, DESCRIPTION, lambda _: speech_graph(), statistics=Statistics.none(4))


def test_an_encoder_there_and_back(encoder: SpeechEncoder, tmp_path: Path, speech: Samples) -> None:
    folder = tmp_path / "a" / "b"
    write_frontend(folder, encoder)
    assert sorted(f.name for f in folder.iterdir()) == ["encoder.onnx", "frontend.json", "statistics.safetensors"]
    opened: list[bytes] = []

    def open_graph(graph: bytes) -> Engine:
        opened.append(graph)
        return open_engine(graph)

    back = read_frontend(folder, open_graph)
    assert len(opened) == 1
    assert isinstance(back, SpeechEncoder)
    assert (back.length, back.options(), back.files()) == (6, encoder.options(), encoder.files())
    np.testing.assert_array_equal(back(speech[20_000:20_010]).values, encoder(speech[20_000:20_010]).values)


def test_any_frontend_there_and_back(tmp_path: Path, speech: Samples) -> None:
    frontend = LogMel(40, 12, Statistics(np.full(40, -9, np.float32), np.full(40, 2, np.float32)))
    write_frontend(tmp_path, frontend)
    back = read_frontend(tmp_path)
    assert isinstance(back, LogMel)
    np.testing.assert_array_equal(back(speech).values, frontend(speech).values)


def test_written_over_itself(encoder: SpeechEncoder, tmp_path: Path) -> None:
    """An encoder reads its graph when it is asked to, from the folder that is being written."""
    write_frontend(tmp_path, encoder)
    back = read_frontend(tmp_path)
    assert isinstance(back, SpeechEncoder)
    write_frontend(tmp_path, back.with_statistics(Statistics(np.ones(4, np.float32), np.ones(4, np.float32))))
    again = read_frontend(tmp_path)
    assert isinstance(again, SpeechEncoder)
    assert again.statistics.mean.tolist() == [1, 1, 1, 1]
    assert again.files()["encoder.onnx"] == encoder.files()["encoder.onnx"]


def test_no_room_leaves_the_frontend_that_was_there(
    encoder: SpeechEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "encoders" / "new"
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "statistics" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, content)

    for had in (False, True):
        before = {file.name: file.read_bytes() for file in folder.glob("*")}
        assert bool(before) == had
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            with pytest.raises(EdgeSerError, match="cannot be written \\(No space left on device\\): make room"):
                write_frontend(folder, encoder)
        assert {file.name: file.read_bytes() for file in folder.glob("*")} == before
        assert folder.parent.exists() == had
        write_frontend(folder, encoder)
    assert read_frontend(folder).length == encoder.length


def test_folders_without_a_frontend(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"holds no frontend \(frontend\.json is missing\): run `edgeser export-"):
            read_frontend(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"3", b"{}", b"\xff", b'{"length": "many"}', b'{"length": null}', b'{"length": Infinity}'],
)
def test_descriptions_that_are_not_readable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "frontend.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"frontend\.json: not readable as a frontend's description") as caught:
        read_frontend(tmp_path)
    assert "\n" not in str(caught.value)


def test_descriptions_of_something_else(encoder: SpeechEncoder, tmp_path: Path) -> None:
    write_frontend(tmp_path, encoder)
    file = tmp_path / "frontend.json"
    spec = json.loads(file.read_text())
    for changed, message in (
        ({"kind": "mfcc"}, "got kind 'mfcc', expected one of log-mel, word-vectors, onnx-encoder"),
        ({"length": 7}, r"expected rows \(N, 7, dim\)"),
        ({"length": -1}, r"expected rows \(N, -1, dim\)"),
    ):
        file.write_text(json.dumps(spec | changed))
        with pytest.raises(BundleError, match=message):
            read_frontend(tmp_path)


@pytest.mark.parametrize("name", ["encoder.onnx", "statistics.safetensors"])
def test_a_missing_file_is_named(encoder: SpeechEncoder, tmp_path: Path, name: str) -> None:
    write_frontend(tmp_path, encoder)
    (tmp_path / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing from the frontend's folder"):
        read_frontend(tmp_path)


def test_the_folder_is_a_file(encoder: SpeechEncoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file, expected a folder to write into"):
        write_frontend(tmp_path / "file", encoder)
