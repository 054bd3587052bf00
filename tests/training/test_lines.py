"""Recordings without words, and the lines that they borrow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeser.corpora import Utterance, read_corpus
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.training.dataset import EmotionDataset
from edgeser.training.features import LineFeatures, RecordingFeatures
from edgeser.training.frontends import open_features
from edgeser.training.lines import Lines
from edgeser.training.options import TrainOptions
from edgeser.training.recipe import Recipe
from edgeser.training.train import train
from edgeser.training.trained import TrainedModel

PLAIN = Recipe(text_drop=0.0, audio_drop=0.0, word_drop=0.0, mark_drop=0.0)


@pytest.fixture
def both(corpus: str, voices: str) -> list[Utterance]:
    return read_corpus([corpus, f"{voices}?role=train"])


Open = Callable[[Recipe | None], EmotionDataset]


@pytest.fixture
def dataset(both: list[Utterance], corpus: str, tmp_path: Path) -> Open:
    sources = open_features(TrainOptions(corpus, tmp_path))
    sources = {
        n: RecordingFeatures(s.frontend, tmp_path) if isinstance(s, RecordingFeatures) else LineFeatures(s.frontend)
        for n, s in sources.items()
    }
    return lambda recipe: EmotionDataset(
        both, {n: s.frontend for n, s in sources.items()}, sources, FOUR_EMOTIONS, recipe
    )


def words(data: EmotionDataset, index: int) -> bytes:
    sample = data[index]
    return sample["text"][: int(sample["text_length"])].numpy().tobytes()


def test_a_voice_borrows_a_line_of_its_emotion(dataset: Open, both: list[Utterance]) -> None:
    data = dataset(dataclasses.replace(PLAIN, borrow=1.0))
    said = {both[i].emotion: {words(data, j) for j in range(8) if both[j].emotion == both[i].emotion} for i in range(8)}
    voices = [index for index, one in enumerate(both) if one.transcript is None]
    assert len(voices) == 4
    for index in voices:
        drawn = set()
        for data.epoch in range(12):
            drawn.add(words(data, index))
        assert drawn == said[both[index].emotion]  # over the epochs, both lines of its emotion, and no other


def test_of_those_that_do_not_borrow_nothing_is_heard_but_the_voice(dataset: Open) -> None:
    data = dataset(dataclasses.replace(PLAIN, borrow=0.5, audio_drop=0.9))
    lengths = []
    for data.epoch in range(100):
        sample = data[9]
        lengths.append((int(sample["audio_length"]), int(sample["text_length"])))
    assert all(audio or text for audio, text in lengths)
    wordless = [audio for audio, text in lengths if not text]
    assert 35 < len(wordless) < 65
    assert all(wordless)


def test_neither_evaluation_nor_a_recipe_without_borrowing_pairs_them(dataset: Open) -> None:
    for recipe in (None, PLAIN):
        data = dataset(recipe)
        assert [int(data[i]["text_length"]) for i in range(8, 12)] == [0] * 4


def test_where_no_line_has_the_emotion_there_are_no_words(both: list[Utterance]) -> None:
    lines = Lines([u for u in both if u.emotion != "sad"])
    rng = np.random.default_rng(1)
    for utterance in both[8:]:
        lent = lines.lend(utterance, 1.0, rng)
        assert (lent.transcript is None) == (utterance.emotion == "sad")
        assert dataclasses.replace(lent, transcript=None) == utterance
    assert lines.lend(both[0], 1.0, rng) is both[0]


def test_any_voice_may_say_a_neutral_line(both: list[Utterance]) -> None:
    lines, rng = Lines(both), np.random.default_rng(1)
    neutral = {u.transcript for u in both if u.emotion == "neutral" and u.transcript}
    for utterance in both:
        always, never = (lines.neutralize(utterance, share, rng) for share in (1.0, 0.0))
        assert never is utterance
        if utterance.transcript:
            assert always.transcript in neutral
            assert dataclasses.replace(always, transcript=utterance.transcript) == utterance
        else:
            assert always is utterance
    angry = next(u for u in both if u.emotion == "angry" and u.transcript)
    said = [lines.neutralize(angry, 0.4, rng).transcript in neutral for _ in range(500)]
    assert 160 < sum(said) < 240
    wordy = [u for u in both if u.emotion != "neutral"]
    assert Lines(wordy).neutralize(wordy[0], 1.0, rng) is wordy[0]


def test_words_alone_keep_their_own_line(dataset: Open) -> None:
    plain, neutral = (dataset(dataclasses.replace(PLAIN, audio_drop=0.99, neutral_lines=s)) for s in (0.0, 1.0))
    for plain.epoch in range(5):
        neutral.epoch = plain.epoch
        for index in range(8):
            if not int(plain[index]["audio_length"]):
                assert words(neutral, index) == words(plain, index)


def test_training_pairs_them_and_goes_on_from_where_it_was(corpus: str, voices: str, tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=4, borrow=0.5, balance=("corpus", "emotion"), epoch_size=10)
    spec = (corpus, f"{voices}?role=train")
    run = TrainOptions(spec, tmp_path / "run", recipe=recipe, folds=("2",))
    (result,) = train(run)
    assert result.metrics is not None
    assert result.metrics.count == 4
    assert TrainedModel.load(result.folder).training["recipe"]["balance"] == ["corpus", "emotion"]
    assert train(run) == [result]
