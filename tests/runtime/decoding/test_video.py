from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio, load_recording, prepare, read_audio
from edgeser.runtime.decoding import VIDEO_SUFFIXES, measure_audio
from edgeser.runtime.decoding.video import is_video
from edgeser.runtime.errors import InputError, MissingDependencyError

av: Any = pytest.importorskip("av", reason="PyAV is not installed: pip install 'edgeser[video]'")

PRIMING = 1024  # an AAC encoder's frame


def encode(file: Path, samples: Samples, rate: int = SAMPLE_RATE, layout: str = "mono", **options: str) -> Path:
    """Write `(samples,)` or `(samples, channels)` as AAC in the container that the file's name asks for."""
    with av.open(str(file), "w", options=options) as container:
        stream = container.add_stream("aac", rate=rate, layout=layout)
        planes = np.ascontiguousarray(np.atleast_2d(samples.T), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def likeness(heard: Samples, said: Samples) -> float:
    count = min(heard.shape[0], said.shape[0])
    return float(np.corrcoef(heard[:count], said[:count])[0, 1])


@pytest.fixture(scope="module")
def mp4(speech: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first clip, its index before its samples, as streaming sites and MELD write it."""
    return encode(tmp_path_factory.mktemp("video") / "clip.mp4", speech, movflags="faststart")


@pytest.mark.parametrize("suffix", [".mp4", ".m4a", ".mov", ".MP4"])
def test_speech_comes_back(tmp_path: Path, speech: Samples, suffix: str) -> None:
    file = encode(tmp_path / f"clip{suffix.lower()}", speech).rename(tmp_path / f"clip{suffix}")
    heard = load_audio(file)
    assert heard.dtype == np.float32
    assert likeness(heard, speech) > 0.999
    assert 0 <= heard.shape[0] - speech.shape[0] < PRIMING
    assert measure_audio(file)[0] == pytest.approx(speech.shape[0] / SAMPLE_RATE, abs=0.001)


def test_times_in_avi_are_not_believed(tmp_path: Path, speech: Samples) -> None:
    """FFmpeg 8 states 4.22 s of 3.97 for AAC in AVI, and 634 s for G.722."""
    file = encode(tmp_path / "clip.avi", speech)
    assert measure_audio(file)[0] == load_audio(file).shape[0] / SAMPLE_RATE
    assert measure_audio(file)[0] == pytest.approx(speech.shape[0] / SAMPLE_RATE, abs=2 * PRIMING / SAMPLE_RATE)


def test_matroska_states_the_files_length(tmp_path: Path, speech: Samples) -> None:
    file = encode(tmp_path / "clip.mkv", speech)
    assert load_audio(file).shape[0] == pytest.approx(speech.shape[0], abs=2 * PRIMING)
    assert measure_audio(file)[0] == pytest.approx(speech.shape[0] / SAMPLE_RATE, abs=2 * PRIMING / SAMPLE_RATE)


def test_start_and_end(mp4: Path) -> None:
    whole = load_audio(mp4)
    np.testing.assert_array_equal(load_audio(mp4, 0.5, 2.0), whole[8000:32000])
    np.testing.assert_array_equal(load_audio(mp4, 3.0), whole[48000:])


def test_another_rate(tmp_path: Path, speech: Samples) -> None:
    import soxr

    file = encode(tmp_path / "clip.mp4", soxr.resample(speech, SAMPLE_RATE, 48_000), 48_000)
    assert read_audio(file)[1] == 48_000
    assert likeness(load_audio(file), speech) > 0.99


def test_stereo_is_averaged(tmp_path: Path, speech: Samples) -> None:
    stereo = np.stack([speech, np.zeros_like(speech)], axis=1)
    samples, rate = read_audio(encode(tmp_path / "clip.mp4", stereo, layout="stereo"))
    assert samples.shape[1] == 2
    mono = prepare(samples, rate)[: speech.shape[0]]
    assert float(np.dot(mono, speech) / np.dot(speech, speech)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01])
def test_cut_before_its_sound(tmp_path: Path, mp4: Path, share: float) -> None:
    raw = mp4.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match=r"cut\.mp4: not readable as .+ \(.+\)") as caught:
        load_audio(tmp_path / "cut.mp4")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_cut_short(tmp_path: Path, mp4: Path, share: float, caplog: pytest.LogCaptureFixture) -> None:
    raw = mp4.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(raw[: int(len(raw) * share)])
    check_cut(tmp_path / "cut.mp4", mp4, caplog)


def test_cut_between_two_packets(tmp_path: Path, mp4: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing fails there: FFmpeg takes it for the end."""
    with av.open(str(mp4)) as container:
        packets = [packet for packet in container.demux() if packet.pos is not None]
    middle = packets[len(packets) // 2]
    (tmp_path / "cut.mp4").write_bytes(mp4.read_bytes()[: middle.pos])
    check_cut(tmp_path / "cut.mp4", mp4, caplog)


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_other_containers_cut_short(
    tmp_path: Path, speech: Samples, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = encode(tmp_path / f"clip{suffix}", speech)
    raw = whole.read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(raw[: len(raw) // 2])
    check_cut(tmp_path / f"cut{suffix}", whole, caplog)


def check_cut(cut: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorded, expected = load_recording(cut), load_recording(whole)
    assert recorded.truncated
    assert not expected.truncated
    count = recorded.samples.shape[0] - 2 * PRIMING  # the last frame may be of less than it was made of
    assert 0 < count < expected.samples.shape[0]
    np.testing.assert_array_equal(recorded.samples[:count], expected.samples[:count])
    (line,) = caplog.messages
    assert f"{cut.name}: cut short: ends after " in line
    length_s, truncated = measure_audio(cut)
    assert truncated
    assert length_s == pytest.approx(recorded.samples.shape[0] / SAMPLE_RATE, abs=3 * PRIMING / SAMPLE_RATE)


def test_no_index(tmp_path: Path, speech: Samples) -> None:
    """Where the index stands last, half a file has none: MELD's train/dia125_utt3.mp4."""
    raw = encode(tmp_path / "clip.mp4", speech).read_bytes()
    (tmp_path / "half.mp4").write_bytes(raw[: len(raw) // 2])
    for read in (load_audio, measure_audio):
        with pytest.raises(InputError, match=r"half\.mp4: not readable as video"):
            read(tmp_path / "half.mp4")


def test_no_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode(None))
    for read in (load_audio, measure_audio):
        with pytest.raises(InputError, match=r"mute\.mp4: not readable as video \(no audio track\)"):
            read(tmp_path / "mute.mp4")


@pytest.mark.parametrize(
    "content", ["ffconcat version 1.0\nfile clip.wav\n", "#EXTM3U\n#EXTINF:4,\nclip.wav\n#EXT-X-ENDLIST\n", "text"]
)
def test_a_list_of_other_files_is_not_followed(tmp_path: Path, speech: Samples, content: str) -> None:
    soundfile.write(tmp_path / "clip.wav", speech, SAMPLE_RATE)
    (tmp_path / "list.mp4").write_text(content)
    with pytest.raises(InputError, match=r"list\.mp4: not readable as video"):
        load_audio(tmp_path / "list.mp4")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.mp4: no such file"):
        load_audio(tmp_path / "none.mp4")
    with pytest.raises(InputError, match=r"none\.mp4: no such file"):
        measure_audio(tmp_path / "none.mp4")


def test_without_the_library(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for read in (load_audio, measure_audio):
        with pytest.raises(
            MissingDependencyError, match=r"av is not installed, the sound of \.mp4 files needs it: pip"
        ):
            read(mp4)


def test_names() -> None:
    assert all(is_video(Path(f"a{suffix}")) and is_video(Path(f"a{suffix.upper()}")) for suffix in VIDEO_SUFFIXES)
    assert not any(is_video(Path(name)) for name in ("a.wav", "a.flac", "a.ogg", "a.mp3", "mp4", ".mp4"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.lists(st.integers(0, 255), min_size=1, max_size=8))
@example(316, [0, 0, 0, 0, 1])  # names a coding that does not exist
def test_damage_gives_sound_or_one_clear_line(tmp_path: Path, mp4: Path, place: int, damage: list[int]) -> None:
    raw = bytearray(mp4.read_bytes())
    start = place % min(len(raw), 3000)  # the index, where damage does most
    raw[start : start + len(damage)] = bytes(damage)
    (tmp_path / "damaged.mp4").write_bytes(raw)
    try:
        assert np.isfinite(load_audio(tmp_path / "damaged.mp4")).all()
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
