from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeser.runtime.asr import Asr, AsrSession, BufferedSession, RecognizedWord, open_asr
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import AsrError, EngineError, InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.segmenting import Ending, SegmentOptions
from edgeser.runtime.sources import FileSource, PcmSource, Source
from edgeser.runtime.streams import Event, MetricsServer, Stream, StreamOptions, Words, prometheus_text
from edgeser.runtime.vad import FRAME_S, VAD_FRAME, SileroVad, VoiceDetector


def events(runtime: Runtime, audio: Samples, chunk: int, **options: Any) -> list[Event]:
    """Push audio in equal chunks and return all Events."""
    with runtime.open_stream(options=StreamOptions(**options)) as stream:
        for begin in range(0, audio.shape[0], chunk):
            stream.push(audio[begin : begin + chunk], wait=True)
        stream.end()
        return list(stream)


def essence(event: Event) -> tuple[Any, ...]:
    """All of an Event but the time it took."""
    timeless = dataclasses.replace(event.result, timings=None)  # type: ignore[arg-type]
    return event.utterance, event.partial, event.start_s, event.end_s, event.ending, event.words, timeless


@pytest.fixture(scope="module")
def reference(mute: Runtime, conversation: Samples) -> list[Event]:
    return events(mute, conversation, 1600)


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


def test_a_stream_says_what_share_is_speech(mute: Runtime, conversation: Samples, reference: list[Event]) -> None:
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


def test_single_samples_give_the_same_events(mute: Runtime, conversation: Samples, reference: list[Event]) -> None:
    first = conversation[: 5 * SAMPLE_RATE]
    (event,) = events(mute, first, 1)
    assert essence(event) == essence(reference[0])


def test_partial_estimates_come_while_someone_speaks(mute: Runtime, conversation: Samples) -> None:
    found = events(mute, conversation[: 5 * SAMPLE_RATE], 800, partial=True)
    assert [event.partial for event in found] == [True] * (len(found) - 1) + [False]
    assert len(found) >= 4
    ends = [event.end_s for event in found[:-1]]
    np.testing.assert_allclose(np.diff(ends), 0.5, atol=VAD_FRAME / SAMPLE_RATE)
    assert all(event.ending is None for event in found[:-1])


def test_a_long_monologue_is_split(mute: Runtime, speech: Samples) -> None:
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


@contextmanager
def changed_engine(runtime: Runtime, run: Callable[..., Any]) -> Iterator[None]:
    original = runtime.engine.run
    runtime.engine.run = run  # type: ignore[method-assign]
    try:
        yield
    finally:
        runtime.engine.run = original  # type: ignore[method-assign]


def test_a_slow_model_drops_the_oldest_utterance(mute: Runtime, conversation: Samples) -> None:
    original, go = mute.engine.run, threading.Event()

    def slow(feeds: Mapping[str, NDArray[Any]]) -> Any:
        go.wait(20)
        return original(feeds)

    with changed_engine(mute, slow), mute.open_stream(options=StreamOptions(max_utterances=1)) as stream:
        stream.push(conversation)
        while stream.stats.utterances < 4:
            time.sleep(0.01)
        go.set()
        assert stream.flush()
        found = [stream.next_event(1), stream.next_event(1)]
        assert [event.utterance for event in found if event] == [0, 3]
        assert stream.stats.dropped == 2
        assert found[1] is not None
        assert found[1].dropped == 2


def test_a_model_that_fails_once_loses_one_utterance(mute: Runtime, conversation: Samples) -> None:
    original, calls = mute.engine.run, []

    def run(feeds: Mapping[str, NDArray[Any]]) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise EngineError("no memory")
        return original(feeds)

    with changed_engine(mute, run):
        assert [event.utterance for event in events(mute, conversation, 1600)] == [0, 2, 3]


def test_a_model_that_always_fails_ends_the_stream_with_one_error(mute: Runtime, conversation: Samples) -> None:
    def run(feeds: Mapping[str, NDArray[Any]]) -> Any:
        raise EngineError("no memory")

    with changed_engine(mute, run), mute.open_stream() as stream:
        stream.push(conversation, wait=True)
        stream.end()
        with pytest.raises(EngineError, match="3 utterances in a row got no answer: no memory"):
            list(stream)
        with pytest.raises(EngineError, match="in a row"):
            stream.push(conversation)


def test_a_model_that_hangs_ends_the_stream(mute: Runtime, conversation: Samples) -> None:
    go = threading.Event()
    with (
        changed_engine(mute, lambda feeds: go.wait(20)),
        mute.open_stream(options=StreamOptions(stall_s=0.3)) as stream,
    ):
        stream.push(conversation, wait=True)
        stream.end()
        with pytest.raises(EngineError, match=r"the model has not returned for 0\.3 s"):
            list(stream)
        started = time.monotonic()
        stream.close()
        assert time.monotonic() - started < 1.0
        go.set()


class Scripted(Asr):
    """A recogniser that does to its utterances what it is told to."""

    name = "scripted"

    def __init__(self, *actions: Callable[[], None]) -> None:
        self._actions = list(actions)

    def start(self) -> AsrSession:
        return BufferedSession(self._decode)

    def _decode(self, samples: Samples) -> tuple[RecognizedWord, ...]:
        if self._actions:
            self._actions.pop(0)()
        return (RecognizedWord("hello", 0.0, samples.shape[0] / SAMPLE_RATE, 0.9),)


@contextmanager
def hearing(runtime: Runtime, asr: Asr) -> Iterator[None]:
    original, runtime.asr = runtime.asr, asr
    try:
        yield
    finally:
        runtime.asr = original


def fail() -> None:
    raise AsrError("out of words")


