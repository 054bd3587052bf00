"""A stream in a process of its own: the same answers, and what happens when that process does not behave."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.audio import SAMPLE_RATE, Samples, load_audio
from edgeser.runtime.errors import BundleError, EngineError, InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.streams import Event, IsolatedStream, StreamOptions

TICK = SAMPLE_RATE // 50


@pytest.fixture(scope="module")
def talk(clips: list[Path]) -> Samples:
    """Two clips, a second of silence after each."""
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    return np.concatenate([load_audio(clips[2]), quiet, load_audio(clips[3]), quiet])


@pytest.fixture
def stream() -> Iterator[IsolatedStream]:
    with IsolatedStream(asr="none", engine="onnxruntime", options=StreamOptions(stall_s=1.0)) as opened:
        yield opened


def soon(condition: Callable[[], bool], limit_s: float = 20.0) -> bool:
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def is_gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def pushed(stream: IsolatedStream, samples: Samples) -> None:
    """Push as a microphone would, ten times as fast."""
    for begin in range(0, samples.shape[0], TICK):
        stream.push(samples[begin : begin + TICK])
        time.sleep(0.002)


def summary(events: list[Event]) -> list[tuple[float, float, dict[str, float]]]:
    return [(event.start_s, event.end_s, dict(event.result.probabilities)) for event in events]


def test_events_are_those_of_a_stream_inside(stream: IsolatedStream, talk: Samples) -> None:
    with Runtime.load(asr="none", engine="onnxruntime") as runtime, runtime.open_stream() as inside:
        inside.push(talk, wait=True)
        inside.end()
        expected = list(inside)
    assert len(expected) == 2
    pushed(stream, talk)
    stream.end()
    assert summary(list(stream)) == summary(expected)
    assert stream.stats.events == 2
    assert stream.stats.lost_s == 0
    assert stream.stats.audio_s == pytest.approx(talk.shape[0] / SAMPLE_RATE)
    assert stream.activity.level_dbfs < -60


def test_callback_gets_all_before_flush_returns(talk: Samples) -> None:
    events: list[Event] = []

    def react(event: Event) -> None:
        events.append(event)
        raise ValueError("a robot's own mistake")

    with IsolatedStream(react, asr="none", engine="onnxruntime") as stream:
        pushed(stream, talk)
        assert stream.flush(30)
        assert len(events) == 2
        assert stream.stats.callback_errors == 2
        pushed(stream, talk)
        assert stream.flush(30)
        assert len(events) == 4
        pid = stream.pid
        started = time.monotonic()
    assert time.monotonic() - started < 1
    assert is_gone(pid)
    assert not [t for t in threading.enumerate() if t.name in ("edgeser-receiving", "edgeser-events")]
    with pytest.raises(InputError, match="closed"):
        stream.push(talk)


def test_other_rates_and_shapes(stream: IsolatedStream, clips: list[Path]) -> None:
    import soxr

    loud = soxr.resample(load_audio(clips[3]), SAMPLE_RATE, 48_000)
    stream.push((np.stack([loud, loud], axis=1) * 32767).astype(np.int16), 48_000)
    with pytest.raises(InputError, match="NaN"):
        stream.push(np.full(10, np.nan, np.float32))
    assert stream.flush(30)
    event = stream.next_event(1)
    assert event is not None
    assert event.label == "angry"


def test_a_killed_process_ends_the_stream_with_one_error(stream: IsolatedStream, talk: Samples) -> None:
    pushed(stream, talk[:SAMPLE_RATE])
    os.kill(stream.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="SIGKILL"):
        list(stream)
    with pytest.raises(EngineError, match="SIGKILL"):
        stream.push(talk)


def test_a_process_that_stands_still_never_holds_up_the_loop(stream: IsolatedStream, talk: Samples) -> None:
    os.kill(stream.pid, signal.SIGSTOP)
    started = time.monotonic()
    while stream.error is None and time.monotonic() - started < 20:
        stream.push(talk[: 10 * TICK])
        time.sleep(0.001)
    assert stream.stats.lost_s > 0
    with pytest.raises(EngineError, match="has stood still for 1 s"):
        stream.push(talk)
    assert soon(lambda: is_gone(stream.pid))


def test_lost_audio_keeps_the_place_of_what_follows(talk: Samples) -> None:
    with IsolatedStream(asr="none", engine="onnxruntime") as stream:
        os.kill(stream.pid, signal.SIGSTOP)
        while stream.stats.lost_s < 2:
            stream.push(np.zeros(TICK, np.float32))
        os.kill(stream.pid, signal.SIGCONT)
        time.sleep(1)  # the child takes what waits
        at = stream.stats.audio_s
        pushed(stream, talk)
        assert stream.flush(30)
        first = stream.next_event(1)
    assert first is not None
    assert first.lost_s >= 2
    assert at < first.start_s < at + 1.5


def test_what_lies_in_the_working_directory_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("edgeser/__init__.py", "json.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    with IsolatedStream(asr="none", engine="onnxruntime") as stream:
        assert stream.flush(10)


def test_what_cannot_be_opened_says_so_here(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(BundleError, match=r"none\.edgeser"):
        IsolatedStream(bundle=tmp_path / "none.edgeser")
    with pytest.raises(InputError, match="asr"):
        IsolatedStream(asr="oracle")
    assert threading.active_count() == before
