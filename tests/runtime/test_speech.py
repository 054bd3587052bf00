"""What is speech, and what is not, beside the detector that the graph was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeser
from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.speech import MIN_FRAMES, THRESHOLD, SpeechMeter, leveled
from edgeser.runtime.vad import VAD_FRAME, SileroVad

SECONDS = 3.7


@pytest.fixture(scope="module")
def meter() -> SpeechMeter:
    return SpeechMeter()


def noise(kind: str) -> Samples:
    count = round(SECONDS * SAMPLE_RATE)
    random, time_s = np.random.default_rng(0), np.arange(count) / SAMPLE_RATE
    white = random.standard_normal(count)
    spectrum = np.fft.rfft(white)
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(spectrum.size))), count)
    made = {
        "digital silence": np.zeros(count),
        "white at -20 dBFS": 0.1 * white,
        "white at -80 dBFS": 1e-4 * white,
        "a step of 16 bits": random.integers(-1, 2, count) / 32768,
        "pink": 0.1 * pink / pink.std(),
        "hum": 0.3 * np.sin(2 * np.pi * 50 * time_s),
        "whistle": 0.3 * np.sin(2 * np.pi * 1000 * time_s),
        "an offset": np.full(count, 0.3),
    }
    samples: Samples = made[kind].astype(np.float32)
    return samples


KINDS = [
    *("digital silence", "white at -20 dBFS", "white at -80 dBFS", "a step of 16 bits"),
    *("pink", "hum", "whistle", "an offset"),
]


def test_frames_are_what_pysilero_says(meter: SpeechMeter, clips: list[Path]) -> None:
    detector = SileroVad()
    for samples in (*map(load_audio, clips), noise("pink")):
        detector.reset()
        whole = samples[: samples.shape[0] // VAD_FRAME * VAD_FRAME]
        expected = [detector.probability(frame) for frame in whole.reshape(-1, VAD_FRAME)]
        np.testing.assert_allclose(meter.probabilities(whole), expected, rtol=0, atol=0.01)


def test_long_recordings_are_heard_in_blocks(
    meter: SpeechMeter, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each block begins anew, as after a pause."""
    monkeypatch.setattr("edgeser.runtime.speech._BLOCK", 50)
    found = meter.probabilities(speech)
    assert found.shape == (-(-speech.shape[0] // VAD_FRAME),)
    parts = [meter.probabilities(speech[start : start + 50 * VAD_FRAME]) for start in range(0, speech.shape[0], 25600)]
    np.testing.assert_allclose(found, np.concatenate(parts), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_speech_in_noise(meter: SpeechMeter, kind: str) -> None:
    assert meter.share(noise(kind)) == 0.0


@pytest.mark.parametrize("decibels", [0, -20, -40, -60])
def test_a_voice_is_heard_at_any_level(meter: SpeechMeter, clips: list[Path], decibels: float) -> None:
    for samples in map(load_audio, clips):
        expected = meter.share(samples)
        assert 0.3 < expected < 0.7
        quiet = samples * np.float32(10 ** (decibels / 20))
        assert meter.share(quiet) == pytest.approx(expected, abs=0.03)
        assert meter.share(quiet + np.float32(0.2)) == pytest.approx(expected, abs=0.03)  # a microphone's offset


def test_less_than_a_tenth_of_a_second_is_no_speech(meter: SpeechMeter, speech: Samples) -> None:
    """20 ms of the loudest vowel were answered "happy 0.92"."""
    probabilities = meter.probabilities(leveled(speech))
    loudest = int(np.argmax(probabilities)) * VAD_FRAME
    for length in (0, 1, 320, VAD_FRAME, (MIN_FRAMES - 1) * VAD_FRAME):
        assert meter.share(speech[loudest : loudest + length]) == 0.0


def test_share_counts_frames(meter: SpeechMeter, speech: Samples) -> None:
    expected = float((meter.probabilities(leveled(speech)) >= THRESHOLD).mean())
    assert meter.share(speech) == pytest.approx(expected)
    silence = np.zeros(speech.shape[0] // VAD_FRAME * VAD_FRAME, np.float32)
    assert meter.share(np.concatenate([silence, speech])) == pytest.approx(expected / 2, abs=0.03)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3000), st.floats(0, 8, width=32), st.integers(0, 2**32 - 1))
def test_any_samples_give_a_share(meter: SpeechMeter, count: int, scale: float, seed: int) -> None:
    samples = (scale * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)
    assert 0.0 <= meter.share(samples) <= 1.0
    found = meter.probabilities(samples)
    assert found.shape == (-(-count // VAD_FRAME),)
    assert ((found >= 0) & (found <= 1)).all()
    assert np.abs(leveled(samples)).max(initial=0) <= 1.0


def test_the_shipped_graph_is_made_of_the_installed_weights() -> None:
    from edgeser.export_tools.voice_detector import build_graph, installed_weights, read_weights

    onnx = pytest.importorskip("onnx")
    shipped = onnx.load(Path(edgeser.__file__).parent / "pretrained" / "silero-vad.onnx")
    made = onnx.load_from_string(build_graph(read_weights(installed_weights())))
    assert [node.op_type for node in shipped.graph.node] == [node.op_type for node in made.graph.node]
    for ours, theirs in zip(shipped.graph.initializer, made.graph.initializer, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(ours), onnx.numpy_helper.to_array(theirs))
