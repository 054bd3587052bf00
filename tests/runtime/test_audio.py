from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio, prepare, read_audio
from edgeser.runtime.errors import InputError

LOSSLESS = [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_32"), ("wav", "FLOAT"), ("wav", "DOUBLE")]
LOSSLESS += [("flac", "PCM_16"), ("flac", "PCM_24")]


def tone(hz: float, rate: int, seconds: float = 1.0) -> Samples:
    return np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


def middle(samples: Samples) -> Samples:
    """The second half second of a second: a filter's onset and end are no part of its response."""
    return samples[samples.shape[0] // 4 : -samples.shape[0] // 4]


@pytest.fixture(scope="module")
def pcm(speech: Samples) -> NDArray[np.int16]:
    """The clip as it was recorded, 16 bit."""
    scaled = speech * 32768.0
    assert (scaled == np.rint(scaled)).all()
    return scaled.astype(np.int16)


class TestFiles:
    @pytest.mark.parametrize(("suffix", "subtype"), LOSSLESS)
    def test_lossless_formats_give_the_same_samples(
        self, tmp_path: Path, speech: Samples, suffix: str, subtype: str
    ) -> None:
        file = tmp_path / f"clip.{suffix}"
        soundfile.write(file, speech.astype(np.float64), SAMPLE_RATE, subtype=subtype)
        np.testing.assert_array_equal(load_audio(file), speech)

    def test_ogg_is_close(self, tmp_path: Path, speech: Samples) -> None:
        soundfile.write(tmp_path / "clip.ogg", speech, SAMPLE_RATE)
        got = load_audio(tmp_path / "clip.ogg")
        assert got.shape == speech.shape
        assert np.corrcoef(got, speech)[0, 1] > 0.99

    def test_eight_bit_wav_has_its_silence_at_zero(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", np.zeros(800), SAMPLE_RATE, subtype="PCM_U8")
        assert np.abs(load_audio(tmp_path / "a.wav")).max() == 0.0

    def test_read_audio_leaves_rate_and_channels(self, tmp_path: Path, speech: Samples) -> None:
        soundfile.write(tmp_path / "a.wav", np.stack([speech, -speech], axis=1), 44_100, subtype="FLOAT")
        samples, rate = read_audio(tmp_path / "a.wav")
        assert (samples.shape, samples.dtype, rate) == ((speech.shape[0], 2), np.float32, 44_100)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"none\.wav: no such file"):
            load_audio(tmp_path / "none.wav")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            load_audio(tmp_path)

    @pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.raw", "a.txt", "a"])
    @pytest.mark.parametrize("content", [b"", b"This is no recording.\n", bytes(range(256)) * 8])
    def test_not_audio(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"not readable as audio .*: expected WAV, FLAC or OGG"):
            load_audio(tmp_path / name)

    @pytest.mark.parametrize("share", [0.001, 0.01])
    def test_flac_cut_before_its_first_sample(self, tmp_path: Path, clip: Path, share: float) -> None:
        raw = clip.read_bytes()
        (tmp_path / "cut.flac").write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(InputError, match="not readable as audio"):
            load_audio(tmp_path / "cut.flac")

    def test_no_samples(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "empty.wav", np.zeros(0), SAMPLE_RATE)
        with pytest.raises(InputError, match=r"empty\.wav: holds no samples"):
            load_audio(tmp_path / "empty.wav")

    def test_unusable_content_names_the_file(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), SAMPLE_RATE, subtype="FLOAT")
        with pytest.raises(InputError, match=r"nan\.wav: audio: got NaN or infinity"):
            load_audio(tmp_path / "nan.wav")


class TestShape:
    @pytest.mark.parametrize("shape", [(0,), (0, 2), (5, 0)])
    def test_empty(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match="got no samples, expected at least one frame"):
            prepare(np.zeros(shape, np.float32), SAMPLE_RATE)

    def test_stereo_is_averaged(self, speech: Samples) -> None:
        stereo = np.stack([speech, np.zeros_like(speech)], axis=1)
        np.testing.assert_array_equal(prepare(stereo, SAMPLE_RATE), speech / 2)

    def test_equal_channels_give_the_mono_signal(self, pcm: NDArray[np.int16], speech: Samples) -> None:
        np.testing.assert_array_equal(prepare(np.stack([pcm, pcm], axis=1), SAMPLE_RATE), speech)

    @pytest.mark.parametrize("shape", [(2, 16_000), (1, 16_000), (16_000, 17), (4, 4, 4), ()])
    def test_channels_first_and_other_shapes_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match=r"got shape \(.*\), expected \(samples,\) or \(samples, channels\)"):
            prepare(np.zeros(shape, np.float32), SAMPLE_RATE)

    def test_input_is_left_alone(self, pcm: NDArray[np.int16]) -> None:
        before = pcm.copy()
        prepare(pcm, 44_100)
        np.testing.assert_array_equal(pcm, before)

    @settings(max_examples=150, deadline=None)
    @given(
        arrays.arrays(
            st.sampled_from([np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64]),
            arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=24),
        ),
        st.sampled_from([0, 3_999, 4_000, 8_000, 16_000, 22_050, 44_100, 48_000, 384_000, 400_000]),
    )
    def test_anything_gives_usable_samples_or_one_clear_line(self, samples: NDArray[np.generic], rate: int) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "overflow encountered in cast")
            try:
                got = prepare(samples, rate)
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
                return
        assert got.ndim == 1
        assert got.dtype == np.float32
        assert np.isfinite(got).all()
        assert got.size > 0


