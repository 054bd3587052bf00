"""Protocols with a validation split, recipes, runs of several processes, and repeated runs."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from edgeser.cli.main import main
from edgeser.corpora import make_folds, read_corpus
from edgeser.runtime.errors import InputError
from edgeser.training import fitting
from edgeser.training import train as train_module
from edgeser.training.dataset import EmotionDataset
from edgeser.training.evaluation import ACCURACIES, cross_validation, read_predictions, repeated
from edgeser.training.frontends import open_features
from edgeser.training.module import EmotionModule, learning_rate_factor, make_optimizer
from edgeser.training.options import TrainOptions
from edgeser.training.ranks import check_environment, is_first
from edgeser.training.recipe import Recipe
from edgeser.training.run_folder import claim_run
from edgeser.training.sampler import Draw, RecordingSampler, Sampling
from edgeser.training.train import train
from edgeser.training.trained import TrainedModel

SMALL = Recipe(epochs=3, batch_size=8, learning_rate=3e-3, average_decay=0.5)


@pytest.fixture(scope="module")
def spoken(wide_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The wide corpus with a line of its own for every utterance, three sessions and official splits."""
    text = Path(wide_corpus.removeprefix("manifest:")).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    file = tmp_path_factory.mktemp("spoken") / "manifest.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, [*rows[0], "split"])
        writer.writeheader()
        for number, row in enumerate(rows):
            place = number % 5
            session, split = ("1", "train") if place < 3 else (str(place - 1), ("dev", "test")[place - 3])
            said = f"{row['transcript']} Number {number}."
            writer.writerow({**row, "transcript": said, "session": session, "split": split})
    return f"manifest:{file}"


def options(corpus: str, out: Path, **changes: object) -> TrainOptions:
    """Train words alone: they are quick."""
    base = TrainOptions(corpus, out, modalities=("text",), protocol="official", recipe=SMALL)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def weights(run: Path) -> dict[str, torch.Tensor]:
    (folder,) = run.glob("fold-*")
    return TrainedModel.load(folder).model.state_dict()


