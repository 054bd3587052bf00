"""However a stage of a stream ends before its time, `error` says so; and what `on_event` may do."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeser.runtime.asr import Asr, AsrSession, BufferedSession, RecognizedWord
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import EngineError, InputError, SourceError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.sources import Source
from edgeser.runtime.streams import Event, IsolatedStream, Stream, StreamOptions, Words
from edgeser.runtime.vad import VoiceDetector


class Detector(VoiceDetector):
    """Hears speech everywhere, until it does what it is told to."""

    name = "told"

    def __init__(self, act: Callable[[], float], frames: int = 20) -> None:
        self._act = act
        self._left = frames

    def probability(self, frame: Samples) -> float:
        self._left -= 1
        return 0.9 if self._left > 0 else self._act()

    def reset(self) -> None:
        pass


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*_: object) -> Any:
        raise error

    return act


def ended_with(stream: Stream, what: type[Exception], said: str) -> None:
    """Check that a stream has ended with an error, for who fetches, who pushes and who flushes."""
    with pytest.raises(what, match=said):
        list(stream)
    for use in (lambda: stream.push(np.zeros(100, np.float32)), stream.gap, stream.flush, lambda: stream.next_event(1)):
        with pytest.raises(what, match=said):
            use()
    assert isinstance(stream.error, what)
    stream.close()
    assert isinstance(stream.error, what)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (raising(ValueError("no such frame")), "the voice detector failed: ValueError: no such frame"),
        (raising(SystemExit(3)), "cutting failed: SystemExit: 3"),
        (lambda: float("nan"), "the voice detector gave nan, expected 0 to 1"),
        (raising(EngineError("vad: out of memory")), "^vad: out of memory"),
    ],
    ids=["error", "exit", "nan", "ours"],
)
def test_a_detector_that_fails_ends_the_stream(
    mute: Runtime, conversation: Samples, act: Callable[[], float], said: str
) -> None:
    stream = Stream(mute, StreamOptions(), vad=Detector(act))
    stream.push(conversation)
    ended_with(stream, EngineError, said)


def test_a_detector_that_fails_while_it_forgets_ends_the_stream(mute: Runtime, conversation: Samples) -> None:
    detector = Detector(lambda: 0.9)
    detector.reset = raising(RuntimeError("stuck"))  # type: ignore[method-assign]
    stream = Stream(mute, StreamOptions(), vad=detector)
    stream.push(conversation)
    stream.gap()
    ended_with(stream, EngineError, "cutting failed: RuntimeError: stuck")


def test_a_segmenter_that_fails_ends_the_stream(
    mute: Runtime, conversation: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeser.runtime.segmenting.Segmenter.feed", raising(IndexError("frame 7")))
    stream = mute.open_stream()
    stream.push(conversation)
    ended_with(stream, EngineError, "cutting failed: IndexError: frame 7")


def test_a_ring_that_fails_ends_the_stream(
    mute: Runtime, conversation: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeser.runtime.streams.ring.RingBuffer.read", raising(MemoryError("no room")))
    ended_with(mute.open_stream(), EngineError, "cutting failed: MemoryError: no room")


class Faulty(Source):
    name = "faulty"
    live = True

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def open(self) -> None:
        pass

    def read(self, timeout_s: float) -> Samples | None:
        raise self._error

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (SourceError("device: gone"), SourceError, "^device: gone"),
        (KeyError("rate"), EngineError, "capture failed: KeyError: 'rate'"),
    ],
)
def test_a_source_that_fails_ends_the_stream(
    mute: Runtime, error: BaseException, raised: type[Exception], said: str
) -> None:
    stream = mute.open_stream()
    stream.capture(Faulty(error))
    ended_with(stream, raised, said)


class Exiting(Asr):
    name = "exiting"

    def start(self) -> AsrSession:
        return BufferedSession(self._decode)

    def _decode(self, samples: Samples) -> tuple[RecognizedWord, ...]:
        sys.exit(1)


def test_a_recogniser_that_exits_costs_words_and_no_more(mute: Runtime, conversation: Samples) -> None:
    original, mute.asr = mute.asr, Exiting()
    try:
        with mute.open_stream() as stream:
            stream.push(conversation, wait=True)
            stream.end()
            assert [event.words for event in stream] == [Words.FAILED] * 4
    finally:
        mute.asr = original


def acting(act: Callable[[Any], None]) -> tuple[Callable[[Any], Callable[[Event], None]], list[Any], threading.Event]:
    """Return a maker of `on_event` that acts on its stream, what came of it, and when."""
    outcome: list[Any] = []
    done = threading.Event()

    def react(holder: list[Any]) -> Callable[[Event], None]:
        def on_event(event: Event) -> None:
            if done.is_set():
                return
            try:
                act(holder[0])
                outcome.append(None)
            except Exception as error:
                outcome.append(error)
            finally:
                done.set()

        return on_event

    return react, outcome, done


Opener = Callable[[Callable[[Event], None]], Any]


@pytest.fixture(params=["inside", "isolated"])
def opener(request: pytest.FixtureRequest, mute: Runtime) -> Opener:
    """Open a stream of either kind with a callback."""
    if request.param == "inside":
        return mute.open_stream
    return lambda react: IsolatedStream(react, asr="none", engine="onnxruntime")


def called_back(opener: Opener, conversation: Samples, act: Callable[[Any], None]) -> tuple[Any, Any]:
    """Let `on_event` act on its stream; return the stream, and what that raised."""
    react, outcome, done = acting(act)
    holder: list[Any] = []
    holder.append(opener(react(holder)))
    holder[0].push(conversation[: 5 * SAMPLE_RATE])
    assert done.wait(60)
    return holder[0], outcome[0]


def test_flush_from_on_event_is_refused(opener: Opener, conversation: Samples) -> None:
    stream, outcome = called_back(opener, conversation, lambda stream: stream.flush())
    with stream:
        assert isinstance(outcome, InputError)
        assert "got flush() from on_event, which it would wait for: gap()" in str(outcome)
        assert stream.flush(60)


def test_a_patient_push_from_on_event_is_refused(mute: Runtime, conversation: Samples) -> None:
    stream, outcome = called_back(
        mute.open_stream, conversation, lambda stream: stream.push(np.zeros(10, np.float32), wait=True)
    )
    with stream:
        assert isinstance(outcome, InputError)
        assert "push without wait" in str(outcome)


def test_what_does_not_wait_may_come_from_on_event(opener: Opener, conversation: Samples) -> None:
    def act(stream: Any) -> None:
        stream.push(conversation[5 * SAMPLE_RATE :])
        stream.gap()
        stream.end()
        assert stream.stats.events >= 0
        assert stream.activity.voice >= 0

    stream, outcome = called_back(opener, conversation, act)
    with stream:
        assert outcome is None
        assert stream.flush(60)


def test_close_from_on_event_closes(opener: Opener, conversation: Samples) -> None:
    stream, outcome = called_back(opener, conversation, lambda stream: stream.close())
    assert outcome is None
    assert stream.error is None
    with pytest.raises(InputError, match="stream: is closed"):
        stream.push(conversation)
    stream.close()


def test_exit_from_on_event_ends_the_stream_with_an_error(opener: Opener, conversation: Samples) -> None:
    stream = opener(lambda event: sys.exit("enough"))
    stream.push(conversation[: 5 * SAMPLE_RATE])
    with pytest.raises(EngineError, match="the stream ended: on_event raised SystemExit: enough"):
        stream.flush(60)
    with pytest.raises(EngineError, match="on_event raised"):
        stream.push(conversation)
    stream.close()


@pytest.mark.parametrize("timeout_s", [float("nan"), -1.0])
def test_a_time_that_is_none_is_refused(mute: Runtime, timeout_s: float) -> None:
    with mute.open_stream() as stream, pytest.raises(InputError, match="timeout_s: got"):
        stream.flush(timeout_s)


def test_a_closed_stream_is_freed_with_its_last_user(mute: Runtime) -> None:
    """Each waited for the garbage collector once, with a detector and a ring of 2 MB."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        for on_event in (None, lambda event: None):
            stream = mute.open_stream(on_event)
            stream.push(np.zeros(SAMPLE_RATE, np.float32), wait=True)
            stream.flush()
            stream.close()
            gone = weakref.ref(stream)
            del stream
            assert gone() is None
    finally:
        if was_on:
            gc.enable()
