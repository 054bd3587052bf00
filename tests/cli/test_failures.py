"""What the operating system refuses, in real processes: one line and a status, for every command that can meet it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgeser.cli import doctor
from edgeser.cli.main import COMMANDS, main

PROGRAM = [sys.executable, "-m", "edgeser.cli.main"]
LONG = "x" * 300


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["inspect", "--json"], ["train", "--help"]])
def test_a_reader_that_has_gone_is_no_error(arguments: list[str]) -> None:
    """As `edgeser score --help | head -1` has it: here the reader has gone before the first byte."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["inspect", "--json"], ["doctor"]])
def test_a_full_stdout_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("edgeser: ")
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_closed_stdout_is_no_traceback() -> None:
    done = subprocess.run(
        [*PROGRAM, "inspect"],
        stdout=None,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: os.close(1),
    )
    assert "Traceback" not in done.stderr


READERS = {
    "adapt": ["adapt", "m.edgeser", "--corpus", f"manifest:{LONG}", "-o", "q.edgeser"],
    "demo": ["demo", LONG],
    "score": ["score", LONG],
    "inspect": ["inspect", LONG],
    "bench": ["bench", LONG],
    "corpus": ["corpus", f"manifest:{LONG}"],
    "train": ["train", "--corpus", f"manifest:{LONG}", "--out", "q"],
    "experiment": ["experiment", LONG, "--out", "q"],
    "evaluate": ["evaluate", LONG],
    "export": ["export", LONG, "-o", "q.edgeser"],
    "export-encoder": ["export-encoder", LONG, "-o", "q"],
    "build": ["build", LONG, "--target", "tensorrt"],
    "calibrate": ["calibrate", LONG, "--corpus", "manifest:gone.csv", "-o", "q.edgeser"],
    "listen": ["listen", "--wav", LONG],
    "serve": ["serve", "--wav", LONG],
    "doctor": ["doctor", "--bundle", LONG],
    "selftest": ["selftest", LONG],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_is_too_long_is_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(READERS[command])
    except SystemExit as left:
        status = int(str(left.code))
    shown = capsys.readouterr()
    assert status in (1, 2)
    assert LONG in shown.err + shown.out
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_may_not_grow_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """A quota; `ulimit -f` in a shell."""
    done = run(
        "score",
        "--corpus",
        "manifest:gone.csv",
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)),
    )
    assert done.returncode == 2
    assert done.stderr == "edgeser: gone.csv: no such manifest\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (OSError(28, "No space left on device", "/disk/x"), 1, "/disk/x: No space left on device: make room"),
        (PermissionError(13, "Permission denied", "/root/x"), 2, "/root/x: Permission denied: choose another place"),
        (OSError(5, "Input/output error"), 1, "Input/output error: see to it"),
        (OSError("sndfile library not found"), 1, "sndfile library not found: see to it"),
        (MemoryError("Unable to allocate 4.0 GiB"), 1, "doctor: not enough memory (Unable to allocate 4.0 GiB)"),
        (UnicodeEncodeError("ascii", "é", 0, 1, "no"), 2, r"got the characters '\xe9', which ascii has no code for"),
    ],
)
def test_errors_of_the_machine_are_one_line(
    error: Exception, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(doctor, "run", fail)
    assert main(["doctor"]) == status
    shown = capsys.readouterr().err
    assert shown.startswith(f"edgeser: {line}"), shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), RecursionError("maximum recursion depth exceeded")])
def test_a_fault_of_ours_shows_where_it_is(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(doctor, "run", fail)
    with pytest.raises(type(error)):
        main(["doctor"])


def test_a_name_that_the_terminal_cannot_show_is_escaped(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / "m.csv").write_text(f"id,audio,emotion\na,{clip},sad\n")
    done = run("corpus", f"manifest:{folder / 'm.csv'}")
    assert done.returncode == 0, done.stderr
    assert r"\udcff/m.csv   1 utterances" in done.stdout
