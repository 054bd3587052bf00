from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeser.cli.main import main
from edgeser.runtime.audio import SAMPLE_RATE, load_audio
from edgeser.runtime.running_mean import RunningMean


@pytest.fixture(scope="module")
def talk(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, a second of silence after each."""
    quiet = np.zeros(SAMPLE_RATE, np.float32)
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, np.concatenate([load_audio(clips[2]), quiet, load_audio(clips[3]), quiet]), SAMPLE_RATE)
    return path


def test_a_line_for_each_utterance(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--wav", str(talk), "--asr", "pocketsphinx", "--engine", "onnxruntime"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "sad" in first
    assert "angry" in second
    assert "door" in first


def test_rows_for_programs(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--wav", str(talk), "--asr", "none", "--json", "--partial", "--engine", "onnxruntime"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in rows if not row["partial"]] == ["sad", "angry"]
    assert any(row["partial"] for row in rows)
    assert {row["words_from"] for row in rows} == {"off"}
    assert all(row["start_s"] < row["end_s"] for row in rows)
    assert sum(value for name, value in rows[0].items() if name.startswith("p_")) == pytest.approx(1, abs=1e-4)


def test_samples_from_a_pipe(talk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = talk.with_suffix(".pcm")
    (load_audio(talk) * 32767).round().astype("<i2").tofile(raw)
    with raw.open("rb") as pipe:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(pipe))
        assert main(["listen", "--pcm", "--asr", "none", "--engine", "onnxruntime"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_samples_of_any_kind(talk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = talk.with_suffix(".f32")
    np.repeat(load_audio(talk)[:, None], 2, axis=1).astype("<f4").tofile(raw)
    with raw.open("rb") as pipe:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(pipe))
        kind = ["--pcm", "--channels", "2", "--format", "float32", "--rate", "16000"]
        assert main(["listen", *kind, "--asr", "none", "--engine", "onnxruntime"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_file_piped_as_samples_is_refused(
    talk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with talk.open("rb") as pipe:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(pipe))
        assert main(["listen", "--pcm", "--asr", "none", "--engine", "onnxruntime"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert "standard input: begins like a file of type" in error
    assert "--wav" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "8000"], "--rate: got 8000 without --pcm"),
        (["--channels", "2", "--wav", "a.wav"], "--channels: got 2 without --pcm"),
        (["--format", "int32"], "--format: got int32 without --pcm"),
        (["--pcm", "--channels", "17"], "channels: got 17, expected 1 to 16"),
        (["--wav", "nothing.wav"], "nothing.wav: no such file"),
        (["--real-time"], "--real-time: got no --wav"),
        (["--pcm", "--rate", "100"], "100"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["listen", *arguments, "--asr", "none", "--engine", "onnxruntime"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_was_heard_is_kept_from_run_to_run(
    talk: Path, centered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "kitchen.state"
    command = ["listen", "--wav", str(talk), "--json", "--asr", "none", "--engine", "onnxruntime"]
    command += ["--bundle", str(centered), "--state", str(state)]
    answers = []
    for run in (1, 2):
        assert main(command) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        answers.append([row["p_sad"] for row in rows])
        assert RunningMean.load(state).count == 2 * run
    assert answers[0][0] != answers[1][0]


def test_ctrl_c_keeps_what_was_heard(talk: Path, centered: Path, tmp_path: Path) -> None:
    state = tmp_path / "kitchen.state"
    command = [sys.executable, "-m", "edgeser.cli.main", "listen", "--pcm", "--asr", "none", "--engine", "onnxruntime"]
    command += ["--bundle", str(centered), "--state", str(state)]
    raw = (load_audio(talk) * 32767).round().astype("<i2").tobytes()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(raw)
        process.stdin.flush()
        assert process.stdout.readline()
        assert not state.exists()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert RunningMean.load(state).count >= 1


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"nonsense", [], "is no state of a running mean, or damaged"),
        (None, ["--normalize", "none"], "with --normalize none, expected run: leave one out"),
        (None, ["--state", "missing/a.state"], "its folder does not exist"),
    ],
)
def test_states_that_cannot_be_used(
    content: bytes | None,
    options: list[str],
    message: str,
    talk: Path,
    centered: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = tmp_path / "kitchen.state"
    if content is not None:
        state.write_bytes(content)
    command = ["listen", "--wav", str(talk), "--asr", "none", "--engine", "onnxruntime", "--bundle", str(centered)]
    assert main([*command, "--state", str(state), *options]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert content is None or state.read_bytes() == content


def test_a_bundle_that_was_not_trained_for_it(talk: Path, uncentered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["listen", "--wav", str(talk), "--asr", "none", "--engine", "onnxruntime", "--normalize", "run"]
    assert main([*command, "--bundle", str(uncentered)]) == 2
    assert "uncentered.edgeser has no mean_prior" in capsys.readouterr().err
