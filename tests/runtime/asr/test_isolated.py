from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgeser.runtime.asr import Asr, IsolatedAsr, PocketSphinxAsr, open_asr
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import AsrError, InputError, MissingDependencyError
from edgeser.runtime.recognizer import Runtime

FOLDER = Path(__file__).parent


@pytest.fixture
def unruly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The recognisers that fail, importable under one name here and in the child."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("UNRULY_BIRTHS", str(tmp_path / "births"))
    return importlib.import_module("unruly")


@pytest.fixture
def asr(unruly: ModuleType) -> Iterator[IsolatedAsr]:
    with IsolatedAsr(unruly.opened) as opened:
        yield opened


def births(unruly: ModuleType) -> list[int]:
    """Return the ids of the children that were started."""
    return [int(line) for line in Path(os.environ[unruly.BIRTHS]).read_text().split()]


def saying(what: float) -> Samples:
    return np.full(800, what, np.float32)


def is_gone(process: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_answers_as_the_recogniser_itself_does(speech: Samples) -> None:
    samples = speech[int(0.8 * SAMPLE_RATE) : int(2.2 * SAMPLE_RATE)]
    expected = PocketSphinxAsr().transcribe(samples)
    assert len(expected) >= 3
    with open_asr("pocketsphinx", isolate=True) as asr:
        assert isinstance(asr, IsolatedAsr)
        session = asr.start()
        for piece in np.array_split(samples, 9):
            session.accept(piece)
        assert session.partial() == ()
        assert session.finish() == expected
        assert asr.transcribe(np.zeros(0, np.float32)) == ()


def test_sessions_keep_apart(asr: IsolatedAsr) -> None:
    first, second = asr.start(), asr.start()
    first.accept(np.zeros(10, np.float32))
    second.accept(np.zeros(5, np.float32))
    first.accept(np.zeros(40_001, np.float32))  # more than one piece
    assert second.finish()[0].text == "5"
    assert first.finish()[0].text == "40011"
    for session in (first, second):
        session.cancel()
        with pytest.raises(AsrError, match="session that is over"):
            session.accept(np.zeros(1, np.float32))


@pytest.mark.parametrize(("way", "said"), [("CRASH", "ended by SIGABRT"), ("EXIT", "ended with status 3")])
def test_a_crash_is_an_error_and_the_next_session_works(
    asr: IsolatedAsr, unruly: ModuleType, way: str, said: str
) -> None:
    other = asr.start()
    with pytest.raises(AsrError, match=said):
        asr.transcribe(saying(getattr(unruly, way)))
    with pytest.raises(AsrError, match=said):
        other.finish()
    assert asr.transcribe(np.zeros(7, np.float32))[0].text == "7"
    assert len(births(unruly)) == 2


def test_a_hang_is_an_error_and_the_process_is_killed(asr: IsolatedAsr, unruly: ModuleType) -> None:
    asr._hang_s = 0.5
    with pytest.raises(AsrError, match=r"took more than 0\.5 s"):
        asr.transcribe(saying(unruly.HANG))
    asr._hang_s = 10.0
    assert is_gone(births(unruly)[0])
    assert asr.transcribe(np.zeros(7, np.float32))[0].text == "7"


def test_a_long_utterance_may_take_long(asr: IsolatedAsr, unruly: ModuleType) -> None:
    """A recogniser that decodes at the end takes about as long as the audio."""
    asr._hang_s = 1.0
    with pytest.raises(AsrError, match="took more than 1 s"):
        asr.transcribe(np.full(8, unruly.SLOW, np.float32))
    asr._hang_s = 10.0
    asr.transcribe(np.zeros(8, np.float32))  # a new process is there
    asr._hang_s = 1.0
    long = np.full(5 * SAMPLE_RATE, unruly.SLOW, np.float32)
    assert asr.transcribe(long)[0].text == str(5 * SAMPLE_RATE)


def test_an_interrupted_call_leaves_no_answer_behind(asr: IsolatedAsr, unruly: ModuleType) -> None:
    def ring(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            asr.transcribe(np.full(8, unruly.SLOW, np.float32))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert asr.transcribe(np.zeros(7, np.float32))[0].text == "7"


def test_a_death_between_two_sessions_costs_none(asr: IsolatedAsr, unruly: ModuleType) -> None:
    os.kill(births(unruly)[0], signal.SIGSEGV)
    assert wait_until(lambda: is_gone(births(unruly)[0]))
    assert asr.transcribe(np.zeros(7, np.float32))[0].text == "7"


def test_an_exception_is_an_error_and_the_process_stays(asr: IsolatedAsr, unruly: ModuleType) -> None:
    with pytest.raises(AsrError, match="the recogniser failed: ValueError: no such phone"):
        asr.transcribe(saying(unruly.RAISE))
    assert asr.transcribe(np.zeros(7, np.float32))[0].text == "7"
    assert len(births(unruly)) == 1


def test_crash_after_crash_is_answered_at_once(asr: IsolatedAsr, unruly: ModuleType) -> None:
    for _ in range(2):
        with pytest.raises(AsrError, match="SIGABRT"):
            asr.transcribe(saying(unruly.CRASH))
    with pytest.raises(AsrError, match=r"keeps failing, it is started again in (0\.\d|1\.0) s"):
        asr.start()
    assert len(births(unruly)) == 2
    time.sleep(1.0)
    assert asr.transcribe(np.zeros(7, np.float32))[0].text == "7"
    with pytest.raises(AsrError, match="SIGABRT"):
        asr.transcribe(saying(unruly.CRASH))
    assert asr.transcribe(np.zeros(7, np.float32))[0].text == "7"  # one that worked made it trustworthy again


def test_a_restart_that_fails_says_why_and_is_not_tried_again_at_once(unruly: ModuleType) -> None:
    with IsolatedAsr(unruly.opened_once) as asr:
        with pytest.raises(AsrError, match="SIGABRT"):
            asr.transcribe(saying(unruly.CRASH))
        with pytest.raises(MissingDependencyError, match=r"sphinx is not installed, .*'edgeser\[asr\]'") as caught:
            asr.start()
        assert caught.value.package == "sphinx"
        with pytest.raises(AsrError, match="keeps failing"):
            asr.start()


@pytest.mark.parametrize(
    ("opener", "message"),
    [
        ("wisper", "asr: got 'wisper', expected auto"),
        (lambda: open_asr("none"), "an opener that another process cannot import"),
    ],
)
def test_what_cannot_be_opened(opener: str | Callable[[], Asr], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IsolatedAsr(opener)


def test_close_frees_a_caller_that_waits(asr: IsolatedAsr, unruly: ModuleType) -> None:
    asr._hang_s = 60.0
    told: list[AsrError] = []

    def hang() -> None:
        with pytest.raises(AsrError, match="it was closed") as caught:
            asr.transcribe(saying(unruly.HANG))
        told.append(caught.value)

    waiting = threading.Thread(target=hang)
    waiting.start()
    time.sleep(0.3)
    asr.close()
    waiting.join(10)
    assert told
    assert is_gone(births(unruly)[0])
    with pytest.raises(AsrError, match="asr: closed"):
        asr.start()
    asr.close()


def test_the_child_does_not_mind_an_interrupt(asr: IsolatedAsr, unruly: ModuleType) -> None:
    os.kill(births(unruly)[0], signal.SIGINT)
    assert asr.transcribe(np.zeros(7, np.float32))[0].text == "7"
    assert len(births(unruly)) == 1


def test_the_child_does_without_torch(unruly: ModuleType) -> None:
    IsolatedAsr(unruly.torch_is_loaded).close()


def test_a_child_that_hangs_ends_with_its_parent(unruly: ModuleType, tmp_path: Path) -> None:
    births_file = str(tmp_path / "births")
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import unruly; unruly.run_parent({births_file!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"hangs\n"
        child = births(unruly)[0]
        assert not is_gone(child)
        parent.kill()
    assert wait_until(lambda: is_gone(child))


def test_a_runtime_closes_the_recogniser_that_it_opened() -> None:
    runtime = Runtime.load(asr="pocketsphinx", isolate_asr=True, engine="onnxruntime")
    assert isinstance(runtime.asr, IsolatedAsr)
    runtime.close()
    with pytest.raises(AsrError, match="asr: closed"):
        runtime.asr.start()
