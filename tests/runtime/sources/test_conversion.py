from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeser.runtime.audio import SAMPLE_RATE, Samples, prepare, resample
from edgeser.runtime.errors import InputError
from edgeser.runtime.sources import Converter

RATES = [4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]
TOLERANCE = 1e-6


def converted(chunks: list[NDArray[np.generic]], rate: int) -> Samples:
    converter = Converter(rate)
    return np.concatenate([*(converter(chunk) for chunk in chunks), converter.flush()])


def recorded(speech: Samples, rate: int, channels: int, dtype: str) -> NDArray[np.generic]:
    """A second of the clip as a device would give it."""
    mono = resample(speech[SAMPLE_RATE : 2 * SAMPLE_RATE], SAMPLE_RATE, rate)
    samples = np.stack([mono * (1 - 0.2 * number) for number in range(channels)], axis=1) if channels > 1 else mono
    if dtype == "float32":
        return samples
    if dtype == "float64":
        return samples.astype(np.float64)
    scale = {"uint8": 127, "int16": 32767, "int32": 2**31 - 1}[dtype]
    whole = np.rint(samples.astype(np.float64) * scale)
    return (whole + (128 if dtype == "uint8" else 0)).astype(dtype)


def cut(samples: NDArray[np.generic], places: list[int]) -> list[NDArray[np.generic]]:
    edges = [0, *sorted(place % (len(samples) + 1) for place in places), len(samples)]
    return [samples[start:end] for start, end in itertools.pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from(RATES),
    channels=st.sampled_from([1, 2, 3, 8, 16]),
    dtype=st.sampled_from(["uint8", "int16", "int32", "float32", "float64"]),
    places=st.lists(st.integers(0, 100_000), max_size=12),
)
def test_any_cut_gives_the_same_samples(
    speech: Samples, rate: int, channels: int, dtype: str, places: list[int]
) -> None:
    whole = recorded(speech, rate, channels, dtype)
    got = converted(cut(whole, places), rate)
    expected = prepare(whole, rate)
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(got, converted([whole], rate))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_sample_by_sample(speech: Samples, rate: int, channels: int) -> None:
    whole = recorded(speech, rate, channels, "int16")[: rate // 5]
    got = converted([whole[place : place + 1] for place in range(len(whole))], rate)
    np.testing.assert_allclose(got, prepare(whole, rate), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("rate", "lag_s"), [(8_000, 0.116), (44_100, 0.041), (48_000, 0.037), (16_000, 0.0)])
def test_the_lag_is_as_stated(speech: Samples, rate: int, lag_s: float) -> None:
    converter = Converter(rate)
    whole = recorded(speech, rate, 1, "int16")
    taken = given = 0
    worst_s = 0.0
    for chunk in np.array_split(whole, 1000):
        taken += len(chunk)
        given += len(converter(chunk))
        worst_s = max(worst_s, taken / rate - given / SAMPLE_RATE)
    assert 0.9 * lag_s <= worst_s <= lag_s
    assert given + len(converter.flush()) == SAMPLE_RATE


def test_ten_minutes_in_blocks() -> None:
    noise = np.random.default_rng(0).standard_normal(44_100).astype(np.float32) * 0.1
    converter = Converter(44_100)
    got = [converter(block) for _ in range(600) for block in np.split(noise, 10)]
    got.append(converter.flush())
    assert sum(map(len, got)) == 600 * SAMPLE_RATE
    expected = prepare(np.tile(noise, 3), 44_100)
    np.testing.assert_allclose(np.concatenate(got)[: 2 * SAMPLE_RATE], expected[: 2 * SAMPLE_RATE], atol=TOLERANCE)


def test_after_flush_a_new_recording_starts(speech: Samples) -> None:
    whole = recorded(speech, 44_100, 1, "int16")
    converter = Converter(44_100)
    first = np.concatenate([converter(whole), converter.flush()])
    np.testing.assert_array_equal(np.concatenate([converter(whole), converter.flush()]), first)


def test_nothing_gives_nothing() -> None:
    for rate in (16_000, 44_100):
        converter = Converter(rate)
        assert converter(np.zeros(0, np.int16)).shape == (0,)
        assert converter(np.zeros((0, 2), np.int16)).shape == (0,)
        assert converter.flush().shape == (0,)


def test_clipped_and_silent_stay_as_they_are() -> None:
    converter = Converter(16_000)
    assert converter(np.full(4, -32768, np.int16)).tolist() == [-1.0] * 4
    assert converter(np.zeros(4, np.float32)).tolist() == [0.0] * 4
    assert converter(np.full(4, 1.5, np.float32)).tolist() == [1.5] * 4


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (np.array([0.0, np.nan], np.float32), "got NaN or infinity"),
        (np.array([0.0, np.inf]), "got NaN or infinity"),
        (np.array([0.0, 20_000.0], np.float32), "got floats up to 20000, expected full scale 1.0"),
        (np.zeros(8, np.int64), "got int64, expected uint8, int16, int32 or floats"),
        (np.zeros((2, 16_000), np.float32), r"got shape \(2, 16000\), expected \(samples,\)"),
        (np.zeros((2, 2, 2), np.float32), r"got shape \(2, 2, 2\)"),
        (np.zeros((8, 2), np.float32), "got 2 channels, expected 1"),
    ],
)
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_refused_chunk_changes_nothing(speech: Samples, chunk: NDArray[np.generic], message: str, rate: int) -> None:
    whole = recorded(speech, rate, 1, "float32")
    converter = Converter(rate)
    got = [converter(whole[:5000])]
    with pytest.raises(InputError, match=message):
        converter(chunk)
    got += [converter(whole[5000:]), converter.flush()]
    np.testing.assert_array_equal(np.concatenate(got), converted([whole], rate))


@pytest.mark.parametrize("rate", [0, -16_000, 3_999, 400_000, float("nan")])
def test_a_rate_out_of_range(rate: float) -> None:
    with pytest.raises(InputError, match=r"got a rate of .* Hz, expected 4000 to 384000"):
        Converter(rate)


def test_other_channels_than_declared() -> None:
    with pytest.raises(InputError, match="got 1 channels, expected 2"):
        Converter(16_000, channels=2)(np.zeros(8, np.int16))


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_a_chunk_of_bytes_of_wider_samples_is_refused_and_quiet_ones_are_not(speech: Samples, rate: int) -> None:
    pcm = np.rint(speech * 32768).astype("<i2")
    converter = Converter(rate)
    for start in (0, 24_000, 40_000):  # silence, speech, its end
        raw = np.frombuffer(pcm[start : start + 800].tobytes(), np.uint8)
        with pytest.raises(InputError, match="got uint8 that is not spread like 8-bit audio"):
            converter(raw)
    quiet = np.full(1600, 128, np.uint8)
    for chunk in (
        quiet,
        quiet + np.arange(1600, dtype=np.uint8) % 2,
        np.ones(1600, np.int32),
        np.zeros(1600, np.int16),
    ):
        converter(chunk)
