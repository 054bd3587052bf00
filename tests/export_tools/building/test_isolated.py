"""A compiler that crashes, hangs or takes all memory is a failure that is told, in one line."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeser.export_tools.building.isolated import Limits, run_apart
from edgeser.runtime.errors import EngineError, InputError, MissingDependencyError

SOURCE = """
import os
import sys
import time

from edgeser.runtime.errors import InputError, MissingDependencyError


def double(x):
    print("noise")
    os.write(1, b"native noise")
    return 2 * x


def abort(x):
    os.abort()


def leave(x):
    sys.exit(3)


def hang(x):
    time.sleep(60)


def hog(x):
    return len(bytearray(1 << 30))


def refuse(x):
    raise InputError("x: got 1, expected 2")


def miss(x):
    raise MissingDependencyError("tensorrt", "jetson", "a test")


def stumble(x):
    raise ZeroDivisionError("by 0")
"""
PATIENT = Limits(60.0)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A module that another process can import."""
    folder = tmp_path_factory.mktemp("fake")
    (folder / "fake_compiler.py").write_text(SOURCE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("fake_compiler")
    sys.path.remove(str(folder))
    del sys.modules["fake_compiler"]


def failure(function: Callable[[Any], Any], limits: Limits = PATIENT) -> str:
    with pytest.raises(EngineError) as caught:
        run_apart(function, 1, limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_answer_comes_back_and_stdout_stays_a_programs(fake: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_apart(fake.double, 21, PATIENT) == 42
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "native noise" in captured.err


def test_a_crash_is_a_failure(fake: Any) -> None:
    assert failure(fake.abort) == "its process ended by SIGABRT"
    assert failure(fake.leave) == "its process ended with status 3"


def test_a_hang_is_ended(fake: Any) -> None:
    started = time.perf_counter()
    assert failure(fake.hang, Limits(1.0)) == "its process took more than 1 s and was ended"
    assert time.perf_counter() - started < 10


def test_memory_is_limited_where_that_is_asked(fake: Any) -> None:
    assert run_apart(fake.hog, 1, PATIENT) == 1 << 30
    assert "MemoryError" in failure(fake.hog, Limits(60.0, memory_mb=600))


def test_errors_come_back_as_they_were(fake: Any) -> None:
    with pytest.raises(InputError, match=r"^x: got 1, expected 2$"):
        run_apart(fake.refuse, 1, PATIENT)
    with pytest.raises(MissingDependencyError, match="tensorrt is not installed") as caught:
        run_apart(fake.miss, 1, PATIENT)
    assert caught.value.extra == "jetson"
    assert failure(fake.stumble) == "it failed: ZeroDivisionError: by 0"


def test_no_process_is_left(fake: Any) -> None:
    before = children()
    failure(fake.hang, Limits(0.5))
    failure(fake.abort)
    assert children() == before


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{Path('/proc/thread-self').resolve().name}/children").read_text().split())


def test_large_requests_and_answers(fake: Any) -> None:
    """An encoder's graph goes there, its engine comes back."""
    assert run_apart(len, bytes(100 << 20), PATIENT) == 100 << 20
    assert len(run_apart(fake.double, bytes(50 << 20), PATIENT)) == 100 << 20


def test_what_the_other_process_cannot_import_is_a_failure(fake: Any) -> None:
    fake.here_only = type(fake.double)(fake.double.__code__, {}, "here_only")
    fake.here_only.__module__, fake.here_only.__qualname__ = "fake_compiler", "here_only"
    assert failure(fake.here_only) == "its process ended with status 1"
