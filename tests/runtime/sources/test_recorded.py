from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.sources import FileSource, Recorded, Source

KINDS = pytest.mark.parametrize("suffix", [".wav", ".flac"])

READER = """
import sys, time
from edgeser.runtime.sources import FileSource, Recorded
source = Recorded(FileSource(sys.argv[1]), sys.argv[2])
source.open()
for _ in range(25): source.read(1.0)
print("2.5 s", flush=True)
time.sleep(60)
"""


def heard(source: Source) -> Samples:
    blocks = []
    while (block := source.read(1.0)) is not None:
        blocks.append(block)
    return np.concatenate(blocks)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 KiB: 1.5 s of WAV."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here (not root)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@KINDS
def test_the_recording_is_the_audio_bit_by_bit(tmp_path: Path, clip: Path, speech: Samples, suffix: str) -> None:
    file = tmp_path / f"kept{suffix}"
    with Recorded(FileSource(clip), file) as source:
        np.testing.assert_array_equal(heard(source), speech)
        assert (source.name, source.live) == (clip.name, False)
    np.testing.assert_array_equal(load_audio(file), speech)


@KINDS
def test_closed_half_way_it_holds_what_was_read(tmp_path: Path, clip: Path, speech: Samples, suffix: str) -> None:
    file = tmp_path / f"kept{suffix}"
    source = Recorded(FileSource(clip), file)
    source.open()
    for _ in range(7):
        source.read(1.0)
    source.close()
    source.close()
    np.testing.assert_array_equal(load_audio(file), speech[: 7 * 1600])


@KINDS
def test_a_killed_process_leaves_a_readable_file(tmp_path: Path, clip: Path, speech: Samples, suffix: str) -> None:
    file = tmp_path / f"kept{suffix}"
    command = [sys.executable, "-c", READER, str(clip), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "2.5 s\n"
        process.send_signal(signal.SIGKILL)
    kept = load_audio(file)
    expected = 25 * 1600 if suffix == ".wav" else 25 * 1600 // 4096 * 4096
    np.testing.assert_array_equal(kept, speech[:expected])


@KINDS
def test_a_full_disk_ends_the_recording_alone(
    small_disk: Path, clip: Path, speech: Samples, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = small_disk / f"kept{suffix}"
    (small_disk / "other").write_bytes(bytes(32 * 1024))
    with Recorded(FileSource(clip), file) as source:
        np.testing.assert_array_equal(heard(source), speech)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "recording ends after" in errors[0]
    assert "the audio goes on: " in errors[0]
    kept = load_audio(file)
    assert 0.2 * SAMPLE_RATE < kept.shape[0] < speech.shape[0] / 2
    np.testing.assert_array_equal(kept, speech[: kept.shape[0]])


@KINDS
def test_a_vanished_folder_ends_the_recording_alone(
    tmp_path: Path, clip: Path, speech: Samples, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "stick"
    folder.mkdir()
    with Recorded(FileSource(clip), folder / f"kept{suffix}") as source:
        first = source.read(1.0)
        assert first is not None
        shutil.rmtree(folder)
        np.testing.assert_array_equal(np.concatenate([first, heard(source)]), speech)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "recording ends after 0.1 s, the audio goes on: the file was removed" in errors[0]


def test_a_wav_file_ends_before_its_lengths_overflow(
    tmp_path: Path, clip: Path, speech: Samples, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edgeser.runtime.sources.recorded._WAV_LIMIT", 2 * SAMPLE_RATE)
    with Recorded(FileSource(clip), tmp_path / "a.wav") as source:
        np.testing.assert_array_equal(heard(source), speech)
    assert "a WAV file holds 4 GiB" in caplog.text
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav"), speech[:SAMPLE_RATE])


def test_what_cannot_be_recorded_to(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(InputError, match=r"a\.mp3: cannot record to it, expected a name that ends in \.wav or \.flac"):
        Recorded(FileSource(clip), tmp_path / "a.mp3")
    with pytest.raises(InputError, match="its folder does not exist: create"):
        Recorded(FileSource(clip), tmp_path / "none" / "a.wav").open()
    (tmp_path / "old.wav").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"old\.wav: exists already"):
        Recorded(FileSource(clip), tmp_path / "old.wav").open()
    assert (tmp_path / "old.wav").read_bytes() == b"precious"


def test_a_source_that_does_not_open_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Recorded(FileSource(tmp_path / "none.wav"), tmp_path / "a.wav").open()
    assert list(tmp_path.iterdir()) == []


def test_no_descriptor_stays_open(tmp_path: Path, clip: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    with Recorded(FileSource(clip), tmp_path / "first.flac") as source:
        heard(source)
    before = descriptors()
    for suffix in ("wav", "flac"):
        with Recorded(FileSource(clip), tmp_path / f"a.{suffix}") as source:
            source.read(1.0)
    assert descriptors() == before
