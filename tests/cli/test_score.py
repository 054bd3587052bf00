"""`edgeser score` as a process that is killed, stopped and started again."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgeser.cli.main import main
from edgeser.runtime.audio import load_audio
from edgeser.runtime.errors import InputError
from edgeser.runtime.recognizer import Runtime
from edgeser.runtime.scoring import journal_path

COUNT = 40
FAST = ("--engine", "onnxruntime", "--asr", "none", "--batch-size", "2")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "edgeser.cli.main", "score", *map(str, arguments), *FAST]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=300)


def said(file: Path) -> str:
    """What is said of a file that is no audio."""
    with pytest.raises(InputError, match="not readable as audio") as raised:
        load_audio(file)
    return str(raised.value)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def kept(out: Path) -> dict[str, Mapping[str, Any]]:
    """Rows in the journal of an output file, by id; a last line that is not whole is none."""
    journal = journal_path(out)
    whole = journal.read_bytes().rpartition(b"\n")[0].splitlines()[1:] if journal.exists() else []
    return {row["id"]: row for row in (json.loads(line)["row"] for line in whole)}


@pytest.fixture(scope="module")
def snippets(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A corpus of 40 stretches of 0.4 s."""
    file = tmp_path_factory.mktemp("snippets") / "manifest.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "audio", "emotion", "start_s", "end_s"])
        for part in range(COUNT // 4):
            for clip in clips[:4]:
                start = 0.6 + 0.15 * part
                writer.writerow([f"{clip.stem}-{part}", clip, "sad", start, start + 0.4])
    return f"manifest:{file}"


@pytest.fixture(scope="module")
def uninterrupted(snippets: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], str]:
    """The rows of a run that nothing happened to, and its stderr's last line but the bar."""
    out = tmp_path_factory.mktemp("whole") / "scores.jsonl"
    done = run("--corpus", snippets, "-o", out)
    assert done.returncode == 0, done.stderr
    return lines(out), done.stderr[done.stderr.index("WA ") :]


