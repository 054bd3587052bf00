"""The GPU benchmark, as far as it goes without a GPU: its arguments, its table, and its end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from edgeser.export_tools.plugins.launches import AttentionProblem, DropProblem

FOLDER = Path(__file__).parents[3] / "benchmarks" / "gpu"


@pytest.fixture(scope="module")
def benchmark(load_benchmark: Callable[[Path], ModuleType]) -> ModuleType:
    return load_benchmark(FOLDER / "kernels.py")


def test_arguments(benchmark: ModuleType) -> None:
    options = benchmark.parse([])
    assert options == benchmark.Options(
        (1, 2, 4, 8, 16, 32, 64), 460, 8, 64, 0.5, None, ("float32", "float16"), 50, True, None
    )
    given = (
        "--batches 1,64 --length 230 --heads 4 --dim 32 --keep-rate 0.25 --offsets 0,2 --dtypes float16 --repeats 7 "
        "--no-graph -o x"
    )
    options = benchmark.parse(given.split())
    assert options == benchmark.Options((1, 64), 230, 4, 32, 0.25, (0, 2), ("float16",), 7, False, Path("x"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--batches 1,0", "got 0, expected at least 1"),
        ("--batches one", "invalid"),
        ("--dtypes int8", "got int8, expected float32 or float16"),
        ("--keep-rate 0", "got 0.0, expected above 0"),
        ("--length -1", "got -1, expected at least 1"),
    ],
)
def test_bad_arguments(arguments: str, message: str, benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.parse(arguments.split())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_report(benchmark: ModuleType) -> None:
    options = benchmark.parse(["--dim", "32", "--no-graph"])
    checks = [benchmark.Check("float32", 20, 3e-6, 2e-7), benchmark.Check("float16", 460, 5e-3, 1e-4)]
    times = {"fused": 0.05, "eager": 0.2, "compile": 0.1, "dense": 0.04}
    timings = [benchmark.Timing("float16", 8, times)]
    text = benchmark.report("A GPU", options, checks, timings)
    assert text.splitlines() == [
        "## Key-sparse attention on A GPU",
        "",
        "8 heads of 32, keep rate 0.5. Errors are relative to the largest value.",
        "",
        "| type | length | error of context | of importance | tolerance | |",
        "|---|---:|---:|---:|---:|---|",
        "| float32 | 20 | 3.0e-06 | 2.0e-07 | 1e-05 | right |",
        "| float16 | 460 | 5.0e-03 | 1.0e-04 | 2e-03 | WRONG |",
        "",
        "Length 460, median of 50 calls; peers as multiples of the kernels' time.",
        "",
        "| type | batch | kernels, ms | eager | compile | dense | dense masked |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| float16 | 8 | 0.0500 | 4.00 | 2.00 | 0.80 | failed |",
    ]
    lines = benchmark.report("A GPU", benchmark.parse(["--offsets", "0,1,3"]), checks, timings).splitlines()
    assert lines[0] == "## Drop attention on A GPU"
    assert lines[2].startswith("8 heads of 64, keep rate 0.5, offsets 0, 1, 3. Errors")
    assert not benchmark.Check("float32", 1, float("nan"), 0.0).is_right


def test_problems(benchmark: ModuleType) -> None:
    """Key-sparse attention, and with offsets drop attention; one key at least is kept."""
    given = benchmark.problem(2, 20, benchmark.parse(["--keep-rate", "0.1"]), "float16")
    assert given == AttentionProblem(2, 8, 20, 20, 64, 2, 0.125, True)
    given = benchmark.problem(2, 1, benchmark.parse(["--offsets", "0,2"]), "float32")
    assert given == DropProblem(2, 8, 1, 1, 64, 1, 0.125, False, (0, 2))


def test_no_gpu(benchmark: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main([]) == 2
    assert "sees no CUDA GPU" in capsys.readouterr().err


def test_run_hands_arguments_on(tmp_path: Path) -> None:
    """With a Python that says what it was asked: tests, engines, and the benchmark, which gives the status."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\ncase "$1" in benchmarks*) exit 7;; esac\n')
    python.chmod(0o755)
    done = subprocess.run(
        [str(FOLDER / "run.sh"), "--batches", "1"],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    tests, engines, kernels = done.stdout.splitlines()[-3:]
    assert tests.startswith("-m pytest -m gpu -rs tests/export_tools/plugins ")
    assert engines == "-m edgeser.cli.main selftest --json selftest.json"
    assert kernels == "benchmarks/gpu/kernels.py --batches 1"
