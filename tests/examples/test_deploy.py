from __future__ import annotations

import argparse
import configparser
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeser.cli import listen

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "deploy" / "edgeser-listen.service"
DOCKERFILE = ROOT / "deploy" / "Dockerfile.l4t"


def command() -> list[str]:
    line = next(line for line in SERVICE.read_text(encoding="utf-8").splitlines() if line.startswith("ExecStart="))
    return shlex.split(line.removeprefix("ExecStart="))


def test_the_service_runs_a_command_that_exists() -> None:
    program, name, *options = command()
    assert (Path(program).name, name) == ("edgeser", "listen")
    parser = argparse.ArgumentParser()
    listen.add_arguments(parser)
    args = parser.parse_args(options)
    assert (args.json, args.metrics) == (True, 9108)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("check", [["verify"], ["security", "--offline=true", "--threshold=20"]])
def test_systemd_accepts_the_service(tmp_path: Path, check: list[str]) -> None:
    unit = tmp_path / SERVICE.name
    unit.write_text(SERVICE.read_text(encoding="utf-8").replace(command()[0], sys.executable), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", *check, str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is too old to check security offline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr  # what it does not know it ignores, with a warning


def lines(keyword: str) -> list[list[str]]:
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split()[1:] for line in text.splitlines() if line.startswith(f"{keyword} ")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of what the image copies, installed into a folder."""
    folder = tmp_path_factory.mktemp("image")
    context = folder / "src"
    context.mkdir()
    for *sources, target in (words for words in lines("COPY") if not words[0].startswith("--")):
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, context / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, context / target)
    build = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*build, "--target", str(folder / "site"), str(context)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_what_the_image_copies_is_enough_to_build_the_package(installed: Path) -> None:
    for name in ("cli/listen.py", "runtime/recognizer.py", "pretrained/default.edgeser"):
        assert (installed / "edgeser" / name).is_file()


def test_the_wheel_has_the_clips_and_its_demo_reads_them(installed: Path, clips: list[Path], tmp_path: Path) -> None:
    (wheel,) = importlib.metadata.distributions(path=[str(installed)])
    files = {str(file) for file in wheel.files or ()}
    assert {f"edgeser/clips/{name}" for name in ("README.md", *(clip.name for clip in clips))} <= files
    command = ["demo", "--engine", "onnxruntime", "--asr", "none", "--no-self-test"]
    code = (
        f"import edgeser; from edgeser.cli.main import main; print(edgeser.__file__); raise SystemExit(main({command}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == str(installed / "edgeser" / "__init__.py")
    assert [line.split()[0] for line in lines if ".flac" in line] == [clip.name for clip in clips]
    assert sum(line.endswith("\u2190") for line in lines) == 4


def test_the_image_names_extras_that_exist_and_a_base_of_jetpack_6() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = re.search(r"'\.\[([a-z,]+)\]'", DOCKERFILE.read_text(encoding="utf-8"))
    assert extras
    assert set(extras[1].split(",")) <= set(setup["options.extras_require"])
    assert re.fullmatch(r"BASE=nvcr\.io/nvidia/l4t-jetpack:r36\.\d+\.\d+", lines("ARG")[0][0])
