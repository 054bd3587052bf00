"""A disk without room, a real one: every command that writes says so in one line, and what was there stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from edgeser.cli.main import main
from edgeser.training.options import TrainOptions
from edgeser.training.recipe import Recipe
from edgeser.training.train import train


@pytest.fixture(scope="module")
def run(wide_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained fold."""
    out = tmp_path_factory.mktemp("trained") / "run"
    train(TrainOptions(wide_corpus, out, protocol="all", recipe=Recipe(epochs=1, batch_size=8)))
    return out


def fill(disk: Path, room_kb: int) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(b"")
    spare = shutil.disk_usage(disk).free - room_kb * 1024
    ballast.write_bytes(b"x" * spare)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("edgeser: ")
    assert "make room" in line
    return line


@pytest.mark.parametrize("name", ["model.edgeser", "new/model"])
def test_export(
    name: str,
    run: Path,
    wide_corpus: str,
    disk: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import edgeser.export_tools.export as module

    place = disk(4096)
    (place / "model.edgeser").write_text("an older one")
    fill(place, 100)
    command = ("export", run / "fold-all", "--corpus", wide_corpus, "--utterances", 32, "-o", place / name)
    with monkeypatch.context() as patch:
        patch.setattr(module, "lower", lambda *_: pytest.fail("worked before it asked for room"))
        assert f"{place / name}: needs" in refused(capsys, *command)
    monkeypatch.setattr(module, "check_room", lambda *_: None)
    monkeypatch.setattr("edgeser.runtime.bundle.check_room", lambda *_: None)  # it fills up meanwhile
    assert "No space left on device" in refused(capsys, *command)
    assert sorted(path.name for path in place.iterdir()) == ["ballast", "model.edgeser"]
    assert (place / "model.edgeser").read_text() == "an older one"


def test_calibrate(
    exported: Callable[..., Any],
    wide_corpus: str,
    disk: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import edgeser.calibration.calibrate as module

    bundle, _ = exported()
    place = disk(4096)
    fill(place, 50)
    monkeypatch.setattr(module, "observe", lambda *_: pytest.fail("worked before it asked for room"))
    out = place / "model.int8.edgeser"
    assert f"{out}: needs" in refused(capsys, "calibrate", bundle.path, "--corpus", wide_corpus, "-o", out)
    assert [path.name for path in place.iterdir()] == ["ballast"]


def test_figures_and_tables(
    run: Path, corpus: str, disk: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = disk(2048)
    fill(place, 8)
    cross = tmp_path / "run"
    train(TrainOptions(corpus, cross, folds=("1",), recipe=Recipe(epochs=1, batch_size=8)))
    refused(capsys, "evaluate", cross, "--figures", place / "new" / "figures")
    text = f'title = "A"\ncorpus = "{corpus}"\n[recipe]\nepochs = 1\n[[rows]]\nname = "one"\n'
    (tmp_path / "table.toml").write_text(text)
    refused(capsys, "experiment", tmp_path / "table.toml", "--out", place / "new" / "table")
    assert [path.name for path in place.iterdir()] == ["ballast"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "RUN", "-o"),
        ("calibrate", "BUNDLE", "--corpus", "CORPUS", "-o"),
        ("train", "--corpus", "CORPUS", "--out"),
        ("evaluate", "RUN", "--figures"),
        ("export-encoder", "minilm-l6-v2", "-o"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_place_that_cannot_be_written_to_is_refused_first(
    arguments: tuple[str, ...],
    run: Path,
    exported: Callable[..., Any],
    wide_corpus: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = {"RUN": str(run), "BUNDLE": str(exported()[0].path), "CORPUS": wide_corpus}
    command = [known.get(argument, argument) for argument in arguments]
    (tmp_path / "file").write_text("mine")
    suffix = ".edgeser" if arguments[-1] == "-o" and arguments[0] != "export-encoder" else ""
    for place in (tmp_path / f"{'x' * 300}{suffix}", tmp_path / "file" / f"below{suffix}"):
        assert main([*command, str(place)]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"edgeser: {place}: "), line
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
