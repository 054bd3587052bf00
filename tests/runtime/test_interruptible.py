from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from edgeser.runtime.interruptible import interruptibly


class Alarm(Exception):
    """What the handler of a signal raises."""


@pytest.fixture
def alarm() -> Iterator[None]:
    """SIGALRM after 0.2 s, as an exception."""

    def ring(number: int, frame: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_call_gives_its_value_or_its_error() -> None:
    assert interruptibly(lambda: 3) == 3
    with pytest.raises(KeyError, match="seven"):
        interruptibly(lambda: {}["seven"])


def test_a_signal_does_not_wait_for_the_call(alarm: None) -> None:
    release, ended, given_up = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        release.wait()
        ended.set()

    with pytest.raises(Alarm):
        interruptibly(work, given_up.set)
    assert given_up.is_set()
    assert not ended.is_set()
    release.set()
    assert ended.wait(60)  # it went on to its end


def test_an_error_of_the_call_is_not_giving_up() -> None:
    given_up = threading.Event()
    with pytest.raises(ZeroDivisionError):
        interruptibly(lambda: 1 // 0, given_up.set)
    assert not given_up.is_set()


def test_in_other_threads_nothing_changes() -> None:
    names: list[str] = []

    def work() -> None:
        interruptibly(lambda: names.append(threading.current_thread().name))

    thread = threading.Thread(target=work, name="mine")
    thread.start()
    thread.join()
    assert names == ["mine"]
    interruptibly(lambda: time.sleep(0))
