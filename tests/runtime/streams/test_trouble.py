"""What a stream does when a stage of it is slow, fails or hangs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeser.runtime.asr import Asr, AsrSession, BufferedSession, RecognizedWord, open_asr
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import AsrError, EngineError, InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.segmenting import Ending
from edgeser.runtime.sources import Source
from edgeser.runtime.streams import Event, Stream, StreamOptions, Words
from edgeser.runtime.vad import VoiceDetector

Listen = Callable[..., list[Event]]


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


def test_a_model_that_fails_once_loses_one_utterance(events: Listen, mute: Runtime, conversation: Samples) -> None:
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


def test_words_come_with_their_times(events: Listen, mute: Runtime, conversation: Samples) -> None:
    with hearing(mute, Scripted()):
        found = events(mute, conversation, 1600)
    assert {(event.words, event.result.transcript) for event in found} == {(Words.HEARD, "hello")}
    for event in found:  # the recogniser heard exactly the utterance
        assert event.result.words[0].end_s == pytest.approx(event.end_s - event.start_s)


def test_without_words_the_voice_decides(
    events: Listen, mute: Runtime, conversation: Samples, reference: list[Event]
) -> None:
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
