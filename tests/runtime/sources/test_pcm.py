from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from edgeser.runtime.audio import Samples, prepare
from edgeser.runtime.errors import InputError, SourceError
from edgeser.runtime.sources import PcmSource, Source

SCALES = {"uint8": 127.0, "int16": 32767.0, "int32": 2.0**31 - 1}


def raw(speech: Samples, kind: str, channels: int) -> NDArray[np.generic]:
    samples = np.stack([speech, -0.5 * speech], axis=1)[:, :channels]
    if kind == "float32":
        return samples
    whole = np.rint(samples.astype(np.float64) * SCALES[kind]) + (128 if kind == "uint8" else 0)
    return whole.astype(kind)


def heard(source: Source) -> Samples:
    blocks = []
    while (block := source.read(5.0)) is not None:
        blocks.append(block)
    return np.concatenate(blocks)


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_pipe_in_odd_pieces(speech: Samples, kind: str, channels: int, rate: int) -> None:
    samples = raw(speech, kind, channels)
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    end, start = os.pipe()

    def write() -> None:
        place, step = 0, 1
        while place < len(data):
            place += os.write(start, data[place : place + step])
            step = step * 3 % 7919 + 1  # one byte, then odd and even pieces up to 8 kB
        os.close(start)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(end, "rb") as stream, PcmSource(stream, rate, channels, kind) as source:
        got = heard(source)
        assert source.read(1.0) is None
    writer.join()
    np.testing.assert_allclose(got, prepare(samples, rate), rtol=0, atol=1e-6)


def test_standard_input_of_a_process(speech: Samples) -> None:
    code = (
        "import numpy as np\nfrom edgeser.runtime.sources import PcmSource\n"
        "with PcmSource() as source:\n"
        "    blocks = []\n"
        "    while (block := source.read(5.0)) is not None: blocks.append(block)\n"
        "print(source.name, sum(map(len, blocks)), round(float(np.square(np.concatenate(blocks)).sum()), 3))"
    )
    data = raw(speech, "int16", 1).tobytes()
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    energy = round(float(np.square(prepare(raw(speech, "int16", 1), 16_000)).sum()), 3)
    name, samples, got = done.stdout.decode().rsplit(" ", 2)
    assert (name.strip(), int(samples)) == ("standard input", speech.shape[0])
    assert float(got) == pytest.approx(energy, rel=1e-4)


def test_a_file_and_bytes_in_memory(tmp_path: Path, speech: Samples) -> None:
    samples = raw(speech, "int16", 1)
    (tmp_path / "a.raw").write_bytes(samples.tobytes())
    expected = prepare(samples, 16_000)
    with (tmp_path / "a.raw").open("rb") as stream, PcmSource(stream) as source:
        np.testing.assert_array_equal(heard(source), expected)
    with PcmSource(io.BytesIO(samples.tobytes())) as source:
        np.testing.assert_array_equal(heard(source), expected)


def test_a_frame_cut_short_at_the_end_is_left_out() -> None:
    with PcmSource(io.BytesIO(b"\x00\x40\x00"), rate=16_000) as source:
        assert heard(source).tolist() == [0.5]


def test_a_silent_pipe_keeps_nobody_waiting() -> None:
    end, start = os.pipe()
    with os.fdopen(end, "rb") as stream, PcmSource(stream) as source:
        start_s = time.monotonic()
        block = source.read(0.2)
        waited_s = time.monotonic() - start_s
        assert block is not None
        assert block.size == 0
        assert 0.15 < waited_s < 5.0
        os.write(start, b"\x00")
        half = source.read(5.0)
        os.write(start, b"\x40")
        whole = source.read(5.0)
        assert half is not None
        assert whole is not None
        assert (half.tolist(), whole.tolist()) == ([], [0.5])
        os.close(start)
        assert heard(source).size == 0


def test_close_ends_a_wait_and_leaves_the_stream_open() -> None:
    end, start = os.pipe()
    with os.fdopen(end, "rb") as stream, os.fdopen(start, "wb"):
        source = PcmSource(stream)
        source.open()
        got: list[Samples | None] = []
        reader = threading.Thread(target=lambda: got.append(source.read(60.0)))
        reader.start()
        time.sleep(0.1)
        source.close()
        source.close()
        reader.join(5.0)
        assert got == [None]
        assert not stream.closed


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "FLAC", "OGG", "AIFF", "CAF", "AU"])
@pytest.mark.parametrize("piece", [1, 3, 100_000])
def test_a_file_is_no_samples(speech: Samples, kind: str, piece: int) -> None:
    """A WAV or FLAC file was taken as samples: nothing printed, exit status 0."""
    if kind not in soundfile.available_formats():
        pytest.skip(f"this libsndfile writes no {kind}")
    file = io.BytesIO()
    soundfile.write(file, speech, 16_000, format=kind)
    data = file.getvalue()
    refused_in_pieces(data, piece)


def test_tagged_mp3_and_mp4_are_no_samples(speech: Samples) -> None:
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(speech[None, :1024], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    for data in (file.getvalue(), b"ID3\x04\x00" + bytes(100)):
        for piece in (1, 3, 100_000):
            refused_in_pieces(data, piece)


def refused_in_pieces(data: bytes, piece: int) -> None:
    end, start = os.pipe()
    with os.fdopen(end, "rb") as stream, os.fdopen(start, "wb", buffering=0) as writer, PcmSource(stream) as source:
        for begin in range(0, 12, piece):
            writer.write(data[begin : begin + piece][:4096])
            if begin < 2 and piece < 3:
                assert source.read(5.0).size == 0
        with pytest.raises(
            InputError, match=r"^pcm: begins like a file of type .*, expected raw samples: give the file "
        ):
            heard(source)


@pytest.mark.parametrize("head", [b"RIF", b"RI", b"\0\0\0\x18fty", bytes(8), b"RIGHT___", b"ftypisom", b"\0\0\0"])
def test_samples_that_are_almost_a_file(head: bytes) -> None:
    with PcmSource(io.BytesIO(head)) as source:
        got = heard(source)
    np.testing.assert_array_equal(got, np.frombuffer(head[: len(head) // 2 * 2], "<i2") / np.float32(32768))


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="sample_format: got 'int24', expected one of uint8, int16, int32, float32"):
        PcmSource(io.BytesIO(), sample_format="int24")
    with pytest.raises(InputError, match="channels: got 17, expected 1 to 16"):
        PcmSource(io.BytesIO(), channels=17)
    with pytest.raises(InputError, match="got a rate of 100 Hz"):
        PcmSource(io.BytesIO(), rate=100)
    with pytest.raises(SourceError, match=r"pcm: is not open: call open\(\) first"):
        PcmSource(io.BytesIO()).read(0.1)
    with Path(os.devnull).open("rb") as stream:
        source = PcmSource(stream)
    with pytest.raises(SourceError, match="pcm: is closed already: hand over an open stream"):
        source.open()


def test_floats_on_an_integer_scale() -> None:
    data = np.array([0.0, 20_000.0], "<f4").tobytes()
    with (
        PcmSource(io.BytesIO(data), sample_format="float32") as source,
        pytest.raises(InputError, match=r"got floats up to 20000, expected full scale 1\.0"),
    ):
        source.read(1.0)


def test_a_descriptor_that_breaks(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)  # reading a folder fails, as a device that was pulled out does
    with (
        Path(os.devnull).open("rb") as stream,
        PcmSource(stream) as source,
    ):
        os.dup2(folder, stream.fileno())
        with pytest.raises(SourceError, match=r"pcm: broke off: .*Is a directory"):
            source.read(1.0)
    os.close(folder)