def stop_after(rows: int, number: signal.Signals, out: Path, *arguments: object) -> tuple[int, str]:
    """Start a run, send it a signal once so many rows are in its journal, and return its status and stderr."""
    process = subprocess.Popen(command(*arguments, "-o", out), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 240
    while len(kept(out)) < rows:
        assert process.poll() is None, f"ended before {rows} rows"
        assert time.monotonic() < until
        time.sleep(0.002)
    children = children_of(process.pid)
    process.send_signal(number)
    error = process.communicate(timeout=120)[1]
    while any(Path(f"/proc/{child}").exists() for child in children):  # nobody left at work
        assert time.monotonic() < until
        time.sleep(0.01)
    return process.returncode, error


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def assert_same(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Compare rows but for their time; the batch that a recording is in moves the last digits."""
    assert [row["id"] for row in rows] == [row["id"] for row in others]
    for row, other in zip(rows, others, strict=True):
        assert {k: v for k, v in row.items() if k.startswith("p_")} == pytest.approx(
            {k: v for k, v in other.items() if k.startswith("p_")}, abs=1e-4
        )
        exact = {"path", "emotion", "label", "transcript", "start_s", "end_s", "engine"}
        assert {k: row[k] for k in exact} == {k: other[k] for k in exact}


@pytest.mark.parametrize(("workers", "signals"), [(0, ("SIGKILL", "SIGTERM")), (2, ("SIGTERM", "SIGKILL"))])
def test_a_run_that_is_stopped_anywhere_goes_on_without_loss_or_repetition(
    workers: int,
    signals: tuple[str, str],
    snippets: str,
    uninterrupted: tuple[list[dict[str, Any]], str],
    tmp_path: Path,
) -> None:
    """Stopped twice, then finished in one process, whatever it was begun with."""
    out = tmp_path / "scores.jsonl"
    before: dict[str, Mapping[str, Any]] = {}
    for name, stop in zip(signals, sorted(random.sample(range(1, COUNT - 12), 2)), strict=True):
        more = ["--workers", str(workers)] if workers else []
        status, error = stop_after(stop, signal.Signals[name], out, "--corpus", snippets, *more)
        assert status == (-signal.SIGKILL if name == "SIGKILL" else 143), error
        now = kept(out)
        assert before.items() <= now.items()
        assert stop <= len(now) < COUNT
        before = now
        assert [path.name for path in tmp_path.iterdir()] == [".scores.jsonl.journal"]
        if name == "SIGTERM":
            expected = (
                f"edgeser score: stopped by SIGTERM: what is done is in {journal_path(out)}; run the same command"
            )
            assert expected in error
            assert "Traceback" not in error
    done = run("--corpus", snippets, "-o", out)
    assert done.returncode == 0, done.stderr
    rows = lines(out)
    assert_same(rows, uninterrupted[0])
    # With the milliseconds of the first time: what was in the journal was not scored again.
    assert {row["id"]: row for row in rows if row["id"] in before} == before
    assert done.stderr.endswith(uninterrupted[1]), "accuracies count the rows of all runs"
    assert sorted(path.name for path in tmp_path.iterdir()) == [journal_path(out).name, out.name]


@pytest.fixture
def heeded() -> Iterator[None]:
    """SIGINT is not ignored: in a shell's background it is, and by the child too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_does_not_wait_for_the_recogniser(
    clip: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """It came back after 92 and 176 s once: PocketSphinx's module holds the interpreter while it decodes."""
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed")
    long, out = tmp_path / "long.wav", tmp_path / "scores.jsonl"
    soundfile.write(long, np.tile(load_audio(clip), 80), 16_000)  # almost five minutes, and about as long to decode
    decoding = [*command(long, "-o", out), "--asr", "pocketsphinx"]
    process = subprocess.Popen(decoding, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not journal_path(out).exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(3.0)  # it reads for a moment, then it decodes
    process.send_signal(number)
    error = process.communicate(timeout=40)[1]  # under 1 s on an idle machine
    assert process.returncode == status
    assert f"stopped by {number.name}" in error
    assert "Traceback" not in error


def test_an_unfinished_run_of_something_else_is_refused(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.csv"
    header = {"journal": 2, "edgeser": "0.0.1", "bundle": "00", "engine": "openvino", "asr": "none"}
    journal_path(out).write_text(json.dumps(header) + "\n")
    again = ["score", str(clip), "-o", str(out), *FAST]
    assert main(again) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"edgeser: {journal_path(out)}: was begun with edgeser 0.0.1, not ")
    assert "engine openvino, not onnxruntime" in error
    assert "--restart" in error
    assert main([*again, "--restart"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [journal_path(out).name, out.name]


def test_unreadable_files_are_listed_and_skipped(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.wav").write_text("no audio")
    done = run(tmp_path / "in", clip, "-o", tmp_path / "scores.csv")
    assert done.returncode == 0, done.stderr
    assert f"skipped broken.wav: {tmp_path}/in/broken.wav: not readable as audio" in done.stderr
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["id"], bool(row["error"])) for row in csv.DictReader(file)] == [
            ("broken.wav", True),
            (clip.name, False),
        ]
    (tmp_path / "in" / "also.wav").write_text("no audio")
    assert main(["score", str(tmp_path / "in"), *FAST]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "edgeser: score: none of 2 recordings could be read"


def test_one_unreadable_file_is_one_line(tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.wav", tmp_path / "scores.csv"
    broken.write_text("no audio")
    for more in ((), ("-o", out)):
        done = run(broken, *more)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [f"edgeser: {said(broken)}"]
    assert out.read_text(encoding="utf-8").count("not readable as audio") == 1


def test_a_journal_that_is_a_link_is_one_line(clip: Path, tmp_path: Path) -> None:
    out, notes = tmp_path / "scores.csv", tmp_path / "notes"
    notes.write_text("mine")
    journal_path(out).symlink_to(notes)
    done = run(clip, "-o", out, "--restart")
    expected = f"edgeser: {journal_path(out)}: is a link, expected a file of its own: remove it"
    assert (done.returncode, done.stderr.splitlines()) == (2, [expected])
    assert notes.read_text() == "mine"


def test_a_finished_run_scores_what_is_new(clips: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    assert run(*clips[:2], "-o", out).returncode == 0
    before = lines(out)
    assert run(*clips[:3], "-o", out).returncode == 0
    assert lines(out)[:2] == before  # with their milliseconds
    assert [row["id"] for row in lines(out)] == [clip.name for clip in clips[:3]]


def test_names_that_are_not_utf8_are_spelled_out(clip: Path, tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"\xff.flac")
    strange.write_bytes(clip.read_bytes())
    done = run(strange, clip)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == [strange.name, clip.name]
    assert rows[0]["label"] == rows[1]["label"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_stdout_is_one_line(clip: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command(clip), stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "edgeser: stdout: cannot be written (No space left on device): with -o a run can go on later"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--restart"], "--restart: got it without -o"),
        (["-o", "scores.xlsx"], "expected .jsonl or .csv or .parquet"),
        (["-o", "gone/scores.csv"], "its folder does not exist: create gone first"),
    ],
)
def test_bad_usage_is_one_line(
    clip: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["score", str(clip), *arguments, *FAST]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def spoken(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A corpus of 12 stretches of 0.4 s, three of each speaker."""
    file = tmp_path_factory.mktemp("spoken") / "manifest.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["id", "audio", "emotion", "speaker", "transcript", "start_s", "end_s"])
        for part in range(3):
            for clip in clips[:4]:
                start = 0.8 + 0.2 * part
                emotion = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry"}[clip.stem.split("-")[2]]
                writer.writerow([f"{clip.stem}-{part}", clip, emotion, clip.stem, "", start, start + 0.4])
    return f"manifest:{file}"


@pytest.mark.parametrize("normalize", ["run", "speaker"])
def test_two_passes_that_are_killed_at_any_moment_give_the_same_rows(
    normalize: str, spoken: str, centered: Path, tmp_path: Path
) -> None:
    options = ("--corpus", spoken, "--bundle", centered, "--normalize", normalize)
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    done = run(*options, "-o", whole)
    assert done.returncode == 0, done.stderr
    assert len(lines(whole)) == 12
    found = dict.fromkeys(range(4), 0)
    for attempt in found:
        with subprocess.Popen(command(*options, "-o", cut), stderr=subprocess.DEVNULL) as process:
            before = len(kept(cut))
            deadline = time.monotonic() + 120
            while process.poll() is None and len(kept(cut)) <= before and time.monotonic() < deadline:
                time.sleep(0.01)
            process.kill()
        found[attempt] = len(journal_path(cut).read_bytes().splitlines())
    assert found[0] < found[3]
    assert run(*options, "-o", cut, "--workers", 2).returncode == 0
    assert [{**row, "ms": 0} for row in lines(cut)] == [{**row, "ms": 0} for row in lines(whole)]
    printed = run(*options)
    assert [{**json.loads(row), "ms": 0} for row in printed.stdout.splitlines()] == [
        {**row, "ms": 0} for row in lines(whole)
    ]


def test_a_kept_state_is_one_pass(spoken: str, centered: Path, tmp_path: Path, clips: list[Path]) -> None:
    with Runtime.load(centered, engine="onnxruntime", asr="none") as runtime:
        state = runtime.open_state()
        runtime.recognize(clips[0], state=state)
    state.save(tmp_path / "a.state")
    before = (tmp_path / "a.state").read_bytes()
    out = tmp_path / "a.jsonl"
    done = run("--corpus", spoken, "--bundle", centered, "--state", tmp_path / "a.state", "-o", out)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.state").read_bytes() == before
    assert len(lines(out)) == 12
    assert b'"mean"' not in journal_path(out).read_bytes()


def test_evaluate_takes_the_mean_out_too(
    spoken: str,
    centered: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # the engine that `run` names
    out, figures = tmp_path / "a.jsonl", tmp_path / "figures"
    options = ["--corpus", spoken, "--normalize", "speaker"]
    assert main(["evaluate", str(centered), *options, "--json", "--figures", str(figures), "--explain", "1"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert "--normalize speaker" in (figures / "report.html").read_text(encoding="utf-8")
    assert run(*options, "--bundle", centered, "-o", out).returncode == 0
    rows = lines(out)
    right = sum(row["label"] == row["emotion"] for row in rows)
    assert measured["wa"] == pytest.approx(right / len(rows), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--normalize", "run", "--bundle", "{uncentered}"],
            "uncentered.edgeser has no mean_prior",
        ),
        (["--state", "gone.state"], "gone.state: No such file or directory"),
        (["--state", "gone.state", "--normalize", "speaker"], "with --normalize speaker, expected run: leave one out"),
    ],
)
def test_what_cannot_be_taken_out(
    options: list[str], message: str, clip: Path, uncentered: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option.format(uncentered=uncentered) for option in options]
    assert main(["score", str(clip), *options, *FAST]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


def test_speakers_that_nobody_knows(clips: list[Path], centered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["score", *map(str, clips[:2]), "--bundle", str(centered), "--normalize", "speaker", *FAST]
    assert main(command) == 2
    assert "got speaker, and 2 recordings without a speaker" in capsys.readouterr().err
