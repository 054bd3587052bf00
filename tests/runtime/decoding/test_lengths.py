"""What headers say of lengths, wrong, missing or of a file that was cut short."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio, load_recording, resample
from edgeser.runtime.decoding import measure_audio
from edgeser.runtime.errors import InputError

Write = Callable[..., Path]
Hear = Callable[[Path], Samples]
BLOCK = 2048  # a coding of blocks fills its last one up


def length_field(kind: str, raw: bytes) -> tuple[int, str, int]:
    """Return where a container states its length, as what, and what it counts beside the samples."""
    if kind in ("WAV", "WAVEX"):
        return raw.index(b"data") + 4, "<I", 0
    if kind == "RF64":
        return 28, "<Q", 0
    if kind == "AIFF":
        return raw.index(b"SSND") + 4, ">I", 8
    if kind == "AU":
        return 8, ">I", 0
    if kind == "W64":
        return raw.index(b"data\xf3\xac\xd3\x11") + 16, "<Q", 24
    assert kind == "CAF"
    return raw.index(b"data") + 4, ">Q", 4


def stating(raw: bytes, kind: str, length: int | None, share: float = 1.0) -> bytes:
    """Return a file that states another length: so many bytes (-1 for the largest number), or a share of the true."""
    place, form, more = length_field(kind, raw)
    (true,) = struct.unpack_from(form, raw, place)
    most = (1 << (8 * struct.calcsize(form))) - 1
    value = most if length == -1 else length if length is not None else int((true - more) * share) // 8 * 8 + more
    mended = bytearray(raw)
    struct.pack_into(form, mended, place, min(value, most))
    return bytes(mended)


def flac_stating(raw: bytes, share: float) -> bytes:
    """Return a FLAC whose STREAMINFO states another total; 0 for none."""
    facts = int.from_bytes(raw[18:26], "big")
    total = facts & 0xFFFFFFFFF
    return raw[:18] + (facts - total + int(total * share)).to_bytes(8, "big") + raw[26:]


@pytest.mark.parametrize("length", [0, -1, "half", "double"])
def test_a_wrong_length_is_not_believed(
    write: Write, tmp_path: Path, speech: Samples, sized: tuple[str, str], length: int | str
) -> None:
    kind, coding = sized
    file = write(kind, coding, speech)
    whole = load_audio(file)
    raw = file.read_bytes()
    if isinstance(length, int):
        wrong = stating(raw, kind, length)
    else:
        wrong = stating(raw, kind, None, {"half": 0.5, "double": 2.0}[length])
    file.write_bytes(wrong)
    recorded = load_recording(file)
    if coding.startswith("ALAC"):  # its table of packets stands behind the samples, and states how many there are
        assert abs(recorded.samples.shape[0] - whole.shape[0]) < BLOCK
        return
    np.testing.assert_array_equal(recorded.samples[: whole.shape[0]], whole)
    assert recorded.samples.shape[0] - whole.shape[0] < BLOCK
    assert recorded.truncated == (length == "double")


def test_one_that_is_cut_short_is_answered_and_marked(
    write: Write,
    tmp_path: Path,
    speech: Samples,
    coded: tuple[str, str],
    caplog: pytest.LogCaptureFixture,
    heard: Hear,
) -> None:
    kind, coding = coded
    file = write(kind, coding, speech)
    whole = load_audio(file)
    raw = file.read_bytes()
    file.write_bytes(raw[: len(raw) * 6 // 10])
    recorded = load_recording(file)
    assert recorded.truncated
    count = recorded.samples.shape[0]
    assert 0.25 * whole.shape[0] < count < 0.75 * whole.shape[0]
    exact = count - BLOCK  # the last block may lack what followed it
    np.testing.assert_allclose(recorded.samples[:exact], whole[:exact], rtol=0, atol=1e-6)
    (line,) = caplog.messages
    assert f"{file}: cut short: ends after {count / SAMPLE_RATE:.2f} " in line
    caplog.clear()
    np.testing.assert_allclose(heard(file), recorded.samples, rtol=0, atol=1e-6)
    assert len(caplog.messages) == 1
    assert measure_audio(file) == (pytest.approx(count / SAMPLE_RATE), True)


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0])
def test_a_flac_with_another_total(tmp_path: Path, clip: Path, speech: Samples, share: float, heard: Hear) -> None:
    file = tmp_path / "a.flac"
    file.write_bytes(flac_stating(clip.read_bytes(), share))
    recorded = load_recording(file)
    np.testing.assert_array_equal(recorded.samples, speech)
    assert recorded.truncated == (share > 1)
    np.testing.assert_array_equal(heard(file), speech)
    assert measure_audio(file) == (pytest.approx(speech.shape[0] / SAMPLE_RATE), share > 1)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_an_mp3_with_another_count(write: Write, tmp_path: Path, speech: Samples, share: float) -> None:
    raw = bytearray(write("MP3", "MPEG_LAYER_III", speech).read_bytes())
    place = raw.index(b"Xing") + 8
    (count,) = struct.unpack_from(">I", raw, place)
    whole = load_audio(tmp_path / "MP3-MPEG_LAYER_III.mp3")
    struct.pack_into(">I", raw, place, int(count * share))
    (tmp_path / "a.mp3").write_bytes(raw)
    recorded = load_recording(tmp_path / "a.mp3")
    assert abs(recorded.samples.shape[0] - whole.shape[0]) < BLOCK
    count = min(recorded.samples.shape[0], whole.shape[0])
    np.testing.assert_allclose(recorded.samples[:count], whole[:count], rtol=0, atol=1e-6)
    assert recorded.truncated == (share > 1)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("left", [0.3, 0.6, 0.99, 1.0])
def test_layer_ii_that_is_cut(tmp_path: Path, speech: Samples, rate: int, left: float) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'edgeser[video]'")
    file = tmp_path / "a.mp2"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mp2", rate=rate, layout="mono")
        pcm = np.round(resample(speech, SAMPLE_RATE, rate) * 32767).clip(-32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * left)])
    recorded = load_recording(file)
    assert recorded.truncated == (left < 1)
    assert recorded.samples.shape[0] == pytest.approx(left * speech.shape[0], abs=3 * BLOCK)


def test_joined_mp3_files_are_heard_to_the_end(write: Write, tmp_path: Path, speech: Samples) -> None:
    one = write("MP3", "MPEG_LAYER_III", speech)
    length = load_audio(one).shape[0]
    (tmp_path / "two.mp3").write_bytes(one.read_bytes() * 2)
    recorded = load_recording(tmp_path / "two.mp3")
    assert not recorded.truncated
    assert abs(recorded.samples.shape[0] - 2 * length) < 3 * BLOCK


def test_chunks_that_follow_are_no_sound(write: Write, tmp_path: Path, speech: Samples) -> None:
    for samples in (speech, speech[:-1]):
        file = write("WAV", "PCM_U8", samples)
        whole = load_audio(file)
        raw = file.read_bytes()
        note = b"LIST" + struct.pack("<I", 16) + b"INFOISFT" + struct.pack("<I", 4) + b"abc\0"
        for after in (note, note + b"id3 " + struct.pack("<I", 3) + b"abc\0", note + b"PAD " + bytes(4)):
            file.write_bytes(raw + after)
            np.testing.assert_array_equal(load_audio(file), whole)


def test_an_empty_recording_with_notes_stays_empty(tmp_path: Path) -> None:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(0), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    (tmp_path / "a.wav").write_bytes(out.getvalue() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    with pytest.raises(InputError, match=r"a\.wav: holds no samples"):
        load_audio(tmp_path / "a.wav")


def test_memory_does_not_follow_a_header(tmp_path: Path, clip: Path) -> None:
    raw = clip.read_bytes()
    facts = int.from_bytes(raw[18:26], "big") | 0xFFFFFFFFF
    (tmp_path / "a.flac").write_bytes(raw[:18] + facts.to_bytes(8, "big") + raw[26:])
    tracemalloc.start()
    recorded = load_recording(tmp_path / "a.flac")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert recorded.truncated
    assert peak < 5_000_000


def test_a_part_before_the_cut_is_whole(tmp_path: Path, clip: Path, speech: Samples) -> None:
    raw = clip.read_bytes()
    (tmp_path / "a.flac").write_bytes(raw[: len(raw) // 2])
    part = load_recording(tmp_path / "a.flac", 0.2, 1.0)
    np.testing.assert_array_equal(part.samples, speech[3200:16_000])
    assert not part.truncated
    assert load_recording(tmp_path / "a.flac", 1.0, 3.0).truncated
    assert load_recording(tmp_path / "a.flac", 3.0).samples.shape == (0,)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        [
            ("WAV", "PCM_16"),
            ("AIFF", "PCM_16"),
            ("CAF", "PCM_16"),
            ("FLAC", "PCM_16"),
            ("MP3", "MPEG_LAYER_III"),
            ("OGG", "VORBIS"),
            ("W64", "PCM_16"),
            ("NIST", "PCM_16"),
            ("AU", "ULAW"),
            ("RF64", "FLOAT"),
        ]
    ),
    st.integers(0, 120),
    st.binary(min_size=1, max_size=8),
)
def test_a_damaged_header_gives_sound_or_one_clear_line(
    write: Write, tmp_path: Path, speech: Samples, pair: tuple[str, str], place: int, damage: bytes
) -> None:
    file = write(*pair, speech[:16_000])
    raw = file.read_bytes()
    file.write_bytes(raw[:place] + damage + raw[place + len(damage) :])
    try:
        samples = load_audio(file)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        return
    assert np.isfinite(samples).all()
    assert samples.shape[0] < 40 * 16_000
