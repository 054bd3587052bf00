"""One reader for all formats: block by block as in one piece, to the real end, whatever a header says."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio, load_recording, read_audio
from edgeser.runtime.decoding import measure_audio, open_audio
from edgeser.runtime.errors import InputError

Write = Callable[..., Path]
Hear = Callable[[Path], Samples]


def blocks(path: Path, frames: int) -> Samples:
    with open_audio(path) as file:
        parts = []
        while (block := file.read(frames)).shape[0]:
            parts.append(block)
    return np.concatenate(parts)


def test_block_by_block_is_the_whole(write: Write, tmp_path: Path, speech: Samples, coded: tuple[str, str]) -> None:
    kind, coding = coded
    file = write(kind, coding, speech)
    whole = soundfile.read(file, dtype="float32")[0]
    for frames in (100, 1600, 65_536):
        got = blocks(file, frames)[:, 0]
        assert got.shape == whole.shape
        np.testing.assert_allclose(got, whole, rtol=0, atol=1e-6)
    recorded = load_recording(file)
    np.testing.assert_allclose(recorded.samples, whole, rtol=0, atol=1e-6)
    assert not recorded.truncated
    assert measure_audio(file) == (pytest.approx(whole.shape[0] / SAMPLE_RATE), False)


@pytest.mark.parametrize(
    "options", [{"write_xing": "1"}, {"write_xing": "0"}, {"q": "4"}, {"q": "9"}, {"b": "32000"}, {"b": "128000"}]
)
def test_mp3_is_what_another_decoder_hears(tmp_path: Path, speech: Samples, options: dict[str, str]) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'edgeser[video]'")
    file = tmp_path / "a.mp3"
    codec = {name: value for name, value in options.items() if name != "write_xing"}
    muxer = {name: value for name, value in options.items() if name == "write_xing"}
    with av.open(str(file), "w", options=muxer) as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, layout="mono", options=codec)
        frame = av.AudioFrame.from_ndarray(speech[None], format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(file)) as container:
        expected = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    got = blocks(file, 1600)[:, 0]
    count = min(got.shape[0], expected.shape[0])
    assert abs(got.shape[0] - expected.shape[0]) <= 1152
    assert count > 0.9 * speech.shape[0]
    np.testing.assert_allclose(got[:count], expected[:count], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "coding"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
)
@pytest.mark.parametrize("rate", [16_000, 44_100, 11_025, 48_000])
@pytest.mark.parametrize(
    ("start_s", "end_s"), [(0.0, 1.0), (0.5, 2.0), (1.23456, 1.3), (3.0, None), (3.0, 99.0), (2.0, 2.0)]
)
def test_a_part_is_what_it_is_in_the_whole(
    write: Write,
    tmp_path: Path,
    speech: Samples,
    kind: str,
    coding: str,
    rate: int,
    start_s: float,
    end_s: float | None,
) -> None:
    import soxr

    file = write(kind, coding, soxr.resample(speech, SAMPLE_RATE, rate), rate)
    whole = load_audio(file)
    end = None if end_s is None else round(end_s * SAMPLE_RATE)
    part = load_recording(file, start_s, end_s)
    expected = whole[round(start_s * SAMPLE_RATE) : end]
    assert part.samples.shape == expected.shape
    np.testing.assert_allclose(part.samples, expected, rtol=0, atol=1e-5)
    assert not part.truncated


@pytest.mark.parametrize("kind", ["MAT5", "PAF", "IRCAM", "VOC", "PVF", "AVR"])
def test_what_cannot_be_known_whole_is_not_taken(write: Write, tmp_path: Path, speech: Samples, kind: str) -> None:
    file = write(kind, "PCM_16", speech)
    with pytest.raises(InputError, match=rf"is a {kind} file, which does not tell whether it is whole: .*: convert it"):
        load_audio(file)


def test_a_name_that_is_no_utf8(tmp_path: Path, clip: Path, speech: Samples) -> None:
    import os

    name = os.fsencode(tmp_path) + b"/\xff\xfe.flac"
    Path(os.fsdecode(name)).write_bytes(clip.read_bytes())
    np.testing.assert_array_equal(load_audio(os.fsdecode(name)), speech)


@pytest.mark.parametrize("coding", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("channels", [2, 3, 6])
def test_one_mix_and_one_level_in_every_format(tmp_path: Path, speech: Samples, coding: str, channels: int) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'edgeser[video]'")
    loud = speech / np.abs(speech).max() * 0.999
    many = np.stack([np.roll(loud, 37 * i) for i in range(channels)], axis=1)
    many = np.round(many * 32768).clip(-32768, 32767).astype(np.int16)
    expected = (many.astype(np.float64) / 32768).mean(axis=1)
    layout = {2: "stereo", 3: "3.0", 6: "5.1"}[channels]
    files = [tmp_path / f"a.{kind.lower()}" for kind in ("WAV", "WAVEX", "FLAC", "CAF")]
    for file, kind in zip(files, ("WAV", "WAVEX", "FLAC", "CAF"), strict=True):
        soundfile.write(file, many, SAMPLE_RATE, format=kind, subtype=coding)
    for name, codec in (("a.mkv", "flac"), ("a.mp4", "flac"), ("a.m4a", "alac"), ("a.mov", "pcm_s16le")):
        files.append(tmp_path / name)
        with av.open(str(files[-1]), "w") as container:
            stream = container.add_stream(codec, rate=SAMPLE_RATE, layout=layout)
            frame = av.AudioFrame.from_ndarray(many.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
            size = stream.codec_context.frame_size or 0
            resampler = av.AudioResampler(stream.format.name, layout, SAMPLE_RATE, frame_size=size)
            for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
                container.mux(stream.encode(piece))
    for file in files:
        got = load_audio(file)
        assert got.shape == expected.shape, file.name
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6, err_msg=file.name)
        samples, _ = read_audio(file)
        assert samples.shape == (speech.shape[0], channels)
