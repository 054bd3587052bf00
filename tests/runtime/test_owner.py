"""What was loaded before a fork says so in one line, and closing it there disturbs nobody."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.asr import IsolatedAsr, PocketSphinxAsr, open_asr
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.owner import OwnerProcess
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.streams import IsolatedStream, MetricsServer

Forked = Callable[[Callable[[], object]], str]
REFUSED = r"{}: {}: opened in process \d+, used in process \d+, which was forked from it: load it after the fork"


def is_refused(outcome: str, what: str, error: str = "EngineError") -> bool:
    return re.match(REFUSED.format(error, what), outcome) is not None


@pytest.mark.parametrize("threads", [1, 2])
def test_a_runtime_stays_in_its_process(forked: Forked, speech: Samples, threads: int) -> None:
    with Runtime.load(engine="onnxruntime", asr="none", threads=threads) as runtime:
        expected = runtime.recognize(speech, SAMPLE_RATE).probabilities
        for use in (
            lambda: runtime.recognize(speech, SAMPLE_RATE),
            lambda: runtime.recognize_batch([speech], [None]),
            lambda: runtime.answer(speech, ()),
            runtime.open_stream,
            lambda: next(runtime.listen()),
        ):
            assert is_refused(forked(use), "runtime")
        run = lambda: runtime.engine.run({})  # noqa: E731
        assert is_refused(forked(run), "onnxruntime")
        assert forked(runtime.close) == "None"
        assert runtime.recognize(speech, SAMPLE_RATE).probabilities == expected


def test_closing_in_a_fork_does_not_wait_for_a_lock_that_nobody_holds_there(forked: Forked, speech: Samples) -> None:
    with Runtime.load(engine="onnxruntime", asr="none") as runtime, runtime.engine._lock:  # another thread runs it
        assert forked(runtime.close) == "None"
        assert is_refused(forked(lambda: runtime.recognize(speech, SAMPLE_RATE)), "runtime")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_fork_that_leaves_by_the_front_door_ends(engine: str) -> None:
    """Not by `os._exit`: what it inherited is then freed, and native threads that it has not would be waited for."""
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    code = f"""
import os, sys, numpy, edgeser
runtime = edgeser.Runtime.load(engine={engine!r}, asr="none", threads=2, self_test=False)
runtime.recognize(numpy.zeros(16_000, numpy.float32), 16_000)
child = os.fork()
if child:
    sys.exit(os.waitpid(child, 0)[1])
runtime.close()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("isolate", [False, True])
def test_a_recogniser_stays_in_its_process(forked: Forked, speech: Samples, isolate: bool) -> None:
    with open_asr("pocketsphinx", isolate=isolate) as asr:
        name = "asr" if isolate else "pocketsphinx"
        assert is_refused(forked(lambda: asr.transcribe(speech)), name, "AsrError")
        assert forked(asr.close) == "None"
        assert asr.transcribe(np.zeros(SAMPLE_RATE, np.float32)) == ()


def test_a_recogniser_that_was_busy_at_the_fork_is_refused_too(forked: Forked, speech: Samples) -> None:
    asr = PocketSphinxAsr()
    with asr._turn:
        assert is_refused(forked(lambda: asr.transcribe(speech)), "pocketsphinx", "AsrError")


def test_a_child_ends_with_its_parent_though_a_fork_of_that_lives() -> None:
    code = """
import os, signal, sys, time
from edgeser.runtime.asr import IsolatedAsr
asr = IsolatedAsr("pocketsphinx")
print(asr._child._child.pid, flush=True)
if os.fork() == 0:
    os.close(1)
    time.sleep(60)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout is not None
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        parent.wait(30)
    try:
        assert within_10_s(lambda: not child.exists() or child.joinpath("stat").read_text().split()[2] == "Z")
    finally:
        os.killpg(parent.pid, signal.SIGKILL)  # the fork


def within_10_s(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_a_stream_stays_in_its_process(forked: Forked, speech: Samples) -> None:
    with Runtime.load(engine="onnxruntime", asr="none") as runtime, runtime.open_stream() as stream:
        for use in (
            lambda: stream.push(speech),
            lambda: stream.push(speech, wait=True),
            lambda: stream.flush(1.0),
            stream.gap,
            stream.end,
            lambda: stream.next_event(1.0),
            lambda: list(stream),
            lambda: stream.stats,
        ):
            assert is_refused(forked(use), "stream")
        with stream._entrance, stream._events._changed, stream._flow.ring._changed:  # held by other threads
            assert forked(stream.close) == "None"
        stream.push(np.concatenate([speech, np.zeros(SAMPLE_RATE, np.float32)]), wait=True)
        stream.end()
        assert len(list(stream)) == 1


def test_an_isolated_stream_stays_in_its_process(forked: Forked, speech: Samples) -> None:
    with IsolatedStream(asr="none", engine="onnxruntime") as stream:
        for use in (lambda: stream.push(speech), lambda: stream.flush(1.0), lambda: list(stream)):
            assert is_refused(forked(use), "stream")
        assert forked(stream.close) == "None"
        stream.push(np.concatenate([speech, np.zeros(SAMPLE_RATE, np.float32)]))
        assert stream.flush(60)
        assert stream.next_event(1) is not None


def test_metrics_are_closed_in_a_fork_without_waiting_for_their_thread(forked: Forked) -> None:
    with Runtime.load(engine="onnxruntime", asr="none") as runtime, runtime.open_stream() as stream:
        server = MetricsServer(lambda: stream.stats, 0)
        try:
            assert forked(server.close) == "None"
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
                assert answer.status == 200
        finally:
            server.close()


def test_isolated_recognisers_leave_the_programs_output_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with IsolatedAsr(print_and_open) as asr:
        asr.transcribe(np.zeros(SAMPLE_RATE, np.float32))
    assert capfd.readouterr().out == ""


def print_and_open() -> object:
    print("from the recogniser", flush=True)
    return open_asr("none")


def test_the_owner_itself() -> None:
    owner = OwnerProcess("thing")
    owner.check()
    assert owner.is_here