class TestResampling:
    @pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
    def test_a_tone_comes_through(self, rate: int) -> None:
        got = prepare(tone(1_000, rate), rate)
        assert got.shape == (SAMPLE_RATE,)
        assert np.abs(middle(got) - middle(tone(1_000, SAMPLE_RATE))).max() < 1e-4  # -80 dB

    @pytest.mark.parametrize(("hz", "rate"), [(10_000, 44_100), (10_000, 48_000), (9_000, 44_100), (15_000, 48_000)])
    def test_what_16_khz_cannot_hold_vanishes(self, hz: float, rate: int) -> None:
        """Slicing instead of a low-pass would fold 10 kHz to 6 kHz at full strength."""
        left = middle(prepare(tone(hz, rate), rate))
        assert 20 * np.log10(np.sqrt(2 * np.mean(left**2)) + 1e-12) < -60

    def test_speech_survives_going_up_and_back(self, speech: Samples, tmp_path: Path) -> None:
        import soxr

        up = soxr.resample(speech, SAMPLE_RATE, 48_000, quality="HQ")
        back = middle(prepare(up, 48_000))
        error = np.sqrt(np.mean((back - middle(speech)) ** 2) / np.mean(middle(speech) ** 2))
        assert error < 0.02  # what lies between 7.3 and 8 kHz is lost

    def test_16_khz_is_not_touched(self, speech: Samples) -> None:
        np.testing.assert_array_equal(prepare(speech, SAMPLE_RATE), speech)

    @pytest.mark.parametrize("rate", [0, -16_000, 3_999, 384_001, float("nan"), float("inf")])
    def test_rates_that_cannot_be(self, rate: float) -> None:
        with pytest.raises(InputError, match=rf"got a rate of {rate} Hz, expected 4000 to 384000"):
            prepare(np.zeros(800, np.float32), rate)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("rate", "count"), [(r, n) for r in (8_000, 16_000, 44_100, 48_000) for n in (1, 7)])
    def test_a_few_samples_give_some_or_are_refused(self, rate: int, count: int) -> None:
        try:
            got = prepare(np.full(count, 0.5, np.float32), rate)
        except InputError as error:
            assert f"got {count} samples at {rate} Hz, too few" in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert got.size >= 1

    def test_ten_minutes(self, pcm: NDArray[np.int16]) -> None:
        long = np.resize(pcm, 600 * 8_000)
        got = prepare(long, 8_000)
        assert got.shape == (600 * SAMPLE_RATE,)
        assert np.isfinite(got).all()
        assert np.abs(got).max() < 1.5
