"""An isolated stream whose process stands still: nothing waits longer than it says, and what is lost is counted."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import EngineError
from edgeser.runtime.streams import Event, IsolatedStream, StreamOptions

HANG_S = 8.0  # far more than any call may take here, and less than `stall_s`


@pytest.fixture
def still() -> Iterator[IsolatedStream]:
    """A stream with a stopped process and a full queue."""
    with IsolatedStream(asr="none", engine="onnxruntime") as stream:
        os.kill(stream.pid, signal.SIGSTOP)
        while stream.stats.lost_s < 1:
            stream.push(np.zeros(SAMPLE_RATE // 50, np.float32))
        yield stream


def returned(call: Callable[[], object]) -> object:
    """Return what a call gives; it fails where the call hangs."""
    outcome: list[object] = []
    thread = threading.Thread(target=lambda: outcome.append(call()), daemon=True)
    thread.start()
    thread.join(HANG_S)
    assert outcome, "hangs"
    return outcome[0]


def test_no_call_waits_longer_than_it_says(still: IsolatedStream, speech: Samples) -> None:
    assert returned(lambda: still.flush(1.0)) is False
    assert returned(lambda: still.flush(0.0)) is False
    for call in (still.gap, lambda: still.push(speech), still.end, lambda: still.next_event(0), still.close):
        assert returned(call) is None


def test_what_is_lost_is_counted_and_what_was_said_arrives(still: IsolatedStream, speech: Samples) -> None:
    lost = still.stats.lost_s
    still.push(speech)
    assert still.stats.lost_s == pytest.approx(lost + speech.shape[0] / SAMPLE_RATE)
    for _ in range(100):
        still.gap()
    assert still.flush(0.1) is False
    os.kill(still.pid, signal.SIGCONT)
    assert still.flush(60)
    still.push(np.concatenate([speech, np.zeros(SAMPLE_RATE, np.float32)]))
    still.end()
    events: list[Event] = list(still)
    assert len(events) == 1
    assert events[0].lost_s == pytest.approx(still.stats.lost_s)
    assert events[0].start_s > lost


def test_an_end_that_found_no_room_arrives_by_itself(still: IsolatedStream) -> None:
    still.end()
    os.kill(still.pid, signal.SIGCONT)
    assert returned(lambda: list(still)) == []


def test_a_process_that_says_nothing_ends_the_stream_though_nobody_pushes() -> None:
    with IsolatedStream(asr="none", engine="onnxruntime", options=StreamOptions(stall_s=0.7)) as stream:
        os.kill(stream.pid, signal.SIGSTOP)

        def wait() -> str:
            with pytest.raises(EngineError) as caught:
                stream.flush()
            return str(caught.value)

        assert returned(wait) == "the stream's process has stood still for 0.7 s"


def test_a_program_that_stood_still_itself_goes_on(speech: Samples) -> None:
    """As after Ctrl-Z: the process spoke all the time, only nobody here listened for longer than `stall_s`."""
    with IsolatedStream(asr="none", engine="onnxruntime", options=StreamOptions(stall_s=1.0)) as stream:
        with stream._entrance:  # the thread that listens to the process cannot go on
            time.sleep(2.0)
        stream.push(np.concatenate([speech, np.zeros(SAMPLE_RATE, np.float32)]))
        assert stream.flush(60)
        assert stream.next_event(1) is not None


def test_its_process_leaves_the_programs_output_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with IsolatedStream(asr="none", engine="onnxruntime") as stream:
        assert Path(f"/proc/{stream.pid}/fd/1").readlink() == Path(os.devnull)
        assert stream.flush(30)
    assert capfd.readouterr().out == ""
