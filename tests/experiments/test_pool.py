"""Processes that do tasks: side by side, each crash its own, nothing left behind."""

from __future__ import annotations

import operator
import os
import signal
import time
from pathlib import Path

import pytest

from edgeser.experiments.pool import Answer, Pool, Task


def answers(tmp_path: Path, *calls: tuple, count: int = 1) -> list[Answer]:
    with Pool(count) as pool:
        return list(pool.run([Task(call, arguments, tmp_path / "log") for call, *arguments in calls]))


def test_a_failed_task_and_a_crashed_one_leave_the_others_alone(tmp_path: Path) -> None:
    good, failed, crashed, last = answers(
        tmp_path, (operator.add, 1, 2), (operator.truediv, 1, 0), (os.abort,), (operator.add, 3, 4)
    )
    assert (good.value, good.error) == (3, "")
    assert failed.error == "ZeroDivisionError: division by zero"
    assert crashed.error == "its process ended by SIGABRT"
    assert (last.value, last.error) == (7, "")


def test_a_task_writes_into_its_log_native_code_too(tmp_path: Path) -> None:
    answers(tmp_path, (print, "from Python"), (os.system, "echo from a child"), (operator.truediv, 1, 0))
    written = (tmp_path / "log").read_text()
    assert "from Python\nfrom a child\nTraceback" in written


def test_tasks_run_side_by_side(tmp_path: Path) -> None:
    """Each waits for a file that only the other one writes."""
    both = [
        Task(os.system, (f"touch {mine}; while ! test -e {other}; do sleep 0.02; done",), tmp_path / "log")
        for mine, other in ((tmp_path / "a", tmp_path / "b"), (tmp_path / "b", tmp_path / "a"))
    ]
    with Pool(2) as pool:
        assert [answer.value for answer in pool.run(both)] == [0, 0]


def test_workers_are_kept_for_further_tasks(tmp_path: Path) -> None:
    first, second = answers(tmp_path, (os.getpid,), (os.getpid,))
    assert first.value == second.value != os.getpid()


def test_leaving_ends_what_still_runs(tmp_path: Path) -> None:
    tasks = [Task(os.getpid, (), tmp_path / "log"), Task(time.sleep, (600,), tmp_path / "log")]
    with Pool(1) as pool:
        for answer in pool.run(tasks):
            pid = answer.value
            break
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_ctrl_c_is_for_the_parent(tmp_path: Path) -> None:
    (answer,) = answers(tmp_path, (signal.raise_signal, signal.SIGINT))
    assert answer.error == ""
