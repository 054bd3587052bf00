"""Streams on real speech: the Events, however the audio is cut."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.segmenting import Ending, SegmentOptions
from edgeser.runtime.sources import FileSource, PcmSource
from edgeser.runtime.streams import Event, MetricsServer, StreamOptions, Words, prometheus_text
from edgeser.runtime.vad import FRAME_S, VAD_FRAME, SileroVad

Listen = Callable[..., list[Event]]


def essence(event: Event) -> tuple[Any, ...]:
    """All of an Event but the time it took."""
    timeless = dataclasses.replace(event.result, timings=None)  # type: ignore[arg-type]
    return event.utterance, event.partial, event.start_s, event.end_s, event.ending, event.words, timeless


def test_each_clip_is_an_utterance(reference: list[Event], conversation: Samples) -> None:
    assert [event.utterance for event in reference] == [0, 1, 2, 3]
    assert {event.ending for event in reference} == {Ending.SILENCE}
    ends = [event.end_s for event in reference]
    assert all(event.start_s >= end for event, end in zip(reference[1:], ends, strict=False))
    assert all(event.words is Words.OFF and event.dropped == 0 and event.lost_s == 0 for event in reference)


def test_a_stream_answers_as_one_shot_does(mute: Runtime, conversation: Samples, reference: list[Event]) -> None:
    for event in reference:
        cut = conversation[round(event.start_s * SAMPLE_RATE) : round(event.end_s * SAMPLE_RATE)]
        once = mute.recognize(cut, SAMPLE_RATE)
        # The stream's detector had heard what came before.
        assert once.speech_share == pytest.approx(event.result.speech_share, abs=0.08)
        expected = dataclasses.replace(once, timings=event.result.timings, speech_share=event.result.speech_share)
        assert event.result == expected


def test_a_stream_says_what_share_is_speech(
    events: Listen, mute: Runtime, conversation: Samples, reference: list[Event]
) -> None:
    """By the frames that its own detector took for speech: nothing is detected twice."""
    detector, found = SileroVad(), []
    for frame in conversation[: conversation.shape[0] // VAD_FRAME * VAD_FRAME].reshape(-1, VAD_FRAME):
        found.append(detector.probability(frame))
    first = reference[0]
    frames = found[round(first.start_s / FRAME_S) : round(first.end_s / FRAME_S)]
    low, high = (np.mean(np.array(frames) >= limit) for limit in (0.5, 0.35))
    assert low <= first.result.speech_share <= high
    assert all(event.result.has_speech and event.result.timings.vad_ms == 0.0 for event in reference)
    partials = [e for e in events(mute, conversation[: 5 * SAMPLE_RATE], 800, partial=True) if e.partial]
    assert all(0.0 < event.result.speech_share <= 1.0 for event in partials)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 10 * SAMPLE_RATE), max_size=30), rest=st.sampled_from([160, 4097, 160_000]))
def test_any_chunking_gives_the_same_events(
    mute: Runtime, conversation: Samples, reference: list[Event], cuts: list[int], rest: int
) -> None:
    with mute.open_stream() as stream:
        begin = 0
        while begin < conversation.shape[0]:
            count = cuts.pop() if cuts else rest
            stream.push(conversation[begin : begin + count], wait=True)
            begin += count
        stream.end()
        assert [essence(event) for event in stream] == [essence(event) for event in reference]


def test_single_samples_give_the_same_events(
    events: Listen, mute: Runtime, conversation: Samples, reference: list[Event]
) -> None:
    first = conversation[: 5 * SAMPLE_RATE]
    (event,) = events(mute, first, 1)
    assert essence(event) == essence(reference[0])


def test_partial_estimates_come_while_someone_speaks(events: Listen, mute: Runtime, conversation: Samples) -> None:
    found = events(mute, conversation[: 5 * SAMPLE_RATE], 800, partial=True)
    assert [event.partial for event in found] == [True] * (len(found) - 1) + [False]
    assert len(found) >= 4
    ends = [event.end_s for event in found[:-1]]
    np.testing.assert_allclose(np.diff(ends), 0.5, atol=VAD_FRAME / SAMPLE_RATE)
    assert all(event.ending is None for event in found[:-1])


def test_a_long_monologue_is_split(events: Listen, mute: Runtime, speech: Samples) -> None:
    voiced = speech[int(1.0 * SAMPLE_RATE) : int(2.6 * SAMPLE_RATE)]
    options = SegmentOptions(max_utterance_s=4.0, split_search_s=1.0)
    found = events(mute, np.tile(voiced, 8), 1600, segment=options)
    assert [event.ending for event in found[:-1]] == [Ending.SPLIT] * (len(found) - 1)
    assert all(a.end_s == b.start_s for a, b in itertools.pairwise(found))
    assert found[-1].end_s == pytest.approx(voiced.shape[0] * 8 / SAMPLE_RATE, abs=0.5)


def test_a_file_is_listened_to(mute: Runtime, conversation: Samples, reference: list[Event], tmp_path: Path) -> None:
    path = tmp_path / "talk.flac"
    soundfile.write(path, conversation, SAMPLE_RATE, subtype="PCM_24")
    assert [e.label for e in mute.listen(FileSource(path))] == [e.label for e in reference]


def test_pcm_from_a_pipe_is_listened_to(
    mute: Runtime, conversation: Samples, reference: list[Event], tmp_path: Path
) -> None:
    path = tmp_path / "talk.pcm"
    (np.clip(conversation, -1, 1) * 32767).round().astype("<i2").tofile(path)
    with path.open("rb") as pipe:
        assert [e.label for e in mute.listen(PcmSource(pipe))] == [e.label for e in reference]


def test_other_rates_are_converted(mute: Runtime, conversation: Samples, reference: list[Event]) -> None:
    import soxr

    wide = soxr.resample(np.stack([conversation] * 2, axis=1), SAMPLE_RATE, 44_100)
    with mute.open_stream() as stream:
        for begin in range(0, wide.shape[0], 997):
            stream.push(wide[begin : begin + 997], 44_100, wait=True)
        stream.end()
        found = list(stream)
    assert len(found) == 4
    for event, expected in zip(found, reference, strict=True):
        assert event.start_s == pytest.approx(expected.start_s, abs=0.1)


def test_callbacks_get_events_and_flush_waits_for_them(mute: Runtime, conversation: Samples) -> None:
    got: list[Event] = []
    with mute.open_stream(got.append) as stream:
        stream.push(conversation[: 3 * SAMPLE_RATE], wait=True)
        assert stream.flush()
        assert [event.ending for event in got] == [Ending.FLUSH]
        stream.push(conversation[3 * SAMPLE_RATE :], wait=True)
        assert stream.flush()
        assert len(got) == stream.stats.events


def test_a_callback_that_raises_is_counted(
    mute: Runtime, conversation: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    def react(event: Event) -> None:
        raise RuntimeError("user code")

    with mute.open_stream(react) as stream:
        stream.push(conversation, wait=True)
        assert stream.flush()
        assert (stream.stats.events, stream.stats.callback_errors) == (4, 4)
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        "on_event raised; the stream goes on, and later exceptions are only counted"
    ]


def test_events_come_to_asyncio(mute: Runtime, conversation: Samples, reference: list[Event]) -> None:
    async def gather() -> list[str]:
        with mute.open_stream() as stream:
            stream.push(conversation, wait=True)
            stream.end()
            return [event.label async for event in stream]

    assert asyncio.run(gather()) == [event.label for event in reference]


def test_events_that_nobody_fetches_are_missed_oldest_first(mute: Runtime, conversation: Samples) -> None:
    with mute.open_stream(options=StreamOptions(max_events=2)) as stream:
        for begin in range(0, conversation.shape[0], 1600):
            stream.push(conversation[begin : begin + 1600])  # live: 18 s fit into the buffer of 30 s
        assert stream.flush()
        assert stream.stats.missed_events == 2
        assert [event.utterance for event in (stream.next_event(1), stream.next_event(1)) if event] == [2, 3]


def test_audio_without_room_is_lost_and_counted(mute: Runtime, conversation: Samples) -> None:
    with mute.open_stream(
        options=StreamOptions(buffer_s=2.0),
    ) as stream:
        stream.push(np.tile(conversation, 3))
        assert stream.flush()
        assert stream.stats.lost_s > 40
        assert stream.stats.audio_s == pytest.approx(3 * conversation.shape[0] / SAMPLE_RATE)


def test_pushing_to_a_closed_stream_is_refused(mute: Runtime, speech: Samples) -> None:
    stream = mute.open_stream()
    stream.close()
    with pytest.raises(InputError, match="stream: is closed"):
        stream.push(speech)


def test_a_bad_chunk_is_refused_and_the_stream_goes_on(mute: Runtime, conversation: Samples) -> None:
    with mute.open_stream() as stream:
        with pytest.raises(InputError, match="NaN"):
            stream.push(np.full(100, np.nan, np.float32))
        stream.push(np.zeros(0, np.int16))
        stream.push(conversation, wait=True)
        stream.end()
        assert len(list(stream)) == 4


@pytest.mark.parametrize("changed", [{"buffer_s": 0.0}, {"max_events": 0}, {"asr_deadline_s": -1.0}, {"stall_s": 0.0}])
def test_options_that_make_no_sense_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(changed))}: got"):
        StreamOptions(**changed)


def test_counters_for_prometheus(mute: Runtime, conversation: Samples) -> None:
    with mute.open_stream() as stream:
        stream.push(conversation, wait=True)
        assert stream.flush()
        stats = stream.stats
    text = prometheus_text(stats)
    assert "edgeser_events_total 4\n" in text
    assert 'edgeser_stage_seconds_count{stage="latency"} 4\n' in text
    assert 'edgeser_stage_seconds_bucket{stage="vad",le="+Inf"} ' in text
    assert stats.stages["vad"].count == -(-conversation.shape[0] // VAD_FRAME)
    assert 0 < stats.stages["latency"].quantile_ms(0.5) <= stats.stages["latency"].max_ms


def test_prometheus_can_fetch_the_counters(mute: Runtime) -> None:
    with mute.open_stream() as stream:
        server = MetricsServer(lambda: stream.stats, 0)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert "edgeser_audio_seconds_total 0.0\n" in answer.read().decode()
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=5)
            with pytest.raises(InputError, match="choose another port"):
                MetricsServer(lambda: stream.stats, server.port)
        finally:
            server.close()


def test_activity_follows_the_voice(mute: Runtime, conversation: Samples) -> None:
    with mute.open_stream() as stream:
        assert stream.activity.level_dbfs == -100
        stream.push(conversation[: 2 * SAMPLE_RATE], wait=True)
        while stream.stats.stages["vad"].count < 2 * SAMPLE_RATE // VAD_FRAME:
            time.sleep(0.01)
        time.sleep(0.05)
        during = stream.activity
        stream.push(np.zeros(SAMPLE_RATE, np.float32), wait=True)
        assert stream.flush()
        after = stream.activity
    assert (during.speaking, after.speaking) == (True, False)
    assert during.voice > 0.5 > after.voice
    assert -60 < during.level_dbfs < 0
    assert after.level_dbfs <= -99
