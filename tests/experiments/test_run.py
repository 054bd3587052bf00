"""A real table, trained: stopped and gone on with, side by side, with a fold that fails."""

from __future__ import annotations

import csv
import dataclasses
import json
import shlex
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeser.cli.main import main
from edgeser.experiments.measuring import measure_costs
from edgeser.experiments.plan import Plan, make_plan
from edgeser.experiments.reading import read_experiment
from edgeser.experiments.results import read_costs
from edgeser.experiments.run import Settings, run, train_fold
from edgeser.runtime.errors import InputError
from edgeser.training.evaluation import cross_validation

Toml = Callable[..., Path]


def plan(file: Path, corpus: str, out: Path, *rows: str) -> Plan:
    return make_plan(read_experiment(file).with_corpus(corpus), out, rows)


def test_a_table_from_start_to_end(toml: Toml, corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    command = ["experiment", str(toml()), "--out", str(out), "--corpus", corpus]
    first, _, _, broken = plan(toml(), corpus, out).jobs
    train_fold(first.options, 1)
    _stopped_while_it_runs(plan(toml(), corpus, out), out)

    trained = (first.folder / "model.json").stat().st_mtime_ns
    broken.options.out.mkdir(parents=True)
    broken.folder.write_text("in the way")
    capsys.readouterr()
    assert main([*command, "--jobs", "2", "--threads", "1", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (first.folder / "model.json").stat().st_mtime_ns == trained, "a fold that was there is not trained again"
    (failure,) = found["failures"]
    assert failure.startswith("dense | plain, seed 1, fold 2: FileExistsError: ")
    assert "Traceback" in (out / "logs" / "dense-plain-seed-1-fold-2.log").read_text(encoding="utf-8")
    ours, other, _, baseline = found["rows"]
    assert (baseline["name"], baseline["folds_done"], baseline["parameters"]) == ("logistic regression", 2, None)
    assert ours["UA"] == pytest.approx(cross_validation(first.options.out).mean_ua, abs=1e-4)
    assert (ours["folds_done"], other["folds_done"], found["complete"]) == (2, 1, False)
    text = (out / "table.md").read_text(encoding="utf-8")
    assert "1 of 6 folds are missing" in text
    edges = {
        name: "\u2013".join(f"{ours['intervals'][name][edge]:.3f}" for edge in ("low", "high")) for name in ("WA", "UA")
    }
    accuracies = f"{ours['WA']:.3f} ({edges['WA']}) | 0.743 | {ours['UA']:.3f} ({edges['UA']})"
    assert f"| key-sparse | {accuracies} | 0.7530 \u00b1 0.0020 | 1" in text
    assert ours["intervals"]["UA"]["of"] == "pooled", "the same speakers are in both sessions"
    assert "- protocol: leave-one-session-out, folds 1, 2" in text
    assert "- recipe of all rows: epochs 1, batch size 4; all else by default" in text
    assert f"- command: `edgeser {shlex.join(command)}`" in text
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")

    broken.folder.unlink()
    train_fold(broken.options, 1)
    capsys.readouterr()
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == (out / "table.md").read_text(encoding="utf-8").strip()
    assert "Incomplete" not in shown
    rows = list(csv.DictReader((out / "table.csv").open(encoding="utf-8")))
    assert [row["fold"] for row in rows] == ["mean", "1", "2", "mean", "1", "2", "mean", "mean", "1", "2"]
    assert {row["utterances"] for row in rows if row["fold"] in "12"} == {"4"}
    _costs_are_measured(first.folder, ours["parameters"])
    _refused_when_the_file_has_changed(toml, corpus, out)


def _costs_are_measured(fold: Path, parameters: float) -> None:
    measure_costs([fold], ["ONNX MB", "p50 ms"])
    device, costs = read_costs(fold)
    assert device
    assert costs["parameters"] == parameters < 1e6
    assert 1.0 < costs["ONNX MB"] / (parameters * 4e-6) < 1.3, "four bytes a weight, and the graph"
    assert 0.0 < costs["p50 ms"] < 1000.0


def _stopped_while_it_runs(made: Plan, out: Path) -> None:
    """Ctrl-C comes while the workers start."""
    before = threading.active_count()
    log = out / "logs" / "key-sparse-seed-1-fold-2.log"

    def interrupt() -> None:
        deadline = time.monotonic() + 60.0
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident
    assert main is not None
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(made, Settings(jobs=2, threads=1))
    thread.join()
    assert threading.active_count() == before
    assert "key-sparse (1 of 2 folds)" in (out / "table.md").read_text(encoding="utf-8")


def _refused_when_the_file_has_changed(toml: Toml, corpus: str, out: Path) -> None:
    changed = toml("epochs = 1", "epochs = 2")
    with pytest.raises(InputError, match=r"row 'key-sparse': .*seed-1: holds a run with other recipe.epochs: choose"):
        plan(changed, corpus, out)
    other = toml('variant = "dense attention"', "set = { sparse = false, heads = 2 }")
    with pytest.raises(InputError, match=r"row 'dense \| plain': .*seed-1: holds a run with other changes: choose"):
        plan(other, corpus, out)
    made = plan(other, corpus, out, "key-sparse")  # the other row is not asked for: its results are not shown either
    assert not made.todo
    outcome = run(made, Settings())
    assert [result.done for result in outcome.table.rows] == [2, 0, 0, 2]


def test_what_cannot_be_trained_is_refused_before_anything_is(toml: Toml, corpus: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="rows: got mine, expected some of key-sparse, dense-plain"):
        plan(toml(), corpus, out, "mine")
    with pytest.raises(InputError, match="protocol: all holds nothing out"):
        plan(toml("columns", 'protocol = "all"\ncolumns'), corpus, out)
    with pytest.raises(InputError, match="rotating: the corpus has 2 sessions"):
        plan(toml("columns", 'protocol = "rotating"\ncolumns'), corpus, out)
    without = plan(toml('["text"]', '["text"]\ntext_encoder = "gone"'), corpus, out)
    with pytest.raises(InputError, match="row 'key-sparse': gone: "):
        run(without, Settings())
    assert not out.exists()


def test_settings_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert Settings(jobs=3).threads_each == 2
    assert Settings(jobs=16).threads_each == 1
    assert dataclasses.replace(Settings(jobs=2), threads=3).threads_each == 3


def test_an_older_run_that_knows_fewer_options_still_counts(toml: Toml, corpus: str, tmp_path: Path) -> None:
    (job, *_) = plan(toml(), corpus, tmp_path / "out").jobs
    known = job.options.as_dict()
    del known["protocol"], known["recipe"]["optimizer"]
    job.options.out.mkdir(parents=True)
    (job.options.out / "run.json").write_text(json.dumps({"options": known}))
    assert plan(toml(), corpus, tmp_path / "out").jobs[0] == job
    # It had the protocol of its day, so what it does not say is known, and another one now is another run.
    (job.options.out / "run.json").write_text(json.dumps({"options": {**known, "hold_out": False}}))
    with pytest.raises(InputError, match="holds a run with other protocol: choose"):
        plan(toml(), corpus, tmp_path / "out")
