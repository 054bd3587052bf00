"""The robustness table, of the shipped bundle on real clips."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROBUSTNESS = Path(__file__).parents[2] / "benchmarks" / "robustness.py"


@pytest.fixture
def noise(clips: list[Path], tmp_path: Path) -> str:
    with (tmp_path / "noise.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("id", "audio", "kind"))
        rows.writerows((f"n{i}", clips[i % 4], "rain" if i % 2 else "room") for i in range(20))
    return f"manifest:{tmp_path / 'noise.csv'}"


def _table(*arguments: str) -> dict[str, list[str]]:
    command = [sys.executable, str(ROBUSTNESS), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"`python {ROBUSTNESS}" in done.stdout
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in rows if not row[0].startswith("-")}


def test_a_table_of_every_corpus_and_condition_asked_for(voices: str, noise: str) -> None:
    table = _table("--corpus", voices, "--noise", noise, "--only", "noise", "peak at 0", "first 0.5")
    assert table["condition"][:4] == ["nemo", "tess", "mean", "95 % over speakers"]
    expected = ["clean", "noise, 20 dB", "noise, 10 dB", "noise, 5 dB", "noise, 0 dB", "peak at 0 dBFS", "first 0.5 s"]
    assert list(table)[1:] == expected
    for row in list(table.values())[1:]:
        accuracies = [float(cell) for cell in row[:3]]
        assert all(0.0 <= one <= 1.0 for one in accuracies)
        assert accuracies[2] == pytest.approx(sum(accuracies[:2]) / 2, abs=1e-3)
    assert float(table["clean"][2]) == 1.0  # the shipped bundle gets its four clips right
    assert table["clean"][3] == "1.000\u20131.000"
    assert re.fullmatch(r"[+-]\d+\.\d", table["noise, 0 dB"][4])


def test_a_subset_is_balanced_and_the_same_each_time(voices: str, noise: str) -> None:
    both = [_table("--corpus", voices, "--noise", noise, "--clips", "4", "--only", "first 1 s") for _ in range(2)]
    assert both[0] == both[1]


def test_the_mean_of_a_condition_is_taken_out_where_the_model_knows_it(
    voices: str, noise: str, centered: Path, uncentered: Path
) -> None:
    asked = ("--corpus", voices, "--noise", noise, "--only", "peak at -40")
    cold, warm = (_table(str(centered), *asked, "--normalize", how) for how in ("none", "run"))
    assert list(cold) == list(warm)
    shipped = subprocess.run(
        [sys.executable, str(ROBUSTNESS), str(uncentered), *asked, "--normalize", "run"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert shipped.returncode != 0
    assert "mean_prior" in shipped.stderr
