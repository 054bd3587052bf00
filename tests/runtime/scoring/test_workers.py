"""Worker processes, and what happens when they die."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgeser.runtime.errors import EngineError, InputError
from edgeser.runtime.scoring import InProcess, Recording, Setup, Workers, score_to_file

# A recording whose reading is the end of the process that reads it, as a crash in a native library is.
DEADLY = """
import os, signal
from edgeser.runtime.scoring import Recording, Setup

class Deadly(Recording):
    def read(self):
        os.kill(os.getpid(), signal.SIGSEGV)

class Unloadable(Setup):
    def load(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Stopped(Recording):
    def read(self):
        os.kill(os.getpid(), signal.SIGSTOP)

class StoppedLoading(Setup):
    def load(self):
        os.kill(os.getpid(), signal.SIGSTOP)

class Raising(Setup):
    def load(self):
        raise ZeroDivisionError("a defect of ours")
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that the workers can import, too."""
    (tmp_path / "deadly_recordings.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    import deadly_recordings

    yield deadly_recordings
    del sys.modules["deadly_recordings"]


@pytest.fixture
def slow_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading may take long where many tests share a core, though a batch may not."""
    monkeypatch.setattr("edgeser.runtime.scoring.workers._LOADING", 100.0)


def same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows say the same; the batch that a recording is in moves the last digits."""
    numbers = {name for name in row if name.startswith("p_")}
    return (
        row.keys() == other.keys()
        and all(abs(row[name] - other[name]) < 1e-4 for name in numbers)
        and all(row[name] == other[name] for name in row.keys() - numbers - {"ms", "spans", "words"})
    )


def test_workers_give_the_rows_of_this_process_also_when_one_is_killed(
    setup: Setup, snippets: list[Recording], scorer: InProcess, tmp_path: Path
) -> None:
    recordings = [*snippets[:9], Recording("gone", tmp_path / "gone.wav")]
    expected = {recording.id: row for recording, row in scorer.rows(recordings)}
    with Workers(setup, 2, batch_size=2) as workers:
        assert workers.identity == scorer.identity
        found = list(workers.rows(recordings[:1]))
        assert len(workers.pids) == 1, "more than there is work for"
        running = workers.rows(recordings[1:])
        found.append(next(running))
        (killed, other) = workers.pids
        assert os.getpid() not in (killed, other)
        os.kill(killed, signal.SIGKILL)
        found += list(running)
        pids = workers.pids
        assert killed not in pids
        assert other in pids
        assert list(workers.rows([])) == []
    assert Counter(recording.id for recording, _ in found) == Counter(r.id for r in recordings)
    assert all(same(row, expected[recording.id]) for recording, row in found)
    assert not any(Path(f"/proc/{pid}").exists() for pid in (killed, *pids))


def test_one_that_is_found_dead_is_replaced_and_what_it_had_is_nobodys(
    setup: Setup, snippets: list[Recording], scorer: InProcess
) -> None:
    with Workers(setup, 1, 1, scorer.identity) as workers:
        assert len(list(workers.rows(snippets[:1]))) == 1
        (pid,) = workers.pids
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: state(pid) == "Z")
        running = workers.rows(snippets[:4])
        recording, row = next(running)
        assert (recording.id, "error" in row) == (snippets[0].id, False)
        next(running)
        running.close()  # it may be at work on the third
        assert [recording.id for recording, _ in workers.rows(snippets[6:8])] == [r.id for r in snippets[6:8]]


def test_a_recording_that_kills_its_worker_is_reported_and_the_rest_scored(
    setup: Setup, snippets: list[Recording], deadly: Any, clip: Path, scorer: InProcess, tmp_path: Path
) -> None:
    recordings = [*snippets[:2], deadly.Deadly("poison", clip), *snippets[2:4]]
    rows = {}
    with Workers(setup, 1, 4, scorer.identity) as workers:
        out = tmp_path / "scores.csv"
        summary = score_to_file(recordings, out, workers, on_row=lambda row: rows.update({row["id"]: row}))
    assert (summary.total, summary.failed) == (5, 1)
    assert [name for name, row in rows.items() if "error" in row] == ["poison"]
    assert rows["poison"]["error"] == f"{clip}: ended the process that scored it (SIGSEGV), twice"
    assert len(rows) == 5


def test_workers_that_never_get_ready_are_an_error(
    setup: Setup, snippets: list[Recording], scorer: InProcess, deadly: Any
) -> None:
    broken = deadly.Unloadable(engine=setup.engine, asr=setup.asr)
    with (
        Workers(broken, 1, identity=scorer.identity) as workers,
        pytest.raises(EngineError, match=r"3 workers in a row ended while they loaded \(SIGKILL\)"),
    ):
        list(workers.rows(snippets))


def test_what_is_no_recordings_fault_ends_the_run_with_its_reason(
    setup: Setup, snippets: list[Recording], deadly: Any, scorer: InProcess
) -> None:
    broken = deadly.Raising(engine=setup.engine, asr=setup.asr)
    with (
        Workers(broken, 1, identity=scorer.identity) as workers,
        pytest.raises(EngineError, match="a worker gave up: ZeroDivisionError: a defect of ours"),
    ):
        list(workers.rows(snippets[:1]))


@pytest.mark.usefixtures("slow_start")
def test_a_worker_that_does_not_answer_is_replaced_and_its_recordings_scored(
    setup: Setup, snippets: list[Recording], scorer: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with Workers(setup, 1, 2, scorer.identity, hang_s=3.0) as workers:
        running = workers.rows(snippets[:6])
        found = [next(running)]
        (stopped,) = workers.pids
        os.kill(stopped, signal.SIGSTOP)
        found += list(running)
        assert stopped not in workers.pids
    assert [recording.id for recording, row in found if "error" not in row] == [r.id for r in snippets[:6]]
    assert re.search(rf"worker {stopped} was killed: no answer for \d+ s", caplog.text)


@pytest.mark.usefixtures("slow_start")
def test_a_recording_that_hangs_is_reported_and_the_rest_scored(
    setup: Setup, snippets: list[Recording], deadly: Any, clip: Path, scorer: InProcess
) -> None:
    recordings = [*snippets[:2], deadly.Stopped("stuck", clip), *snippets[2:4]]
    with Workers(setup, 1, 4, scorer.identity, hang_s=3.0) as workers:
        rows = {recording.id: row for recording, row in workers.rows(recordings)}
    assert [name for name, row in rows.items() if "error" in row] == ["stuck"]
    assert rows["stuck"]["error"] == f"{clip}: the process that scored it gave no answer for 3 s, twice"
    assert len(rows) == 5


def test_workers_that_hang_while_they_load_are_an_error(
    setup: Setup, snippets: list[Recording], scorer: InProcess, deadly: Any
) -> None:
    stuck = deadly.StoppedLoading(engine=setup.engine, asr=setup.asr)
    with (
        Workers(stuck, 1, identity=scorer.identity, hang_s=0.2) as workers,
        pytest.raises(EngineError, match=r"3 workers in a row ended while they loaded \(no answer for 1 s\)"),
    ):
        list(workers.rows(snippets))


@pytest.mark.usefixtures("slow_start")
def test_time_that_nobody_waits_counts_for_nothing(
    setup: Setup, snippets: list[Recording], scorer: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes the rows may take all night over each, while other workers have long answered."""
    monkeypatch.setattr("edgeser.runtime.scoring.workers._HEARING", 0.0)
    pids: set[int] = set()
    with Workers(setup, 2, 1, scorer.identity, hang_s=4.0) as workers:
        for _, row in workers.rows(snippets[:4]):
            assert "error" not in row
            pids |= {*workers.pids}
            time.sleep(5.0)
    assert len(pids) == 2


@pytest.mark.usefixtures("slow_start")
def test_a_stopped_worker_does_not_hold_up_a_batch_that_its_pipe_cannot_take(
    setup: Setup, snippets: list[Recording], scorer: InProcess
) -> None:
    with Workers(setup, 1, 4, scorer.identity, hang_s=2.0) as workers:
        assert len(list(workers.rows(snippets[:1]))) == 1
        (stopped,) = workers.pids
        os.kill(stopped, signal.SIGSTOP)
        long = [dataclasses.replace(r, transcript="well " * 50_000) for r in snippets[:4]]
        assert [recording.id for recording, _ in workers.rows(long)] == [r.id for r in long]
        assert stopped not in workers.pids


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="got 0 with batches of 8, expected at least 1 of each"):
        Workers(count=0)


def wait_for(true: Callable[[], bool], limit_s: float = 20.0) -> None:
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until, f"not within {limit_s} s"
        time.sleep(0.01)


def state(pid: int) -> str:
    """One letter: Z is dead and not yet buried."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