def test_words_come_with_their_times(mute: Runtime, conversation: Samples) -> None:
    with hearing(mute, Scripted()):
        found = events(mute, conversation, 1600)
    assert {(event.words, event.result.transcript) for event in found} == {(Words.HEARD, "hello")}
    for event in found:  # the recogniser heard exactly the utterance
        assert event.result.words[0].end_s == pytest.approx(event.end_s - event.start_s)


def test_without_words_the_voice_decides(mute: Runtime, conversation: Samples, reference: list[Event]) -> None:
    with hearing(mute, Scripted(fail, lambda: None, fail)):
        found = events(mute, conversation, 1600)
    assert [event.words for event in found] == [Words.FAILED, Words.HEARD, Words.FAILED, Words.HEARD]
    assert found[0].result.probabilities == reference[0].result.probabilities
    assert found[2].result.probabilities == reference[2].result.probabilities


def test_a_late_recogniser_is_not_waited_for(mute: Runtime, conversation: Samples) -> None:
    go = threading.Event()
    options = StreamOptions(asr_deadline_s=0.2)
    with hearing(mute, Scripted(lambda: go.wait(20) and None)), mute.open_stream(options=options) as stream:
        stream.push(conversation[: 5 * SAMPLE_RATE])
        late = stream.next_event(10)
        go.set()
        stream.push(conversation[5 * SAMPLE_RATE :])
        assert stream.flush()
        assert stream.stats.asr_late >= 1
    assert late is not None
    assert (late.words, late.result.transcript) == (Words.LATE, "")


def test_a_recogniser_that_hangs_is_done_without_until_it_returns(mute: Runtime, conversation: Samples) -> None:
    go = threading.Event()
    options = StreamOptions(stall_s=2.0)
    with hearing(mute, Scripted(lambda: go.wait(30) and None)), mute.open_stream(options=options) as stream:
        stream.push(conversation, wait=True)  # a recording: the deadline does not apply, the watch does
        assert stream.flush()
        assert [stream.next_event(1).words for _ in range(4)] == [Words.LATE] * 4  # type: ignore[union-attr]
        assert stream.stats.stalls == 1
        go.set()
        time.sleep(0.5)
        stream.push(conversation, wait=True)
        assert stream.flush()
        assert [stream.next_event(1).words for _ in range(4)] == [Words.HEARD] * 4  # type: ignore[union-attr]


def test_a_recogniser_that_crashes_costs_one_utterance_its_words(
    mute: Runtime, conversation: Samples, reference: list[Event]
) -> None:
    first = conversation[: round(reference[0].end_s * SAMPLE_RATE) + SAMPLE_RATE]
    with open_asr("pocketsphinx", isolate=True) as asr, hearing(mute, asr), mute.open_stream() as stream:
        stream.push(first[: 2 * SAMPLE_RATE], wait=True)
        time.sleep(0.5)
        (process,) = children_running("isolated_child")
        os.kill(process, signal.SIGKILL)
        stream.push(first[2 * SAMPLE_RATE :], wait=True)
        assert stream.flush()
        failed = stream.next_event(1)
        stream.push(conversation[first.shape[0] :], wait=True)
        assert stream.flush()
        heard = [stream.next_event(1) for _ in range(3)]
        assert stream.stats.asr_failed == 1
    assert failed is not None
    assert (failed.words, failed.result.transcript) == (Words.FAILED, "")
    assert failed.result.probabilities == reference[0].result.probabilities
    assert [event and event.words for event in heard] == [Words.HEARD] * 3
    assert heard[2] is not None
    assert "door" in heard[2].result.transcript


def children_running(module: str) -> list[int]:
    """Return this process's children that run a module."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            mine = parent == os.getpid() and module in (place / "cmdline").read_text()
        except OSError:  # ended meanwhile
            continue
        found += [int(place.name)] if mine else []
    return found


class Interrupted(Source):
    """A device that goes away in the middle of an utterance and comes back."""

    name = "interrupted"
    live = False

    def __init__(self, audio: Samples) -> None:
        self._chunks = list(np.array_split(audio, audio.shape[0] // 1600))

    def open(self) -> None:
        pass

    def read(self, timeout_s: float) -> Samples | None:
        if len(self._chunks) == 0:
            return None
        if len(self._chunks) == 170 and self.interruptions == 0:
            self.interruptions = 1
            return np.zeros(0, np.float32)
        return self._chunks.pop(0)

    def close(self) -> None:
        pass


def test_a_lost_device_ends_the_utterance_and_the_stream_goes_on(mute: Runtime, conversation: Samples) -> None:
    found = list(mute.listen(Interrupted(conversation)))
    assert found[0].ending is Ending.GAP
    assert len(found) >= 4


class Broken(Interrupted):
    def read(self, timeout_s: float) -> Samples | None:
        raise InputError("device: gone")


def test_a_source_that_fails_ends_the_stream_with_its_error(mute: Runtime, conversation: Samples) -> None:
    with pytest.raises(InputError, match="device: gone"):
        list(mute.listen(Broken(conversation)))


class Hanging(VoiceDetector):
    name = "hanging"

    def probability(self, frame: Samples) -> float:
        time.sleep(2)
        return 0.0

    def reset(self) -> None:
        pass


def test_close_takes_less_than_a_second_even_when_a_stage_hangs(mute: Runtime, conversation: Samples) -> None:
    stream = Stream(mute, StreamOptions(), vad=Hanging())
    stream.push(conversation)
    time.sleep(0.2)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 1.0


def test_all_threads_are_gone_after_close(mute: Runtime, conversation: Samples) -> None:
    before = set(threading.enumerate())
    with hearing(mute, Scripted()), mute.open_stream(lambda event: None, partial=True) as stream:
        stream.push(conversation)
        started = set(threading.enumerate()) - before
        assert len(started) == 5
    assert not any(thread.is_alive() for thread in started)


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
