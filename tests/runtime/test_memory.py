"""Processes that may take little memory: an answer, or one line that says what needs less."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgeser.runtime.errors import EngineError, InputError
from edgeser.runtime.memory import NEEDS, is_too_much, memory_errors, room

LIMITS = (250, 400, 600)
CHOICES = [
    ["--engine", "onnxruntime", "--asr", "none"],
    ["--engine", "onnxruntime", "--asr", "pocketsphinx"],
    ["--asr", "auto"],
    ["--engine", "openvino", "--asr", "none"],
]


def limited(megabytes: int, *command: str) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 1_000_000, megabytes * 1_000_000))

    program = "import sys; from edgeser.cli.main import main; sys.exit(main(sys.argv[1:]))"
    call = [sys.executable, "-c", program, *command]
    return subprocess.run(
        call,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=limit,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": "/nonexistent"},
    )


@pytest.mark.parametrize(
    ("megabytes", "choice"),
    # Between what is too little to begin and what is enough, a library in C, one in Rust and the loader fail.
    [*itertools.product(LIMITS, CHOICES), *((limit, CHOICES[0]) for limit in (254, 262, 268, 280, 296))],
    ids=lambda value: str(value) if isinstance(value, int) else " ".join(value),
)
def test_an_answer_or_one_line(megabytes: int, choice: list[str], clip: Path) -> None:
    """Ended in MemoryError, ImportError, or PocketSphinx's own exit with status 255."""
    if "openvino" in choice:
        pytest.importorskip("openvino", reason="openvino is not installed")
    done = limited(megabytes, "demo", str(clip), *choice)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1), done.stderr
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.startswith("edgeser: ")]
        assert len(last) == 1, done.stderr
        assert "--asr none" in last[0]
        assert "memory" in last[0] or "address space" in last[0]
    else:
        assert "\u2190" in done.stdout


def test_what_needs_least_runs_in_400_mb(clip: Path) -> None:
    done = limited(400, "demo", str(clip), *CHOICES[0])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("megabytes", "word"), [(250, "FAIL memory"), (600, "ok   memory")])
def test_doctor_says_so_beforehand(megabytes: int, word: str) -> None:
    done = limited(megabytes, "doctor")
    line = next(line for line in done.stdout.splitlines() if "memory" in line)
    assert line.startswith(word), done.stderr
    assert f"openvino: needs about {NEEDS['openvino'].address} MB of address space" in line or megabytes == 250
    assert "may take" in line


def test_room_without_a_limit() -> None:
    address, resident = room()
    assert address is None or address > 0
    assert resident is not None
    assert resident > 0
    assert is_too_much("tensorrt") == ""


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("Unable to allocate 2.02 MiB")])
def test_errors_for_want_of_memory(error: Exception) -> None:
    expected = r"^not enough memory \(.*--engine onnxruntime with --asr none needs"
    with pytest.raises(EngineError, match=expected), memory_errors():
        raise error


@pytest.mark.parametrize(
    "error", [EngineError("refuses the graph: opset 99"), InputError("a"), OSError("gone"), KeyError(1)]
)
def test_other_errors_stay(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory_errors():
        raise error
    assert caught.value is error
