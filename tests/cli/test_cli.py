"""The command as a user meets it: real processes for the device's commands, the whole way for the host's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeser.cli import evaluate
from edgeser.cli.main import COMMANDS, main
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import ENGINES
from edgeser.runtime.recognizer import default_bundle

BUNDLE = str(default_bundle())


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeser.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=300)


def one_line(error: str) -> bool:
    return error.startswith("edgeser: ") and error.count("\n") == 1


def test_demo_shows_words_bars_moments_and_time(clips: list[Path]) -> None:
    done = run("demo", clips[0], clips[1])
    assert done.returncode == 0, done.stderr
    for clip in clips[:2]:
        assert clip.name in done.stdout
    assert done.stdout.count("door.”\n") + done.stdout.count("*door.*”\n") == 2
    assert done.stdout.count("moments  ") == 2
    assert done.stdout.count("took     ") == 2
    assert done.stdout.count("←") == 2
    assert f"{clips[1].name}   “Dogs are sitting by the door.” acted happy\n" in done.stdout
    assert "the default model knows" not in done.stdout  # that is said of its own clips


def test_device_commands_load_no_torch(clip: Path) -> None:
    code = (
        "import sys; from edgeser.cli.main import main\n"
        f"status = main(['score', {str(clip)!r}, '--asr', 'none'])\n"
        "assert status == 0 and not {'torch', 'onnx', 'lightning'} & set(sys.modules), 'loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == clip.name


def test_score_a_corpus_prints_accuracies_and_writes_rows(corpus: str, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    done = run("score", "--corpus", corpus, "-o", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 8
    assert all(row["transcript"] and row["emotion"] for row in rows)
    right = sum(row["label"] == row["emotion"] for row in rows)
    assert f"WA {right / 8:.3f}" in done.stderr
    assert "(8 utterances)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sing"], "got command 'sing', expected one of demo"),
        (["score"], "score: expected either PATH or --corpus"),
        (["score", "gone.wav"], "gone.wav: no such file or folder"),
        (["score", "--corpus", "iemocap"], "corpus: got 'iemocap', expected manifest:PATH"),
        (["inspect", "gone.edgeser"], "gone.edgeser: no such bundle"),
        (["demo", "--bundle", "setup.py"], "setup.py: no such bundle"),
        (["evaluate", "gone"], "gone: is no run"),
        (["export", "gone", "-o", "x.edgeser"], "gone: expected a trained fold, or one run with one, found none"),
        (["train", "--corpus", "manifest:gone.csv", "--out", "r"], "gone.csv: no such manifest"),
        (["train", "--corpus", "manifest:gone.csv", "--out", "r", "--set", "keep"], "--set: got 'keep'"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert one_line(error), error
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"  edgeser {command}" in capsys.readouterr().out


def test_inspect_and_doctor_speak_json(capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["angry", "happy", "neutral", "sad"]
    assert main(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["engine onnxruntime"]["good"] is True
    assert checks["bundle"]["good"] is True


@pytest.mark.parametrize("json_too", [False, True])
@pytest.mark.parametrize("name", ["damaged.edgeser", "nosuch"])
def test_doctor_says_on_stderr_what_is_wrong_with_a_bundle(
    name: str, json_too: bool, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "damaged.edgeser").write_bytes(b"PK nonsense")
    assert main(["doctor", "--bundle", str(tmp_path / name), *(["--json"] if json_too else [])]) == 2
    out, error = capsys.readouterr()
    assert error.startswith(f"edgeser: {tmp_path / name}: ")
    assert error.count("\n") == 1
    bundle = [check for check in json.loads(out) if check["name"] == "bundle"] if json_too else []
    assert bundle[0]["good"] is False if json_too else "FAIL bundle" in out


def test_doctor_names_what_is_wrong(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeser.runtime.doctor._version", lambda name: None if name == "soxr" else "1")
    assert main(["doctor"]) == 1
    out, error = capsys.readouterr()
    assert "FAIL soxr" in out
    assert re.fullmatch(r"edgeser doctor: not as it should be: .*soxr.*\n", error)


def test_bench_measures_both_sides(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--json", "--calls", "5"]) == 0
    report = json.loads(capsys.readouterr().out)
    (engine,) = set(report["model"]) - {"pytorch eager"}
    assert engine in ENGINES
    ratio = report["model"]["pytorch eager"]["p50_ms"] / report["model"][engine]["p50_ms"]
    assert report["eager_over_engine_p50"] == pytest.approx(ratio)
    assert report["whole_path"]["p50_ms"] > 0


def test_from_corpus_to_bundle_and_back(
    wide_corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train, evaluate, export, inspect, evaluate: the bundle gives the accuracies that the run had."""
    monkeypatch.chdir(tmp_path)
    train = ["train", "--corpus", wide_corpus, "--threads", "1", "--set", "layers=[1,0,1]"]
    assert main([*train, "--out", "run", "--epochs", "2", "--sessions", "2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--json"]) == 0
    reached = json.loads(capsys.readouterr().out)
    assert main(["export", "run", "-o", "m.edgeser", "--evaluated", "run", "--corpus", wide_corpus]) == 2
    assert "expected at least 32" in capsys.readouterr().err
    assert main([*train, "--out", "all", "--epochs", "1", "--sessions", "none"]) == 0
    assert main(["export", "all", "-o", "m.edgeser", "--evaluated", "run"]) == 0
    assert Bundle.open("m.edgeser").manifest.metrics["leave one session out"]["ua"] == reached["ua"]
    assert f"UA {reached['ua']:.3f}" in Bundle.open("m.edgeser").read("README.md").decode()
    capsys.readouterr()
    assert main(["evaluate", "m.edgeser", "--corpus", wide_corpus, "--sessions", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["utterances"] == 20


def test_evaluate_a_bundle_draws_what_it_found(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "figures"
    assert main(["evaluate", BUNDLE, "--corpus", corpus, "--figures", str(folder), "--explain", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["utterances"] == 8
    names = ["answered.png", "confusion.png", "explanation-1.png", "explanation-2.png", "report.html", "sessions.png"]
    assert sorted(file.name for file in folder.iterdir()) == names
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5
    assert f"edgeser evaluate {BUNDLE} --corpus {corpus} --figures {folder} --explain 2</pre>" in page
    assert "true: angry" in page
    assert "true: happy" in page


def test_evaluate_a_run_draws_its_held_out_sessions(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    header = "id,session,emotion,label,p_angry,p_happy,p_neutral,p_sad\n"
    for session, label in (("1", "angry"), ("2", "sad")):
        fold = tmp_path / "run" / f"fold-{session}"
        fold.mkdir(parents=True)
        (fold / "predictions.csv").write_text(f"{header}a,{session},angry,{label},1,0,0,0\n")
    (tmp_path / "run" / "run.json").write_text("{}")
    assert main(["evaluate", "run", "--figures", "out/figures"]) == 0
    assert "mean     0.500  0.500" in capsys.readouterr().out
    files = sorted(file.name for file in (tmp_path / "out" / "figures").iterdir())
    assert files == ["answered.png", "confusion.png", "report.html", "sessions.png"]
    page = (tmp_path / "out" / "figures" / "report.html").read_text(encoding="utf-8")
    assert "held-out session" in page
    assert "<pre>edgeser evaluate run --figures out/figures</pre>" in page
    assert main(["evaluate", "run", "--figures", "new", "--explain", "1"]) == 2
    error = capsys.readouterr().err
    assert one_line(error), error
    assert "--explain: run is a run, expected a bundle" in error
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explain", "3"], "--explain: got 3 without --figures"),
        (["--figures", "file"], "file is a file, expected a folder"),
        (["--figures", "file/below"], "file is a file, expected a folder"),
    ],
)
def test_figures_that_cannot_be_drawn_are_refused_before_the_work(
    arguments: list[str],
    message: str,
    corpus: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(evaluate, "evaluate_bundle", lambda _: pytest.fail("the work was done"))
    assert main(["evaluate", BUNDLE, "--corpus", corpus, *arguments]) == 2
    error = capsys.readouterr().err
    assert one_line(error), error
    assert message in error
    assert (tmp_path / "file").read_text() == "mine"
