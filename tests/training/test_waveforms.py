"""What is done to a recording: ratios, bands and levels are what a condition says, measured on real speech."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import InputError
from edgeser.training import waveforms
from edgeser.training.waveforms import AcousticCondition, apply, speech_power


@pytest.fixture(scope="module")
def sounds(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Real speech backwards and broken up as a noise, with silence behind it, and a decaying room."""
    folder = tmp_path_factory.mktemp("sounds")
    noise = np.concatenate([load_audio(clips[1])[::-1], np.zeros(2 * SAMPLE_RATE, np.float32)])
    decay = np.exp(-np.arange(8000) / 1500.0) * np.random.default_rng(1).normal(0, 0.2, 8000)
    decay[0] = 1.0
    for name, samples in (("noise", noise), ("room", decay)):
        soundfile.write(folder / f"{name}.flac", np.clip(samples, -1, 1), SAMPLE_RATE)
    return {"noise": str(folder / "noise.flac"), "room": str(folder / "room.flac"), "voice": str(clips[2])}


@settings(max_examples=25, deadline=None)
@given(snr_db=st.floats(-10.0, 40.0), offset=st.floats(0.0, 1.0), babble=st.booleans())
def test_the_stated_ratio_is_reached(
    speech: Samples, sounds: dict[str, str], snr_db: float, offset: float, babble: bool
) -> None:
    condition = AcousticCondition(noise=sounds["noise"], noise_offset=offset, noise_snr_db=snr_db)
    if babble:
        condition = AcousticCondition(babble=(sounds["voice"], sounds["noise"]), babble_snr_db=snr_db)
    noisy = apply(speech, condition).astype(np.float64)
    # What was made softer as a whole is told by the projection onto the speech, which the noise is not like.
    clean = speech.astype(np.float64)
    wide = waveforms._babble(condition.babble, clean.size) if babble else None
    noise = (
        wide if wide is not None else waveforms._repeat(waveforms._without_pauses(sounds["noise"]), clean.size, offset)
    )
    scale, part = np.linalg.lstsq(np.stack([clean, noise], 1), noisy, rcond=None)[0]
    np.testing.assert_allclose(noisy, scale * clean + part * noise, atol=1e-5)  # nothing else is in it
    measured = 10 * np.log10(speech_power(scale * clean) / np.mean((part * noise) ** 2))
    assert measured == pytest.approx(snr_db, abs=0.5)


def test_active_power_leaves_pauses_out(speech: Samples) -> None:
    padded = np.concatenate([np.zeros(10 * SAMPLE_RATE, np.float32), speech])
    assert speech_power(padded) == pytest.approx(speech_power(speech), rel=0.05)
    assert speech_power(speech) > float(np.mean(speech**2))


def test_a_telephone_has_nothing_above_4_khz(speech: Samples) -> None:
    heard = apply(speech, AcousticCondition(telephone=True))
    power = np.abs(np.fft.rfft(heard)) ** 2
    hertz = np.fft.rfftfreq(heard.size, 1 / SAMPLE_RATE)
    assert power[hertz > 4000].sum() < 1e-6 * power.sum()
    assert power[(hertz > 300) & (hertz < 3400)].sum() > 0.97 * power.sum()
    before = np.abs(np.fft.rfft(speech)) ** 2
    assert before[hertz > 4000].sum() > 1e-4 * before.sum()


def test_mu_law_has_256_levels_or_fewer_and_is_fine_where_it_is_quiet() -> None:
    ramp = np.linspace(-1.2, 1.2, 100_001)
    coded = waveforms.mu_law(ramp)
    assert np.unique(coded).size == 255
    inside = np.abs(ramp) < 0.01
    assert np.abs(coded - ramp)[inside].max() < 5e-4 < np.abs(coded - np.clip(ramp, -1, 1)).max() < 0.03


@pytest.mark.parametrize("level_db", [-40.0, -20.0, -3.0, 0.0])
def test_level_is_exact(speech: Samples, level_db: float) -> None:
    heard = apply(speech, AcousticCondition(level_db=level_db))
    assert 20 * np.log10(np.abs(heard).max()) == pytest.approx(level_db, abs=1e-4)
    np.testing.assert_allclose(heard / np.abs(heard).max(), speech / np.abs(speech).max(), atol=1e-6)


def test_a_tilt_is_so_many_decibels_an_octave() -> None:
    times = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    for hertz, expected in ((500.0, -3.0), (1000.0, 0.0), (4000.0, 6.0)):
        tone = 0.1 * np.sin(2 * np.pi * hertz * times)
        middle = slice(8000, 24_000)
        ratio = np.std(waveforms.tilt(tone, 3.0)[middle]) / np.std(tone[middle])
        assert 20 * np.log10(ratio) == pytest.approx(expected, abs=0.05)