def values_of_epochs(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> list[dict[str, torch.Tensor]]:
    """Let the validation accuracy go as told; return where each epoch's validated weights will be kept."""
    told: Iterator[float] = iter(values)
    kept: list[dict[str, torch.Tensor]] = []
    step = EmotionModule.validation_step

    def remember(self: EmotionModule, *args: object) -> object:
        if len(kept) == self.current_epoch:
            kept.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        return step(self, *args)  # type: ignore[arg-type]

    measure = fitting.BestEpoch._measure
    monkeypatch.setattr(EmotionModule, "validation_step", remember)
    monkeypatch.setattr(fitting.BestEpoch, "_measure", lambda self: (measure(self), next(told))[1])
    return kept


def test_the_best_epoch_by_validation_is_kept(spoken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Averaged weights are measured and kept; of equal epochs the first; the figure is written down."""
    kept = values_of_epochs(monkeypatch, [0.2, 0.6, 0.6])
    (result,) = train(options(spoken, tmp_path / "run"))
    assert len(kept) == 3
    for name, value in weights(tmp_path / "run").items():
        assert torch.equal(value, kept[1][name]), name
    last = torch.load(result.folder / "last.ckpt", weights_only=True)
    differ = [not torch.equal(kept[2][n], last["current_model_state"][f"model.{n}"]) for n in kept[2]]
    assert any(differ), "the trained weights were validated, not their average"
    assert TrainedModel.load(result.folder).training["selected"] == {"epoch": 2, "by": "wa", "value": 0.6}
    assert result.metrics is not None
    assert result.metrics.count == 8


def test_patience_stops_and_a_resumed_run_stops_where_it_would_have(
    spoken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the interruption came between the last epoch and the model."""
    recipe = dataclasses.replace(SMALL, epochs=9, patience=2)
    kept = values_of_epochs(monkeypatch, [0.5, 0.4, 0.5, 0.9, 0.9])
    monkeypatch.setattr(train_module, "predict", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    run = options(spoken, tmp_path / "run", recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    assert len(kept) == 3
    monkeypatch.undo()
    monkeypatch.setattr(EmotionModule, "training_step", lambda *_: pytest.fail("went on"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train(run)
    for name, value in weights(tmp_path / "run").items():
        assert torch.equal(value, kept[0][name]), name


@pytest.mark.parametrize("average_decay", [0.5, 0.0])
def test_a_resumed_run_chooses_as_an_uninterrupted_one(
    spoken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average_decay: float
) -> None:
    """The best epoch lies before the interruption: its weights come from the checkpoint."""
    recipe = dataclasses.replace(SMALL, average_decay=average_decay)
    with monkeypatch.context() as patch:
        values_of_epochs(patch, [0.6, 0.2, 0.1])
        train(options(spoken, tmp_path / "whole", recipe=recipe))
    step = EmotionModule.training_step

    def interrupted(self: EmotionModule, *args: object) -> object:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return step(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        values_of_epochs(patch, [0.6])
        patch.setattr(EmotionModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(options(spoken, tmp_path / "cut", recipe=recipe))
    with monkeypatch.context() as patch:
        patch.setattr(fitting.BestEpoch, "_measure", lambda self: self._rows.clear() or 0.2)
        train(options(spoken, tmp_path / "cut", recipe=recipe))
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(cut[name], value) for name, value in whole.items())
    ends = [torch.load(tmp_path / n / "fold-official" / "last.ckpt", weights_only=True) for n in ("whole", "cut")]
    assert all(torch.equal(ends[1]["state_dict"][name], value) for name, value in ends[0]["state_dict"].items())


def test_averages_are_kept_though_the_run_was_cut_off_after_its_last_epoch(
    spoken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = options(spoken, tmp_path / "run", protocol="all")
    with monkeypatch.context() as patch:
        patch.setattr(TrainedModel, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(run)
    (result,) = train(run)
    last = torch.load(result.folder / "last.ckpt", weights_only=True)
    for name, value in weights(tmp_path / "run").items():
        assert torch.equal(value, last["state_dict"][f"model.{name}"]), name


def test_the_test_split_is_not_looked_at_before_the_end(
    spoken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fold,) = make_folds("official", read_corpus(spoken))
    looked: list[str] = []
    get = EmotionDataset.__getitem__

    def watched(self: EmotionDataset, draw: int | Draw) -> object:
        looked.append(self.utterances[draw if isinstance(draw, int) else draw[0]].id)
        return get(self, draw)

    fit = train_module.fit

    def watched_fit(*args: object) -> object:
        selected = fit(*args)  # type: ignore[arg-type]
        assert set(looked) <= {u.id for u in (*fold.train, *fold.validation)}
        assert {u.id for u in fold.validation} <= set(looked)
        return selected

    monkeypatch.setattr(EmotionDataset, "__getitem__", watched)
    monkeypatch.setattr(train_module, "fit", watched_fit)
    train(options(spoken, tmp_path / "run", recipe=dataclasses.replace(SMALL, epochs=1)))
    assert {u.id for u in fold.test} <= set(looked)


@pytest.mark.parametrize("protocol", ["random", "leave-one-session-out", "all"])
def test_a_model_knows_what_it_was_tested_on(spoken: str, tmp_path: Path, protocol: str) -> None:
    recipe = dataclasses.replace(SMALL, epochs=1)
    names = {"random": ("2",), "leave-one-session-out": ("3",), "all": ()}[protocol]
    everything = read_corpus(spoken)
    run = options(
        spoken,
        tmp_path,
        protocol=protocol,
        folds=names,
        split_seed=5,
        recipe=recipe,
        exclude=frozenset({everything[0].id}),
    )
    (result,) = train(run)
    held_out = TrainedModel.load(result.folder).held_out(everything)
    file = result.folder / "predictions.csv"
    assert [u.id for u in held_out] == ([row["id"] for row in read_predictions(file)] if file.is_file() else [])
    assert bool(held_out) == (protocol != "all")
    if protocol == "leave-one-session-out":
        with pytest.raises(InputError, match="folds: got 3, leave-one-session-out gives 1, 2"):
            TrainedModel.load(result.folder).held_out([u for u in everything if u.session != "3"])


def test_models_of_an_earlier_version_know_it_too(spoken: str, fresh) -> None:  # type: ignore[no-untyped-def]
    plain = fresh("compact", ("text",))
    for training, sessions in (
        ({"held_out": "2"}, {"2"}),
        ({"held_out": "all", "hold_out": False}, set()),
        ({}, set()),
    ):
        trained = dataclasses.replace(plain, training=training)
        assert {u.session for u in trained.held_out(read_corpus(spoken))} == sessions


def test_a_run_of_an_earlier_version_goes_on(spoken: str, tmp_path: Path) -> None:
    run = options(spoken, tmp_path / "run", protocol="all", recipe=Recipe(epochs=1))
    (first,) = train(run)
    file = tmp_path / "run" / "run.json"
    written = json.loads(file.read_text())
    old = written["options"]
    for name in ("protocol", "split_seed"):
        del old[name]
    for name in ("optimizer", "patience", "class_weights"):
        del old["recipe"][name]
    file.write_text(json.dumps({**written, "options": {**old, "hold_out": False}}))
    assert train(run) == [first]
    with pytest.raises(InputError, match="holds a run with other recipe"):
        train(dataclasses.replace(run, recipe=Recipe(epochs=1, patience=1)))
    with pytest.raises(InputError, match="holds a run with other protocol"):
        train(dataclasses.replace(run, protocol="random"))


def test_of_several_that_claim_a_run_at_once_one_wins(spoken: str, tmp_path: Path) -> None:
    """Two kinds of options: whichever comes first, those of the other kind are refused, and the file is whole."""

    def claim(run: TrainOptions) -> str:
        start.wait()
        try:
            claim_run(run, ())
        except InputError as error:
            return str(error)
        return ""

    start = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        for attempt in range(20):
            runs = [options(spoken, tmp_path / str(attempt), split_seed=number % 2) for number in range(6)]
            messages = sorted(pool.map(claim, runs))
            assert [bool(message) for message in messages] == [False] * 3 + [True] * 3
            assert all("holds a run with other split_seed" in message for message in messages[3:])
            assert [file.name for file in (tmp_path / str(attempt)).iterdir()] == ["run.json"]


def test_published_recipes_say_what_their_papers_say() -> None:
    """The learning rates of an epoch's first step, and what optimises."""
    model = torch.nn.Linear(3, 2)
    sgd = Recipe.from_dict(
        {"optimizer": "sgd", "learning_rate": 5e-4, "schedule": "step", "epochs": 100, "warmup_share": 0.0}
    )
    factor = learning_rate_factor(sgd, steps=1000)
    assert [factor(10 * epoch) for epoch in (0, 29, 30, 59, 60, 90)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.125]
    optimizer = make_optimizer(sgd, model)  # type: ignore[arg-type]
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (5e-4, 0.9)
    adam = Recipe.from_dict({"optimizer": "adam", "betas": [0.9, 0.99], "schedule": "constant", "weight_decay": 0})
    factor = learning_rate_factor(adam, steps=100)
    assert [factor(step) for step in (0, 4, 9, 10, 99)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    optimizer = make_optimizer(adam, model)  # type: ignore[arg-type]
    assert type(optimizer) is torch.optim.Adam
    assert (optimizer.defaults["betas"], optimizer.defaults["weight_decay"]) == ((0.9, 0.99), 0.0)
    factor = learning_rate_factor(Recipe(warmup_share=0.0), steps=101)
    assert [round(factor(step), 6) for step in (0, 1, 51, 101)] == [1.0, 1.0, 0.5, 0.0]
    assert isinstance(make_optimizer(Recipe(), model), torch.optim.AdamW)  # type: ignore[arg-type]


def test_a_recipe_comes_back_from_plain_values() -> None:
    recipe = Recipe(epochs=7, select_by="ua", class_weights=False, betas=(0.8, 0.9))
    recipe = dataclasses.replace(recipe, log_mel=dataclasses.replace(recipe.log_mel, noise_snr_db=(30.0, 40.0)))
    assert Recipe.from_dict(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe
    assert Recipe.from_dict({}) == Recipe()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3, "lr": 1}, "recipe: got unknown epoch, lr, expected some of epochs, batch_size"),
        ({"log_mel": {"snr": 3}}, "recipe: log_mel: got unknown snr, expected some of speeds"),
        ({"log_mel": 3}, "recipe: log_mel: got 3, expected a table"),
        ({"log_mel": {"noise_snr_db": [3]}}, r"noise_snr_db: got \[3\], expected a list of 2 numbers"),
        ({"epochs": 2.5}, "epochs: got 2.5, expected a whole number"),
        ({"epochs": True}, "epochs: got True, expected a whole number"),
        ({"learning_rate": "fast"}, "learning_rate: got 'fast', expected a number"),
        ({"class_weights": 1}, "class_weights: got 1, expected true or false"),
        ({"betas": "0.9"}, "betas: got '0.9', expected a list of 2 numbers"),
        ({"optimizer": "lion"}, "got optimizer 'lion', expected one of adamw, adam, sgd"),
        ({"select_by": "loss"}, "got select_by 'loss', expected one of wa, ua, wf1"),
        ({"betas": [0.9, 1.0]}, "got betas 1.0, expected 0 to below 1"),
        ({"patience": -1}, "got patience -1, expected 0 or more"),
        ({"step_factor": 0}, "got step_factor 0.0, expected more than 0"),
        ({"step_epochs": 0}, "a step every 0 epochs, expected at least 1"),
    ],
)
def test_recipes_that_mean_nothing_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        Recipe.from_dict(values)
    assert "\n" not in str(raised.value)


def parsed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> TrainOptions:
    """Return the options that `edgeser train` makes of arguments."""
    from edgeser.cli import train as command

    seen: list[TrainOptions] = []

    def catch(options: TrainOptions, strict: bool) -> object:
        seen.append(options)
        raise InputError("caught")

    monkeypatch.setattr(command, "train", catch)
    assert main(["train", "--corpus", "manifest:m.csv", "--out", "run", *arguments]) == 2
    (found,) = seen
    return found


def test_the_command_s_options(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = parsed(monkeypatch)
    assert plain == TrainOptions("manifest:m.csv", Path("run"))
    assert parsed(monkeypatch, "--sessions", "all") == plain
    assert parsed(monkeypatch, "--sessions", "1,2").folds == ("1", "2") == parsed(monkeypatch, "--folds", "1,2").folds
    for spelling in (("--sessions", "none"), ("--protocol", "all")):
        assert (parsed(monkeypatch, *spelling).protocol, parsed(monkeypatch, *spelling).folds) == ("all", ())
    paper = parsed(
        monkeypatch,
        *("--protocol", "random", "--split-seed", "4", "--epochs", "100", "--batch-size", "40", "--devices", "2"),
        *("--recipe", "optimizer=adam", "--recipe", "betas=[0.9,0.99]", "--recipe", "log_mel.noise_share=1"),
        *("--recipe", "log_mel.noise_snr_db=[30,40]", "--recipe", "class_weights=false"),
    )
    assert (paper.protocol, paper.split_seed, paper.devices, paper.nodes) == ("random", 4, 2, 1)
    recipe = Recipe(epochs=100, batch_size=40, optimizer="adam", betas=(0.9, 0.99), class_weights=False)
    noisy = dataclasses.replace(recipe.log_mel, noise_share=1.0, noise_snr_db=(30.0, 40.0))
    assert paper.recipe == dataclasses.replace(recipe, log_mel=noisy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sessions", "1", "--folds", "1"], "--sessions: got 1 beside --folds 1"),
        (["--sessions", "none", "--protocol", "random"], "--sessions: got none beside --protocol random"),
        (["--protocol", "5-fold"], "protocol: got '5-fold', expected one of leave-one-session-out"),
        (["--recipe", "epochs"], "--recipe: got 'epochs', expected name=value"),
        (["--recipe", "epochs=3", "--epochs", "3"], "--epochs: got 3 beside --recipe epochs"),
        (["--recipe", "epochs=3", "--recipe", "epochs=4"], "--recipe: got epochs twice"),
        (["--recipe", "log_mel=3", "--recipe", "log_mel.gain_db=4"], "--recipe: got log_mel.gain_db twice"),
        (["--recipe", "lr=3"], "recipe: got unknown lr"),
        (["--nodes", "2"], "nodes: got 2 without MASTER_ADDR, MASTER_PORT, NODE_RANK in the environment"),
    ],
)
def test_options_that_contradict_each_other(
    arguments: list[str], message: str, spoken: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["train", "--corpus", spoken, "--out", str(tmp_path / "run"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_launcher_with_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LOCAL_RANK", "1"), ("GROUP_RANK", "0"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    check_environment(2, 2)
    assert not is_first()
    with pytest.raises(InputError, match="devices: got 1 on 2 nodes, the launcher has started 4 processes"):
        check_environment(1, 2)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_processes_share_one_order_of_recordings(spoken: str, ranks: int) -> None:
    utterances = [u for u in read_corpus(spoken) if u.session == "1"][:23]
    whole = RecordingSampler(utterances, Sampling(1))
    shares = [RecordingSampler(utterances, Sampling(1), rank, ranks) for rank in range(ranks)]
    orders = []
    for epoch in range(2):
        for sampler in (whole, *shares):
            sampler.epoch = epoch
        parts = [list(share) for share in shares]
        assert {len(part) for part in parts} == {len(shares[0])} == {-(-len(whole) // ranks)}
        dealt = [part[place] for place in range(len(parts[0])) for part in parts]
        assert dealt[: len(whole)] == list(whole)
        orders.append(dealt)
    assert orders[0] != orders[1]


def test_parameters_without_a_gradient_are_found(spoken: str, tmp_path: Path, fresh) -> None:  # type: ignore[no-untyped-def]
    trained = fresh("compact", ("text",))
    run = options(spoken, tmp_path)
    features = open_features(run)
    data = EmotionDataset(read_corpus(spoken), trained.frontends, features, run.labels, SMALL)
    module = EmotionModule(trained.model, SMALL, torch.ones(4))
    assert not fitting.has_idle_parameters(module, data)
    trained.model.register_parameter("idle", torch.nn.Parameter(torch.zeros(3)))
    assert fitting.has_idle_parameters(module, data)
    assert all(parameter.grad is None for parameter in trained.model.parameters())
    assert not trained.model.training


def test_two_processes_train_one_run(corpus: str, tmp_path: Path) -> None:
    """The real command: every fold, one report, half the steps, and the same options as a run of one process."""
    words = ["train", "--corpus", corpus, "--out", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "1"]
    words += ["--modalities", "audio", "--set", "layers=[1,0,1]", "--recipe", "log_mel.speeds=[1.0]", "--threads", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "edgeser.cli.main", *words, "--devices", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^held out .*WF1", done.stdout, re.MULTILINE)) == 1
    assert done.stderr.count("2 processes, 2 steps an epoch") == 2
    for fold in ("fold-1", "fold-2"):
        assert len(read_predictions(tmp_path / "run" / fold / "predictions.csv")) == 4
        checkpoint = torch.load(tmp_path / "run" / fold / "last.ckpt", weights_only=True)
        assert (checkpoint["epoch"], checkpoint["global_step"]) == (0, 2)  # of 4 recordings
    assert not list(tmp_path.rglob("*.part"))
    assert main([*words, "--devices", "1"]) == 0, "the same run, whatever trains it"


def write_run(folder: Path, right: list[int], protocol: str = "random", emotion: str = "sad") -> Path:
    """Write a run of folds with so many right answers of ten."""
    for number, count in enumerate(right, 1):
        fold = folder / f"fold-{number}"
        fold.mkdir(parents=True)
        rows = [f"{i},,{emotion},{emotion if i < count else 'angry'},0.5,0.5" for i in range(10)]
        (fold / "predictions.csv").write_text("\n".join([f"id,session,emotion,label,p_angry,p_{emotion}", *rows, ""]))
    (folder / "run.json").write_text(json.dumps({"options": {"protocol": protocol}}))
    return folder


def test_repeated_runs_give_mean_and_deviation(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [write_run(tmp_path / f"seed{i}", right) for i, right in enumerate([[6, 8], [5, 5], [8, 10]])]
    result = repeated(runs)
    assert result.mean("wa") == pytest.approx((0.7 + 0.5 + 0.9) / 3)
    assert result.deviation("ua") == pytest.approx(0.2)
    assert main(["evaluate", *map(str, runs)]) == 0
    table = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert table["mean"][:2] == ["0.700", "0.700"]
    assert table["deviation"][:2] == ["0.200", "0.200"]
    assert table[str(runs[2])][0] == "0.900"
    assert main(["evaluate", *map(str, runs), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["mean"]) == set(ACCURACIES)
    assert report["deviation"]["wa"] == 0.2
    assert report["runs"][str(runs[0])]["folds"]["2"]["wa"] == 0.8


def test_folds_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    result = cross_validation(write_run(tmp_path / "run", [3] * 11, "leave-one-speaker-out"))
    assert list(result.folds) == [str(number) for number in range(1, 12)]
    assert result.protocol == "leave-one-speaker-out"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"right": [5]}, "b has folds 1, .*a has 1, 2: compare runs of one experiment"),
        ({"right": [5, 5], "protocol": "rotating"}, "b has protocol rotating, .*a has random"),
        ({"right": [5, 5], "emotion": "happy"}, "b has emotions angry, happy, .*a has angry, sad"),
    ],
)
def test_runs_of_different_experiments_are_not_compared(tmp_path: Path, other: dict, message: str) -> None:
    first = write_run(tmp_path / "a", [5, 5])
    with pytest.raises(InputError, match=message):
        repeated([first, write_run(tmp_path / "b", **other)])


def test_one_run_is_no_repetition(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = str(write_run(tmp_path / "a", [5, 5]))
    assert main(["evaluate", run, f"{run}/../a"]) == 2
    assert "expected two or more different ones" in capsys.readouterr().err
    assert main(["evaluate", run, run, "--figures", "x"]) == 2
    assert "--figures: got 2 runs, it takes one" in capsys.readouterr().err
