"""What training samples are made of: which modalities, which words, which draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from edgeser.corpora import Utterance, read_corpus
from edgeser.runtime.frontends import Frontend, LogMel, OpenGraph, Phonemes, ReadFile, TextFrontend, Token
from edgeser.runtime.frontends.statistics import Rows
from edgeser.runtime.frontends.words import cut_words
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.training.dataset import EmotionDataset, Sample, collate
from edgeser.training.features import LineFeatures, RecordingFeatures
from edgeser.training.glove import load_word_vectors
from edgeser.training.pronunciations import load_pronunciations
from edgeser.training.recipe import Recipe

DROPS = Recipe(word_drop=0.3, text_drop=0.25, audio_drop=0.2)
ALL = ("audio", "text", "phonemes", "sentence")
Open = Callable[..., EmotionDataset]

# Valid rows of the eight samples and the sum of their values, by modalities and epoch, as they were drawn before there
# were phonemes and sentences: a run that was trained then is reproduced bit for bit.
DRAWN = {
    (("audio", "text"), 0): (
        [(307, 5), (288, 2), (312, 0), (0, 3), (218, 0), (222, 0), (212, 1), (0, 5)],
        (-467831.915, 20.188),
    ),
    (("audio", "text"), 3): (
        [(324, 0), (302, 0), (0, 4), (0, 4), (217, 0), (275, 5), (0, 3), (233, 5)],
        (-335306.900, 30.960),
    ),
    (("audio",), 0): ([(n,) for n in (307, 288, 312, 379, 218, 222, 212, 265)], (-597412.925,)),
    (("text",), 3): ([(n,) for n in (4, 4, 3, 3, 2, 4, 3, 6)], (33.558,)),
}


class Line(TextFrontend):
    """Stands in for a sentence encoder, which takes seconds to export: how many words and marks a line has."""

    kind = "line"
    length, dim = 1, 2

    def tokens(self, transcript: str) -> list[Token]:
        return cut_words(transcript)

    @property
    def window(self) -> int:
        return 64

    def rows(self, tokens: list[Token]) -> Rows:
        marks = sum(token.text in "!?" for token in tokens)
        return np.array([[len(tokens) - marks, marks]] if tokens else np.zeros((0, 2)), dtype=np.float32)

    def options(self) -> dict[str, Any]:
        return {}

    def files(self) -> dict[str, bytes]:
        return {}

    @classmethod
    def restore(cls, length: int, options: Mapping[str, Any], read: ReadFile, open_graph: OpenGraph) -> Line:
        return cls()


@pytest.fixture(scope="module")
def frontends() -> dict[str, Frontend]:
    words = load_word_vectors(words=5000)
    return {"audio": LogMel(40), "text": words, "phonemes": load_pronunciations(words.vocabulary), "sentence": Line()}


@pytest.fixture(scope="module")
def dataset(corpus: str, frontends: dict[str, Frontend], tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Make a set of the corpus: `(modalities, recipe, utterances=None)`."""
    folder = tmp_path_factory.mktemp("features")

    def make(
        modalities: tuple[str, ...], recipe: Recipe | None, utterances: list[Utterance] | None = None
    ) -> EmotionDataset:
        sources: dict[str, RecordingFeatures | LineFeatures] = {}
        for name in modalities:
            one = frontends[name]
            is_audio = isinstance(one, LogMel)
            sources[name] = RecordingFeatures(one, folder) if is_audio else LineFeatures(one)  # type: ignore[arg-type]
        chosen = {name: frontends[name] for name in modalities}
        return EmotionDataset(utterances or read_corpus(corpus), chosen, sources, FOUR_EMOTIONS, recipe)

    return make


def samples(data: EmotionDataset, epochs: int = 1) -> list[Sample]:
    found = []
    for data.epoch in range(epochs):
        found += [data[i] for i in range(len(data))]
    return found


@pytest.mark.parametrize("modalities", [("audio", "text"), ("audio",), ("text",)], ids="+".join)
def test_draws_are_what_they_were(dataset: Open, modalities: tuple[str, ...]) -> None:
    data = dataset(modalities, DROPS)
    for (named, epoch), (rows, sums) in DRAWN.items():
        if named == modalities:
            data.epoch = epoch
            drawn = [data[i] for i in range(len(data))]
            assert [tuple(int(s[f"{m}_length"]) for m in modalities) for s in drawn] == rows
            found = [float(sum(s[m].double().sum() for s in drawn)) for m in modalities]
            np.testing.assert_allclose(found, sums, rtol=1e-6, atol=1e-3)


