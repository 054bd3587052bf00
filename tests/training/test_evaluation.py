"""Temperatures of runs whose confidence is known."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgeser.runtime.errors import InputError
from edgeser.training.evaluation import temperature


def write_run(folder: Path, sharpness: float) -> Path:
    """Write predictions whose logits are `sharpness` times those that the emotions were drawn by."""
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.standard_normal((4000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    said = np.exp(sharpness * logits) / np.exp(sharpness * logits).sum(axis=1, keepdims=True)
    labels = ("angry", "happy", "sad")
    for fold, part in enumerate(np.array_split(np.arange(4000), 2)):
        place = folder / f"fold-{fold}"
        place.mkdir(parents=True)
        with (place / "predictions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "session", "emotion", "label", *(f"p_{label}" for label in labels)])
            for i in part:
                emotion = labels[rng.choice(3, p=chances[i])]
                writer.writerow([i, fold, emotion, labels[said[i].argmax()], *(f"{p:.6f}" for p in said[i])])
    return folder


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.0])
def test_temperature_undoes_over_and_under_confidence(tmp_path: Path, sharpness: float) -> None:
    assert temperature(write_run(tmp_path / "run", sharpness)) == pytest.approx(sharpness, rel=0.1)


def test_a_run_without_predictions_has_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no fold with predictions"):
        temperature(tmp_path)


@pytest.mark.parametrize("name", ["test-only", "all"])
def test_what_may_only_be_tested_on_chooses_no_temperature(tmp_path: Path, name: str) -> None:
    run, other = write_run(tmp_path / "run", 1.0), write_run(tmp_path / "other", 4.0)
    (other / "fold-0").rename(run / f"fold-{name}")
    assert temperature(run) == pytest.approx(1.0, rel=0.1)
    for fold in ("fold-0", "fold-1"):
        shutil.rmtree(run / fold)
    with pytest.raises(InputError, match="held out some of its own"):
        temperature(run)
