"""Training on real recordings: a few steps, but the whole way."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from edgeser.corpora import read_corpus
from edgeser.corpora.inputs import graph_inputs
from edgeser.models import Ensemble
from edgeser.runtime.errors import InputError
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.training import train as train_module
from edgeser.training.dataset import EmotionDataset
from edgeser.training.evaluation import cross_validation, read_predictions
from edgeser.training.frontends import open_features
from edgeser.training.glove import load_word_vectors
from edgeser.training.module import EmotionModule, balanced_weights
from edgeser.training.options import TrainOptions, usable
from edgeser.training.recipe import Recipe
from edgeser.training.sampler import RecordingSampler, Sampling
from edgeser.training.train import train
from edgeser.training.trained import TrainedModel

SMALL = Recipe(epochs=3, batch_size=4)


def options(corpus: str, out: Path, **changes: object) -> TrainOptions:
    return dataclasses.replace(TrainOptions(corpus, out, recipe=SMALL), **changes)  # type: ignore[arg-type]


def test_every_session_is_held_out_in_turn(corpus: str, tmp_path: Path) -> None:
    results = train(options(corpus, tmp_path / "run"))
    assert [result.name for result in results] == ["1", "2"]
    assert all(result.metrics is not None and result.metrics.count == 4 for result in results)
    table = cross_validation(tmp_path / "run")
    assert set(table.folds) == {"1", "2"}
    assert table.pooled.count == 8
    trained = TrainedModel.load(tmp_path / "run" / "fold-1")
    assert trained.training["held_out"] == "1"
    assert set(trained.frontends) == {"audio", "text"}


def test_interrupted_and_resumed_equals_uninterrupted(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(options(corpus, tmp_path / "whole", folds=("1",)))
    step = EmotionModule.training_step

    def interrupted(self: EmotionModule, *args: object) -> object:
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        return step(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(EmotionModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(options(corpus, tmp_path / "cut", folds=("1",)))
    assert not (tmp_path / "cut" / "fold-1" / "model.json").exists()
    train(options(corpus, tmp_path / "cut", folds=("1",)))
    whole, cut = (TrainedModel.load(tmp_path / name / "fold-1").model.state_dict() for name in ("whole", "cut"))
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=0, atol=1e-6, msg=name)


def test_a_finished_run_is_not_trained_again(corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(options(corpus, tmp_path / "run", folds=("2",)))
    monkeypatch.setattr(train_module, "fit", lambda *_: pytest.fail("trained again"))
    assert train(options(corpus, tmp_path / "run", folds=("2",))) == first


def test_a_run_with_other_options_is_not_overwritten(corpus: str, tmp_path: Path) -> None:
    train(options(corpus, tmp_path / "run", folds=("1",)))
    with pytest.raises(InputError, match="holds a run with other changes: choose another --out"):
        train(options(corpus, tmp_path / "run", changes={"keep_rate": 0.3}))


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_one_modality_alone(corpus: str, tmp_path: Path, modality: str) -> None:
    (result,) = train(options(corpus, tmp_path / "run", modalities=(modality,), protocol="all"))
    assert result.metrics is None
    assert list(TrainedModel.load(result.folder).frontends) == [modality]


def test_it_learns(corpus: str, tmp_path: Path) -> None:
    """Eight utterances that it has seen: a model that cannot tell them apart learns nothing."""
    recipe = Recipe(epochs=120, batch_size=8, learning_rate=2e-3, average_decay=0.5, label_smoothing=0.0, word_drop=0.0)
    plain = {"dropout": 0.0}
    run = options(corpus, tmp_path / "run", recipe=recipe, protocol="all", modalities=("text",), changes=plain)
    (result,) = train(run)
    trained = TrainedModel.load(result.folder)
    data = EmotionDataset(read_corpus(corpus), trained.frontends, open_features(run), FOUR_EMOTIONS)
    predicted = train_module.predict(trained, data).argmax(dim=1).tolist()
    assert sum(p == c for p, c in zip(predicted, data.classes, strict=True)) >= 7


def test_several_networks_around_one_linear_part(corpus: str, tmp_path: Path) -> None:
    """The linear part stays as it was fitted while the networks train, and a saved model has all of them."""
    changes = {"members": 2, "skip": 0.3, "skip_statistics": "mean"}
    recipes = {
        "short": Recipe(epochs=1, batch_size=4, linear_c=0.1),
        "long": Recipe(epochs=3, batch_size=4, linear_c=0.1),
    }
    found = {}
    for name, recipe in recipes.items():
        train(options(corpus, tmp_path / name, folds=("1",), changes=changes, recipe=recipe))
        found[name] = TrainedModel.load(tmp_path / name / "fold-1").model
        assert isinstance(found[name], Ensemble)
    short, long = ([skip.classify.weight for skip in model.voice_skips()] for model in found.values())
    assert len(short) == len(long) == 2
    for weight in (*short, *long):
        torch.testing.assert_close(weight, short[0], rtol=1e-5, atol=1e-7)  # averaging rounds
    states = [model.state_dict() for model in found.values()]
    moved = [name for name in states[0] if not torch.allclose(states[0][name], states[1][name], atol=1e-3)]
    assert {name.split(".")[1] for name in moved} == {"0", "1"}


def test_a_linear_part_needs_a_skip_from_the_mean(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with no skip from the mean of the voice's rows: --set skip_statistics=mean"):
        train(options(corpus, tmp_path / "run", folds=("1",), recipe=Recipe(epochs=1, batch_size=4, linear_c=0.1)))


def test_excluded_utterances_are_left_out(corpus: str, tmp_path: Path) -> None:
    everything = read_corpus(corpus)
    excluded = frozenset({everything[0].id})
    assert len(usable(everything, options(corpus, tmp_path, exclude=excluded))) == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": ("video",)}, "got video, ks-transformer takes audio,text or audio or text"),
        ({"labels": ("angry", "surprise")}, "has no utterances for surprise"),
        ({"folds": ("9",)}, "folds: got 9, leave-one-session-out gives 1, 2"),
        ({"corpus": "manifest:gone.csv"}, "gone.csv: no such manifest"),
        ({"corpus": "iemocap"}, "got 'iemocap', expected manifest:PATH"),
        ({"family": "ks"}, "family: got 'ks'"),
    ],
)
def test_bad_options_are_refused(corpus: str, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(dataclasses.replace(options(corpus, tmp_path / "run"), **changes))  # type: ignore[arg-type]


def test_words_are_dropped_in_the_stated_share(corpus: str) -> None:
    utterances = read_corpus(corpus)
    text = load_word_vectors(words=5000)
    from edgeser.runtime.frontends import LogMel
    from edgeser.training.features import LineFeatures, RecordingFeatures

    recipe = Recipe(text_drop=0.3, audio_drop=0.2)
    features = {"audio": RecordingFeatures(LogMel(40)), "text": LineFeatures(text)}
    data = EmotionDataset(utterances, {"audio": LogMel(40), "text": text}, features, FOUR_EMOTIONS, recipe)
    silent = {"audio": 0, "text": 0}
    for data.epoch in range(100):
        for index in range(4):
            sample = data[index]
            for name in silent:
                silent[name] += int(sample[f"{name}_length"] == 0)
    assert 0.23 < silent["text"] / 400 < 0.37
    assert 0.14 < silent["audio"] / 400 < 0.26


def test_one_per_recording_draws_every_recording_once(corpus: str) -> None:
    utterances = [dataclasses.replace(u, id=f"{u.id}{i}") for u in read_corpus(corpus) for i in range(3)]
    sampler = RecordingSampler(utterances, Sampling(seed=1))
    orders = []
    for sampler.epoch in range(2):
        chosen = [index for index, _ in sampler]
        assert len({utterances[i].recording for i in chosen}) == len(chosen) == len(sampler) == 8
        orders.append(chosen)
    assert orders[0] != orders[1]


def test_balanced_weights_make_classes_equal() -> None:
    weights = balanced_weights([0, 0, 0, 1], 2)
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 2.0]))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no trained model"):
        TrainedModel.load(tmp_path)
    with pytest.raises(InputError, match="holds no fold with predictions"):
        cross_validation(tmp_path)


def test_a_run_records_what_made_it(corpus: str, tmp_path: Path) -> None:
    train(options(corpus, tmp_path / "run", folds=("1",)))
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["options"]["recipe"]["epochs"] == 3
    assert run["versions"]["torch"] == torch.__version__


def test_a_saved_model_answers_as_the_trained_one_did(corpus: str, tmp_path: Path) -> None:
    """Frontends included: what is written down must give the predictions that were made in training."""
    (result,) = train(options(corpus, tmp_path / "run", folds=("2",)))
    trained = TrainedModel.load(result.folder)
    held_out = [u for u in read_corpus(corpus) if u.session == "2"]
    inputs = graph_inputs(trained.frontends, held_out)
    with torch.inference_mode():
        logits = trained.model({name: torch.from_numpy(value) for name, value in inputs.items()}).logits
    written = [
        [float(row[f"p_{label}"]) for label in FOUR_EMOTIONS]
        for row in read_predictions(result.folder / "predictions.csv")
    ]
    torch.testing.assert_close(logits.softmax(dim=1), torch.tensor(written), rtol=0, atol=2e-5)