def test_more_of_the_transcript_changes_neither_audio_nor_words(dataset: Open) -> None:
    """One draw each for dropping, marks and words, however many modalities follow it."""
    pairs = zip(samples(dataset(("audio", "text"), DROPS), 2), samples(dataset(ALL, DROPS), 2), strict=True)
    for one, other in pairs:
        for name in ("audio", "audio_length", "text", "text_length"):
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


def test_what_is_dropped_is_dropped_together(dataset: Open) -> None:
    drawn = samples(dataset(ALL, DROPS), 6)
    heard, read = ([bool(s[f"{name}_length"]) for s in drawn] for name in ("audio", "text"))
    assert not all(heard)
    assert not all(read)
    assert all(np.logical_or(heard, read))
    for sample in drawn:
        assert int(sample["phonemes_length"]) == int(sample["text_length"])
        assert int(sample["sentence_length"]) == (sample["text_length"] > 0)
        for name in ALL:
            assert sample[name].any() == (sample[f"{name}_length"] > 0)


def test_without_audio_the_transcript_is_never_dropped(dataset: Open) -> None:
    everything = Recipe(text_drop=0.5, audio_drop=0.49)
    for sample in samples(dataset(("text", "phonemes"), everything), 3):
        assert sample["text_length"] > 0
        assert sample["phonemes_length"] > 0


def test_the_same_words_are_left_out(dataset: Open, frontends: dict[str, Frontend]) -> None:
    """Every row of phonemes is that of the word whose vector stands beside it; the sentence keeps all words."""
    phonemes, words = frontends["phonemes"], frontends["text"]
    assert isinstance(phonemes, Phonemes)
    assert isinstance(words, TextFrontend)
    data = dataset(ALL, Recipe(word_drop=0.5, text_drop=0.0, audio_drop=0.0))
    shorter = marks = 0
    for epoch in range(4):
        data.epoch = epoch
        for utterance, sample in zip(data.utterances, (data[i] for i in range(len(data))), strict=True):
            tokens = words.tokens(utterance.transcript or "")
            beside = {tuple(words.rows([t])[0]): tuple(phonemes.rows([t])[0]) for t in tokens}
            valid = int(sample["text_length"])
            for vector, said in zip(sample["text"][:valid].numpy(), sample["phonemes"].numpy(), strict=False):
                assert beside[tuple(vector)] == tuple(said)
            said_words, said_marks = sample["sentence"][0].tolist()
            assert said_words == sum(token.text not in "!?" for token in tokens)
            shorter += valid < said_words + said_marks
            marks += said_marks > 0
    assert shorter > 16
    assert 0 < marks < 16  # half the lines lose them


def test_evaluation_changes_nothing(dataset: Open, frontends: dict[str, Frontend]) -> None:
    data = dataset(ALL, None)
    for utterance, sample in zip(data.utterances, samples(data), strict=True):
        for name in ALL[1:]:
            one = frontends[name]
            assert isinstance(one, TextFrontend)
            whole = one(utterance.transcript or "")
            np.testing.assert_array_equal(sample[name].numpy(), whole.values)
            assert int(sample[f"{name}_length"]) == whole.valid


def test_an_utterance_without_words(dataset: Open, clip: Path) -> None:
    data = dataset(ALL, Recipe(word_drop=0.5), [Utterance("a", clip, transcript="...", emotion="sad")])
    for epoch in range(3):
        data.epoch = epoch
        assert [int(data[0][f"{name}_length"]) for name in ALL[1:]] == [0, 0, 0]


def test_a_batch_is_what_torch_would_stack(dataset: Open) -> None:
    """Short, cropped and empty ones among them, and what is behind the valid rows is 0."""
    drawn = samples(dataset(ALL, DROPS), 2)
    assert {0} < {int(sample["text_length"]) for sample in drawn}
    ours, theirs = collate(drawn), default_collate(drawn)
    assert list(ours) == list(theirs)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=0)
        assert ours[name].dtype == expected.dtype
