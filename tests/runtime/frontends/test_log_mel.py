from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends import LogMel, Statistics, restore_frontend
from edgeser.runtime.frontends.log_mel import BINS

WINDOW, HOP, FFT = 400, 160, 512


def kaldi_filter_bank(samples: Samples, bins: int, hop: int = HOP) -> NDArray[np.float64]:
    """Compute Kaldi's log mel energies straight from their definition, slowly, in float64.

    Of each whole window: subtract its mean; pre-emphasise with 0.97, the first sample by itself; Povey window
    (a Hann window to the power 0.85); power spectrum of 512 points without the Nyquist bin; triangles, linear in
    mel (1127 ln(1 + f / 700)), evenly spaced over 20 to 8000 Hz; logarithm, not below float32's epsilon.
    """
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))) ** 0.85
    mel = 1127 * np.log1p(np.arange(FFT // 2) * SAMPLE_RATE / FFT / 700)
    low, high = 1127 * np.log1p(np.array([20.0, 8000.0]) / 700)
    edges = np.linspace(low, high, bins + 2)
    triangles = np.zeros((bins, FFT // 2))
    for b, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for i, m in enumerate(mel):
            if left < m < right:
                triangles[b, i] = (m - left) / (centre - left) if m <= centre else (right - m) / (right - centre)
    rows = []
    for start in range(0, samples.shape[0] - WINDOW + 1, hop):
        frame = samples[start : start + WINDOW].astype(np.float64)
        frame = frame - frame.mean()
        frame = np.append(frame[0] - 0.97 * frame[0], frame[1:] - 0.97 * frame[:-1])
        power = np.abs(np.fft.rfft(frame * window, FFT)[:-1]) ** 2
        rows.append(np.log(np.maximum(triangles @ power, np.finfo(np.float32).eps)))
    return np.array(rows)


@pytest.fixture(scope="module")
def plain() -> LogMel:
    return LogMel(80)


@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("scale", [1.0, 32768.0])
def test_energies_are_kaldis(speech: Samples, bins: int, scale: float) -> None:
    """On the int16 scale nothing but digital silence lies on the floor: there nearly every bin is compared."""
    got, want = LogMel(bins).extract(speech * np.float32(scale)), kaldi_filter_bank(speech * scale, bins)
    assert got.shape == want.shape == (1 + (speech.shape[0] - WINDOW) // HOP, bins)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)  # rounded to float32


def kaldi_native_fbank_of(samples: Samples, bins: int, hop_ms: int, rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """The library that bundles were made with until EdgeSER computed its own."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.frame_shift_ms = float(hop_ms)
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = bins
    fbank = kaldi_native_fbank.OnlineFbank(options)
    fbank.accept_waveform(rate, samples)
    fbank.input_finished()
    return np.array([fbank.get_frame(i) for i in range(fbank.num_frames_ready)], dtype=np.float32)


LIBRARY = tuple(int(part) for part in version("kaldi-native-fbank").split(".")[:2])


@pytest.mark.parametrize(("bins", "hop_ms"), [(40, 10), (80, 10), (128, 12)])
def test_bundles_made_with_kaldi_native_fbank_hear_the_same(clips: list[Path], bins: int, hop_ms: int) -> None:
    """The library computes in float32, which loses digits in bins far below their window's loudest."""
    if bins == 128 and LIBRARY >= (1, 23):  # 1.23.0 refuses a bank with a bin that covers no line of the spectrum
        with pytest.raises(ValueError, match="num_mel_bins too large"):
            kaldi_native_fbank_of(load_audio(clips[0]), bins, hop_ms)
        return
    for clip in clips:
        heard = load_audio(clip)
        got, was = LogMel(bins, hop_ms=hop_ms).extract(heard), kaldi_native_fbank_of(heard, bins, hop_ms)
        np.testing.assert_allclose(got, was, rtol=0, atol=5e-4)
        assert np.abs(got - was).mean() < 1e-5


def test_of_128_bins_the_fourth_is_always_on_the_floor(speech: Samples) -> None:
    energies = LogMel(128).extract(speech * np.float32(32768))
    assert np.flatnonzero((energies == np.log(np.finfo(np.float32).eps)).all(axis=0)).tolist() == [3]


def test_kaldi_native_fbank_on_the_rate_it_is_told(speech: Samples) -> None:
    """Why nothing rests on it: 1.22.5 takes samples of any rate for 16 kHz ones, 1.23.0 raises."""
    if LIBRARY >= (1, 23):
        with pytest.raises(ValueError, match="sampling_rate does not match"):
            kaldi_native_fbank_of(speech, 80, 10, rate=8000)
    else:
        told, right = (kaldi_native_fbank_of(speech, 80, 10, rate) for rate in (8000, SAMPLE_RATE))
        np.testing.assert_array_equal(told, right)


@pytest.mark.parametrize(("bins", "hop_ms"), [(128, 12), (40, 25), (80, 1)])
def test_other_hops_are_kaldis_too(speech: Samples, bins: int, hop_ms: int) -> None:
    """128 bins every 12 ms are the multilevel transformer's."""
    frontend, hop = LogMel(bins, hop_ms=hop_ms), 16 * hop_ms
    heard = speech[: SAMPLE_RATE // 2 * min(hop_ms, 6)]
    got, want = frontend.extract(heard * np.float32(32768)), kaldi_filter_bank(heard * 32768.0, bins, hop)
    assert got.shape == want.shape == (1 + (heard.shape[0] - WINDOW) // hop, bins)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)
    assert frontend.hop_s == hop_ms / 1000


@pytest.mark.parametrize(("bins", "length", "hop_ms", "heard_s"), [(128, 400, 12, 4.813), (40, 750, 10, 7.515)])
def test_length_and_hop_make_the_window(speech: Samples, bins: int, length: int, hop_ms: int, heard_s: float) -> None:
    frontend = LogMel(bins, length, hop_ms=hop_ms)
    enough = frontend.samples_for(length)
    assert enough / SAMPLE_RATE == pytest.approx(heard_s)
    long = np.resize(speech, 2 * enough)
    for samples, valid in ((enough - 1, length - 1), (enough, length), (2 * enough, length)):
        features = frontend(long[:samples])
        assert features.values.shape == (length, bins)
        assert features.valid == valid
        assert features.total == 1 + (samples - WINDOW) // (16 * hop_ms)
    np.testing.assert_array_equal(frontend(long).values, frontend(long[:enough]).values)


def test_the_hop_is_kept(speech: Samples) -> None:
    original = LogMel(128, 50, hop_ms=12)
    spec = {"kind": "log-mel", **original.options()}
    assert spec == {"kind": "log-mel", "bins": 128, "hop_ms": 12}
    again = original.with_statistics(Statistics.none(128))
    restored = restore_frontend(50, spec, original.files().__getitem__)
    for other in (again, restored):
        assert isinstance(other, LogMel)
        assert (other.hop_ms, other.hop_s) == (12, 0.012)
        np.testing.assert_array_equal(other(speech).values, original(speech).values)
    old = restore_frontend(50, {"kind": "log-mel", "bins": 128}, original.files().__getitem__)
    assert isinstance(old, LogMel)
    assert old.hop_ms == 10  # bundles from before it was kept


@pytest.mark.parametrize("hop_ms", [0, -10, 26])
def test_hops_that_leave_gaps_are_refused(hop_ms: int) -> None:
    with pytest.raises(InputError, match=f"log-mel: got a hop of {hop_ms} ms, expected 1 to 25"):
        LogMel(40, hop_ms=hop_ms)


def test_silence_lies_on_the_floor(plain: LogMel) -> None:
    energies = plain.extract(np.zeros(WINDOW, np.float32))
    np.testing.assert_allclose(energies, np.log(np.finfo(np.float32).eps), rtol=1e-6)


@pytest.mark.parametrize("hz", [200, 1000, 4000])
def test_a_tone_peaks_in_its_bin(plain: LogMel, hz: int) -> None:
    tone = (0.5 * np.sin(2 * np.pi * hz * np.arange(1600) / SAMPLE_RATE)).astype(np.float32)
    centres = np.linspace(*(1127 * np.log1p(np.array([20.0, 8000.0]) / 700)), 82)[1:-1]
    peak = plain.extract(tone).mean(axis=0).argmax()
    assert abs(peak - np.abs(centres - 1127 * np.log1p(hz / 700)).argmin()) <= 1


@pytest.mark.parametrize(
    ("samples", "rows"),
    [(400, 1), (401, 1), (559, 1), (560, 2), (720, 3), (400 + 459 * 160, 460), (400 + 460 * 160, 461)],
)
def test_rows_of_exact_multiples_and_their_neighbours(plain: LogMel, speech: Samples, samples: int, rows: int) -> None:
    whole = np.resize(speech, samples)
    assert plain.rows(whole).shape == (rows, 80)
    features = plain(whole)
    assert features.values.shape == (460, 80)
    assert features.values.dtype == np.float32
    assert features.valid == min(rows, 460)
    np.testing.assert_array_equal(features.values[: features.valid], plain.rows(whole)[:460])
    assert not features.values[features.valid :].any()


@pytest.mark.parametrize("samples", [0, 1, 160, 399])
def test_shorter_than_a_window_is_refused(plain: LogMel, samples: int) -> None:
    message = rf"got {samples} samples \({samples / 16:.1f} ms\), expected at least 400 \(25 ms\)"
    for call in (plain, plain.rows, plain.extract, plain.check):
        with pytest.raises(InputError, match=message):
            call(np.zeros(samples, np.float32))


@settings(max_examples=30, deadline=None)
@given(st.integers(400, 30_000), st.integers(1, 200))
def test_cropping_keeps_a_prefix(speech: Samples, samples: int, length: int) -> None:
    """What the model hears does not depend on what comes after it, nor on how much room there is."""
    short = LogMel(40, length)
    features, rows = short(speech[:samples]), LogMel(40).rows(speech)
    np.testing.assert_array_equal(features.values[: features.valid], rows[: features.valid])
    assert features.valid == min(length, 1 + (samples - WINDOW) // HOP)


def test_ten_minutes(plain: LogMel, speech: Samples) -> None:
    long = np.resize(speech, 600 * SAMPLE_RATE)
    features = plain(long)
    np.testing.assert_array_equal(features.values, plain(long[: 5 * SAMPLE_RATE]).values)
    assert features.valid == 460
    assert features.total == 1 + (long.shape[0] - WINDOW) // HOP  # as its docstring says: before it was cropped


def test_clipped_speech_stays_finite(plain: LogMel, speech: Samples) -> None:
    assert np.isfinite(plain(np.clip(speech * 100, -1, 1)).values).all()
    assert np.isfinite(plain(speech * 16 / np.abs(speech).max()).values).all()


def test_normalisation(plain: LogMel, speech: Samples) -> None:
    energies = plain.extract(speech)
    mean, std = energies.mean(axis=0), energies.std(axis=0)
    rows = LogMel(80, 460, Statistics(mean, std)).rows(speech)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-4)
    np.testing.assert_array_equal(rows, ((energies - mean) / std).astype(np.float32))


def test_other_statistics_leave_the_first_frontend_as_it_was(plain: LogMel, speech: Samples) -> None:
    before = plain.rows(speech)
    other = plain.with_statistics(Statistics(np.full(80, -9, np.float32), np.full(80, 2, np.float32)))
    assert (other.dim, other.length) == (plain.dim, plain.length)
    np.testing.assert_array_equal(other.extract(speech), plain.extract(speech))
    np.testing.assert_array_equal(other.rows(speech), (before + 9) / 2)
    np.testing.assert_array_equal(plain.rows(speech), before)


def test_the_same_samples_give_the_same_rows(speech: Samples) -> None:
    first = LogMel(80)
    a = first.rows(speech)
    first.rows(speech[::-1].copy())
    np.testing.assert_array_equal(first.rows(speech), a)
    np.testing.assert_array_equal(LogMel(80).rows(np.tile(speech, 2)[: speech.shape[0]]), a)


@pytest.mark.parametrize("bins", BINS)
def test_restored_gives_the_same_bits(speech: Samples, bins: int) -> None:
    generator = np.random.default_rng(bins)
    mean, std = generator.normal(-9, 2, bins), generator.uniform(1, 4, bins)
    original = LogMel(bins, 123, Statistics(mean.astype(np.float32), std.astype(np.float32)))
    spec = {"kind": "log-mel", **original.options()}
    restored = restore_frontend(123, spec, original.files().__getitem__)
    assert (restored.length, restored.dim, restored.kind) == (123, bins, "log-mel")
    assert restored.files() == original.files()
    assert isinstance(restored, LogMel)
    np.testing.assert_array_equal(restored(speech).values, original(speech).values)


@pytest.mark.parametrize("bins", [0, 39, 64, 81, -40])
def test_other_numbers_of_bins_are_refused(bins: int) -> None:
    with pytest.raises(InputError, match=f"log-mel: got {bins} bins, expected one of 40, 80, 128"):
        LogMel(bins)


def test_statistics_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match=r"mean \(40,\) and std \(80,\), expected \(80,\)"):
        LogMel(80, statistics=Statistics(np.zeros(40, np.float32), np.ones(80, np.float32)))


@pytest.mark.parametrize(("mean", "std"), [(np.nan, 1), (np.inf, 1), (0, 0), (0, -1), (0, np.nan), (0, np.inf)])
def test_statistics_that_cannot_be_are_refused(mean: float, std: float) -> None:
    with pytest.raises(InputError, match="mean must be finite and std finite and above 0 in every column"):
        LogMel(40, statistics=Statistics(np.full(40, mean, np.float32), np.full(40, std, np.float32)))


STATISTICS = {"mean": np.zeros(40, np.float32), "std": np.ones(40, np.float32)}


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        ({"bins": 40}, b"", "statistics.safetensors is not usable"),
        ({"bins": 40}, save(STATISTICS)[:-1], "statistics.safetensors is not usable"),
        ({"bins": 40}, save({"mean": np.zeros(40, np.float32)}), "statistics.safetensors is not usable: 'std'"),
        ({"bins": 80}, save(STATISTICS), r"mean \(40,\) and std \(40,\), expected \(80,\)"),
        ({"bins": 41}, save(STATISTICS), "got 41 bins"),
        ({}, save(STATISTICS), "frontend option 'bins': got None, expected int"),
        ({"bins": "40"}, save(STATISTICS), "frontend option 'bins': got '40', expected int"),
        ({"bins": True}, save(STATISTICS), "frontend option 'bins': got True, expected int"),
        ({"bins": 40, "hop_ms": 12.5}, save(STATISTICS), "frontend option 'hop_ms': got 12.5, expected int"),
        ({"bins": 40, "hop_ms": 0}, save(STATISTICS), "got a hop of 0 ms"),
    ],
)
def test_restoring_from_what_is_not_usable(options: dict[str, object], content: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        restore_frontend(460, {"kind": "log-mel", **options}, lambda name: content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["mfcc", None, 3])
def test_unknown_kind(kind: object) -> None:
    with pytest.raises(BundleError, match=f"got kind {kind!r}, expected one of log-mel, word-vectors, onnx-encoder"):
        restore_frontend(460, {"kind": kind}, lambda name: b"")