def test_clipping_flattens_the_stated_share(speech: Samples) -> None:
    heard = apply(speech, AcousticCondition(clipping=0.05))
    assert np.mean(np.abs(heard) >= np.abs(heard).max() * (1 - 1e-6)) == pytest.approx(0.05, abs=0.002)


def test_a_room_smears_and_keeps_length_and_power(speech: Samples, sounds: dict[str, str]) -> None:
    heard = apply(speech, AcousticCondition(room=sounds["room"], level_db=None))
    assert heard.shape == speech.shape
    ratio = speech_power(heard) / speech_power(speech)
    assert 0.2 < ratio < 1.01  # less only where its peak would have been above full scale
    response = load_audio(sounds["room"])
    expected = np.convolve(speech[:20_000], response)[:20_000]
    found = waveforms.reverberate(speech[:20_000].astype(np.float64), response)
    np.testing.assert_allclose(found / np.abs(found).max(), expected / np.abs(expected).max(), atol=1e-5)


_CONDITIONS = st.builds(
    AcousticCondition,
    cut_s=st.sampled_from([0.0, 0.01, 0.3]),
    cut_place=st.floats(0.0, 1.0),
    speed=st.floats(0.95, 1.05),
    noise_offset=st.floats(0.0, 1.0),
    noise_snr_db=st.floats(-20.0, 40.0),
    tilt_db=st.floats(-6.0, 6.0),
    clipping=st.floats(0.0, 0.5),
    telephone=st.booleans(),
    gain_db=st.floats(-60.0, 30.0),
    level_db=st.none() | st.floats(-60.0, 0.0),
)


@settings(max_examples=40, deadline=None)
@given(
    condition=_CONDITIONS,
    size=st.sampled_from([1, 2, 319, 320, 321, 16_000]),
    silent=st.booleans(),
    all_on=st.booleans(),
)
def test_anything_stays_finite_within_full_scale_and_repeatable(
    speech: Samples, sounds: dict[str, str], condition: AcousticCondition, size: int, silent: bool, all_on: bool
) -> None:
    if all_on:
        condition = dataclasses.replace(
            condition, noise=sounds["noise"], room=sounds["room"], babble=(sounds["voice"],), babble_snr_db=5.0
        )
    samples = np.zeros(size, np.float32) if silent else speech[16_000 : 16_000 + size]
    heard = apply(samples, condition)
    assert heard.dtype == np.float32
    assert np.isfinite(heard).all()
    assert np.abs(heard).max(initial=0.0) <= 1.0 + 1e-6
    left = min(size, round(condition.cut_s * 16_000) or size)
    assert heard.size == pytest.approx(left / condition.speed, abs=2)
    np.testing.assert_array_equal(heard, apply(samples, condition))
    if silent:
        assert not heard.any()


def test_ten_minutes_are_done_in_time(speech: Samples, sounds: dict[str, str]) -> None:
    long = np.resize(speech, 600 * SAMPLE_RATE)
    condition = AcousticCondition(
        room=sounds["room"], noise=sounds["noise"], babble=(sounds["voice"],), telephone=True, tilt_db=2.0
    )
    assert apply(long, condition).size == long.size


def test_a_stretch_is_from_where_the_voice_is(speech: Samples) -> None:
    pause = np.zeros(32_000, np.float32)
    samples = np.concatenate([pause, speech[16_000:32_000], pause])
    for place in (0.0, 0.5, 1.0):
        short = apply(samples, AcousticCondition(cut_s=0.7, cut_place=place))
        assert short.size == 11_200
        assert np.square(short, dtype=np.float64).sum() >= 0.25 * np.square(samples, dtype=np.float64).sum()
    first, last = (apply(samples, AcousticCondition(cut_s=0.7, cut_place=place)) for place in (0.0, 1.0))
    assert not np.array_equal(first, last)
    np.testing.assert_array_equal(apply(samples, AcousticCondition(cut_s=60.0)), samples)


def test_nothing_done_changes_nothing(speech: Samples) -> None:
    np.testing.assert_array_equal(apply(speech, AcousticCondition()), speech)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speed": 0.0}, "speed 0.0"),
        ({"clipping": 1.0}, "clipping 1.0"),
        ({"noise_offset": 1.5}, r"expected shares"),
        ({"cut_place": -0.1}, r"expected shares"),
        ({"cut_s": -1.0}, r"cut_s -1.0, expected seconds"),
        ({"cut_s": float("inf")}, r"cut_s inf"),
        ({"noise_snr_db": float("nan")}, "finite"),
        ({"level_db": 3.0}, "at most 0"),
    ],
)
def test_impossible_conditions_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AcousticCondition(**values)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_named(speech: Samples, tmp_path: Path) -> None:
    condition = AcousticCondition(noise=str(tmp_path / "gone.flac"))
    with pytest.raises(InputError, match=r"gone\.flac"):
        apply(speech, condition)
    with pytest.raises(InputError, match=r"gone\.flac"):
        condition.identity()
