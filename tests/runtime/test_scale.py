from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples, prepare
from edgeser.runtime.errors import InputError
from edgeser.runtime.scale import to_float

LEVELS_DB = (-60, -40, -20, -6, 0)


@pytest.fixture(scope="module")
def pcm(speech: Samples) -> NDArray[np.int16]:
    """The clip as it was recorded, 16 bit."""
    return np.rint(speech * 32768.0).astype(np.int16)


def test_one_scale_for_every_type(pcm: NDArray[np.int16], speech: Samples) -> None:
    for same in (pcm, pcm.astype(np.int32) << 16, pcm / 32768.0, (pcm / 32768.0).astype(np.float32)):
        got = to_float(same)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, speech)


def test_uint8_is_offset_binary(pcm: NDArray[np.int16]) -> None:
    coarse = pcm >> 8
    np.testing.assert_array_equal(to_float((coarse + 128).astype(np.uint8)), to_float(coarse << 8))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_full_scale_is_minus_one(dtype: type[np.integer]) -> None:
    info = np.iinfo(dtype)
    low, high = to_float(np.array([info.min, info.max], dtype))
    assert low == -1.0
    assert 0.99 < high <= 1.0


@given(arrays.arrays(np.int16, st.integers(1, 64)))
def test_int16_round_trip(samples: NDArray[np.int16]) -> None:
    np.testing.assert_array_equal(np.rint(to_float(samples) * 32768).astype(np.int16), samples)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int8, np.bool_, np.complex64, np.object_])
def test_other_types_are_refused(dtype: type[np.generic]) -> None:
    with pytest.raises(InputError, match=r"expected uint8, int16, int32 or floats: convert first"):
        prepare(np.zeros(800, dtype), SAMPLE_RATE)


def test_floats_on_the_int16_scale_are_refused(pcm: NDArray[np.int16]) -> None:
    with pytest.raises(InputError, match=r"got floats up to \d+, expected full scale 1.0: divide .* by 32768"):
        prepare(pcm.astype(np.float32), SAMPLE_RATE)


def test_clipped_floats_pass_as_they_are(speech: Samples) -> None:
    loud = speech * (4.0 / np.abs(speech).max())
    np.testing.assert_array_equal(prepare(loud, SAMPLE_RATE), loud)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 400, -1])
def test_not_finite(speech: Samples, bad: float, place: int) -> None:
    samples = speech.copy()
    samples[place] = bad
    with pytest.raises(InputError, match="NaN or infinity among the samples: repair the recording first"):
        prepare(samples, SAMPLE_RATE)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_silence_stays_silence(dtype: type[np.floating]) -> None:
    got = prepare(np.zeros(1600, dtype), 8_000)
    assert (got.shape, got.dtype, np.abs(got).max()) == ((3200,), np.float32, 0.0)


def at(speech: Samples, level_db: float) -> Samples:
    """The recording with its peak at a level below full scale."""
    return speech / np.abs(speech).max() * np.float32(10 ** (level_db / 20) * 0.999)


@pytest.mark.parametrize("level_db", LEVELS_DB)
def test_16_bit_values_in_int32_are_refused(speech: Samples, level_db: float) -> None:
    pcm = np.rint(at(speech, level_db) * 32768).astype(np.int32)
    for values in (pcm, pcm * 2):  # a sum of two channels
        with pytest.raises(InputError, match=r"got int32 up to [\d,]+, .*: shift 16-bit values left by 16"):
            prepare(values, SAMPLE_RATE)
    np.testing.assert_allclose(prepare(pcm << 16, SAMPLE_RATE), at(speech, level_db), rtol=0, atol=2**-16)


def test_24_bit_values_at_the_lower_end_of_int32_are_refused(speech: Samples) -> None:
    values = np.rint(at(speech, -6) * 2**23).astype(np.int32)
    with pytest.raises(InputError, match="shift 24-bit values left by 8"):
        prepare(values, SAMPLE_RATE)


@pytest.mark.parametrize("level_db", [-110, -90, *LEVELS_DB])
def test_24_bits_at_the_upper_end_are_taken_however_quiet(speech: Samples, level_db: float) -> None:
    values = np.rint(at(speech, level_db) * 2**23).astype(np.int32) << 8
    np.testing.assert_allclose(prepare(values, SAMPLE_RATE), at(speech, level_db), rtol=0, atol=2**-23)


def test_32_bits_and_silence_are_taken(speech: Samples) -> None:
    values = np.rint(at(speech, -40).astype(np.float64) * 2**31).astype(np.int32)
    np.testing.assert_allclose(prepare(values, SAMPLE_RATE), at(speech, -40), rtol=0, atol=1e-7)
    assert np.abs(prepare(np.zeros(1600, np.int32), SAMPLE_RATE)).max() == 0.0


@pytest.mark.parametrize("level_db", LEVELS_DB)
@pytest.mark.parametrize("form", ["<i2", ">i2"])
@pytest.mark.parametrize("channels", [1, 2])
def test_bytes_of_16_bit_audio_are_refused(clips: list[Path], level_db: float, form: str, channels: int) -> None:
    for clip in clips:
        samples = at(soundfile.read(clip, dtype="float32")[0], level_db)
        raw = np.rint(np.stack([samples] * channels, axis=1) * 32768).astype(form).tobytes()
        for part in (raw, raw[20_000:20_800]):
            with pytest.raises(InputError, match=r"got uint8 that is not spread like 8-bit audio .*frombuffer\(data"):
                prepare(np.frombuffer(part, np.uint8), SAMPLE_RATE)


def test_bytes_of_24_bit_audio_and_of_silence_are_refused(speech: Samples) -> None:
    packed = (np.rint(at(speech, -6) * 2**23).astype("<i4")).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    for raw in (packed, bytes(3200)):
        with pytest.raises(InputError, match="got uint8 that is not spread like 8-bit audio"):
            prepare(np.frombuffer(raw, np.uint8), SAMPLE_RATE)


@pytest.mark.parametrize("level_db", [*LEVELS_DB, 6, 12])
def test_8_bit_audio_is_taken_at_any_level(clips: list[Path], level_db: float) -> None:
    for clip in clips:
        samples = at(soundfile.read(clip, dtype="float32")[0], level_db).clip(-1, 1)
        values = np.rint(samples * 127 + 128).astype(np.uint8)
        for part in (values, values[:8000], np.stack([values, np.full_like(values, 128)], axis=1)):
            assert prepare(part, SAMPLE_RATE).shape[0] == part.shape[0]
    assert np.abs(prepare(np.full(1600, 128, np.uint8), SAMPLE_RATE)).max() == 0.0


def test_8_bit_noise_is_taken() -> None:
    rng = np.random.default_rng(0)
    for samples in (rng.standard_normal(16_000) * 0.3, np.sin(np.arange(16_000)) * 0.99, rng.uniform(-1, 1, 16_000)):
        prepare(np.rint(samples.clip(-1, 1) * 127 + 128).astype(np.uint8), SAMPLE_RATE)
