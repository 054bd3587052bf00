"""`--corpus` more than once, as every command that reads a corpus takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeser.cli.main import main
from edgeser.runtime.bundle import Bundle
from edgeser.training.trained import TrainedModel


@pytest.fixture
def both(corpus: str, voices: str) -> list[str]:
    return ["--corpus", corpus, "--corpus", f"{voices}?role=train"]


def test_corpus_counts_all_of_them(corpus: str, voices: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["corpus", corpus, f"{voices}?role=train", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["corpus"] == [corpus, f"{voices}?role=train"]
    assert report["utterances"] == 12
    assert {name: sum(row.values()) for name, row in report["corpora"].items()} == {"corpus0": 8, "nemo": 4}
    assert {name: sum(row.values()) for name, row in report["languages"].items()} == {"pl": 4, "unknown": 8}
    assert main(["corpus", corpus, f"{voices}?role=train"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[2] == ["corpus", "angry", "happy", "neutral", "sad", "total"]
    assert rows[4] == ["nemo", "1", "1", "1", "1", "4"]
    assert ["pl", "1", "1", "1", "1", "4"] in rows


def test_train_evaluate_and_export_on_two(
    corpus: str, voices: str, both: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, bundle = tmp_path / "run", tmp_path / "b.edgeser"
    small = ["--epochs", "1", "--batch-size", "4", "--modalities", "audio", "--folds", "1"]
    assert main(["train", *both, "--out", str(run), *small]) == 0
    trained = TrainedModel.load(run / "fold-1")
    assert trained.training["corpus"] == [corpus, f"{voices}?role=train"]
    assert main(["train", *both, "--out", str(run), *small]) == 0  # it is the same run
    capsys.readouterr()
    assert main(["train", "--corpus", corpus, "--corpus", voices, "--out", str(run), *small]) == 2
    assert "holds a run with other corpus: choose another --out" in capsys.readouterr().err
    assert main(["export", str(run), *both, "-o", str(bundle), "--utterances", "32"]) == 2
    assert "the corpus gives 4 utterances, expected at least 32" in capsys.readouterr().err
    assert main(["evaluate", str(bundle.parent / "run"), *both]) == 2
    assert "it has its predictions already" in capsys.readouterr().err


def test_a_bundle_of_two_names_both(
    wide_corpus: str, voices: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, bundle = tmp_path / "run", tmp_path / "b.edgeser"
    both = ["--corpus", wide_corpus, "--corpus", f"{voices}?role!=test"]
    command = ["train", *both, "--out", str(run), "--epochs", "1", "--modalities", "audio", "--protocol", "all"]
    assert main(command) == 0
    assert main(["export", str(run), "-o", str(bundle), "--utterances", "32"]) == 0
    found = Bundle.open(bundle).manifest.provenance["corpus"]
    assert [one["reader"] for one in found["corpora"]] == ["manifest", "manifest"]
    assert found["name"].endswith("voices0?role!=test")
    capsys.readouterr()
    assert main(["evaluate", str(bundle), "--corpus", f"{voices}?role=train", "--corpus", f"{voices}?role=test"]) == 0
    assert "(8 utterances)" in capsys.readouterr().out
    assert main(["evaluate", str(bundle), "--corpus", f"{voices}?role=test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["utterances"] == 4


def test_score_reads_two(both: list[str], tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    assert main(["score", *both, "-o", str(out), "--no-self-test"]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == 12


def test_an_experiment_names_several(
    corpus: str, voices: str, both: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "t.toml"
    rows = '[options]\nmodalities = ["audio"]\n[[rows]]\nname = "a"\n'
    file.write_text(f'title = "T"\ncorpus = ["{corpus}", "{voices}?role=train"]\n{rows}', encoding="utf-8")
    command = ["experiment", str(file), "--out", str(tmp_path / "out"), "--dry-run"]
    for more in ([], both):
        assert main([*command, *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("T: corpus0, voices0?role=train, 12 utterances, SHA-256 ")
        assert lines[-1] == "3 of 3 folds to train"
    for wrong in ("[]", "[1]", "3"):
        file.write_text(f'title = "T"\ncorpus = {wrong}\n{rows}', encoding="utf-8")
        assert main(command) == 2
        assert "corpus" in capsys.readouterr().err
