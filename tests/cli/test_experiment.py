"""`edgeser experiment` as a user meets it; what training gives is in tests/experiments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeser.cli.main import main

TABLE = """
title = "Words"
corpus = "manifest:gone.csv"
published_on = "IEMOCAP"
[options]
modalities = ["text"]
[recipe]
epochs = 1
[[rows]]
name = "key-sparse"
published = { UA = 0.753 }
[[rows]]
name = "dense"
variant = "dense attention"
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("table.toml").write_text(TABLE, encoding="utf-8")


def test_a_dry_run_names_the_jobs_and_trains_nothing(corpus: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["experiment", "table.toml", "--out", "out", "--corpus", corpus, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Words: manifest:manifest.csv, 8 utterances, SHA-256 ")
    assert [line.split()[:5] for line in lines[2:6]] == [
        [row, "seed", "1", "fold", fold] for row in ("key-sparse", "dense") for fold in "12"
    ]
    assert lines[-1] == "4 of 4 folds to train"
    command = ["experiment", "table.toml", "--out", "out", "--corpus", corpus, "--rows", "dense", "--dry-run", "--json"]
    assert main(command) == 0
    jobs = json.loads(capsys.readouterr().out)
    assert [(job["row"], job["fold"], job["done"]) for job in jobs] == [("dense", "1", False), ("dense", "2", False)]
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.toml"], "gone.toml: no such file, expected a TOML file"),
        (["table.toml"], "gone.csv: no such manifest"),
        (["table.toml", "--corpus", "sound:x"], "corpus: got 'sound:x', expected manifest:PATH"),
        (["bad.toml"], "bad.toml: row 'dense': variant: got 'denser', expected one of dense attention"),
        (["table.toml", "--rows", "x", "--corpus", "CORPUS"], "rows: got x, expected some of key-sparse, dense"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str], message: str, corpus: str, capsys: pytest.CaptureFixture
) -> None:
    Path("bad.toml").write_text(TABLE.replace('"dense attention"', '"denser"'), encoding="utf-8")
    command = [corpus if argument == "CORPUS" else argument for argument in arguments]
    assert main(["experiment", *command, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("edgeser: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("out").exists()


def test_an_out_that_is_a_file_is_refused_before_training(corpus: str, capsys: pytest.CaptureFixture) -> None:
    Path("out").write_text("mine")
    assert main(["experiment", "table.toml", "--out", "out", "--corpus", corpus]) == 2
    assert "out is a file, expected a folder" in capsys.readouterr().err
