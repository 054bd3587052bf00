"""`--answered` and what commands say of confidence, with real bundles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgeser.cli.main import main
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.labels import UNSURE

FAST = ("--engine", "onnxruntime", "--asr", "none")


@pytest.mark.parametrize(
    "command",
    [
        ("demo",),
        ("score",),
        ("score", "--workers", "1"),
        ("listen", "--wav"),
        ("serve", "--port", "0", "--wav"),
    ],
)
def test_a_bundle_without_a_table_refuses_a_share(
    command: tuple[str, ...], uncentered: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(clip), *FAST, "--bundle", str(uncentered), "--answered", "0.8"]) == 2
    error = capsys.readouterr().err
    assert "has no confidence table, expected 1" in error
    assert error.count("\n") == 1


def test_demo_and_listen_say_how_far_to_trust(
    confident: Path, clips: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*FAST, "--bundle", str(confident), "--answered", "0.05"]
    assert main(["demo", *map(str, clips), *options]) == 0
    shown = capsys.readouterr().out
    assert shown.count("probability, for a voice that was never heard") == 4
    assert f"never heard: {UNSURE}" in shown
    assert main(["listen", "--wav", str(clips[0]), *options]) == 0
    assert "  right " in capsys.readouterr().out
    assert main(["inspect", str(confident)]) == 0
    assert "confidence measured on 40 of clips, unheard" in capsys.readouterr().out


def test_score_leaves_what_is_unsure_out_of_accuracies(
    confident: Path, wide_corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    options = ["--corpus", wide_corpus, *FAST[:2], "--bundle", str(confident), "-o", str(out), "--workers", "1"]
    assert main(["score", *options, "--answered", "0.5"]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    unsure = sum(row["label"] == UNSURE for row in rows)
    assert unsure == pytest.approx(20, abs=1)
    error = capsys.readouterr().err
    assert f"{UNSURE} about {unsure} of 40, which are left out" in error
    assert f"({40 - unsure} utterances)" in error


def test_evaluate_says_what_sureness_buys(
    confident: Path, wide_corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(confident), "--corpus", wide_corpus]
    assert main([*command, "--json", "--figures", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)["confidence"]
    error = found["calibration_error"]
    assert error["after"]["mean"] < max(0.05, error["before"]["mean"])  # on the very clips that it was fitted to
    accuracy = found["accuracy_by_share_answered"]
    assert list(accuracy) == ["1", "0.9", "0.8", "0.7", "0.6", "0.5", "0.4"]
    assert accuracy["0.4"] >= accuracy["1"]
    assert (tmp_path / "answered.png").read_bytes().startswith(b"\x89PNG")


def test_an_adapted_bundle_has_no_table_any_more(
    confident: Path, own_voice: Callable[[Path, Mapping[str, str]], str], tmp_path: Path
) -> None:
    corpus = own_voice(tmp_path, {"angry": "happy", "happy": "angry"})
    out = tmp_path / "mine.edgeser"
    assert main(["adapt", str(confident), "--corpus", corpus, "-o", str(out), "--engine", "onnxruntime"]) == 0
    assert Bundle.open(out).manifest.confidence is None


def test_export_takes_temperature_and_table_from_corpora_that_were_not_heard(
    wide_corpus: str, voices: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From train to score; what may only be tested on has no say."""
    small = ["--epochs", "1", "--modalities", "audio", "--recipe", "mean_prior=2", "--corpus", wide_corpus]
    final, unseen, bundle = tmp_path / "final", tmp_path / "unseen", tmp_path / "b.edgeser"
    ours = ["--corpus", f"{voices}?role=train"]
    assert main(["train", *small, *ours, "--out", str(final), "--protocol", "all"]) == 0
    protocol = ["--protocol", "leave-one-corpus-out"]
    assert main(["train", *small, "--corpus", voices, "--out", str(unseen), *protocol]) == 0
    assert (unseen / "fold-test-only" / "predictions-run.csv").is_file()
    command = ["export", str(final), "-o", str(bundle), "--utterances", "32"]
    assert main([*command, "--unseen", str(final)]) == 2
    assert "is a run of all, expected leave-one-corpus-out" in capsys.readouterr().err
    assert not bundle.exists()
    assert main([*command, "--unseen", str(unseen)]) == 0
    opened = Bundle.open(bundle)
    confidence, card = opened.manifest.confidence, opened.read("README.md").decode()
    assert confidence is not None
    assert confidence.corpora == {"wide0": 40, "nemo": 4}
    assert set(confidence.states) == {"cold", "run"}
    assert opened.manifest.provenance["temperature"] != 1.0
    assert "40 utterances of wide0" in card
    capsys.readouterr()
    options = ["--bundle", str(bundle), *FAST, "--answered", "0.5", "--normalize", "run"]
    assert main(["score", "--corpus", wide_corpus, *options]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(0.0 <= row["confidence"] <= 1.0 for row in rows)
