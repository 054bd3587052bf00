"""Faithfulness on real recordings, with models whose importance is known to be right or wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from edgeser.corpora import read_corpus
from edgeser.models import EmotionModel, InputSpec, ModelOutput
from edgeser.runtime.audio import Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import LogMel
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.training.faithfulness import measure_audio, measure_text, silence, summarize
from edgeser.training.glove import load_word_vectors
from edgeser.training.trained import TrainedModel


class Loudness(EmotionModel):
    """Says `happy` the louder the audio is; its importance is the energy of each row, or the opposite."""

    family = "loudness"
    presets = ()

    def __init__(self, honest: bool) -> None:
        super().__init__()
        self.inputs = {"audio": InputSpec(460, 40, "log-mel"), "text": InputSpec(20, 50, "word-vectors")}
        self.importances = ("audio", "text")
        self.honest = honest

    def forward(self, inputs: dict[str, Tensor]) -> ModelOutput:  # type: ignore[override]
        rows = inputs["audio"]
        energy = ((rows + 16.0).clamp(min=0.0) * (rows != 0)).mean(dim=2) / 1000  # (N, 460)
        words = inputs["text"].abs().sum(dim=2)  # (N, 20)
        score = energy.sum(dim=1) + words.sum(dim=1) / 50
        logits = torch.zeros(score.shape[0], 4)
        logits[:, 1] = score
        importance = {"audio": energy, "text": words}
        if not self.honest:
            importance = {name: 1.0 / (1e-6 + value) for name, value in importance.items()}
        return ModelOutput(logits, importance)

    def preset(self, *_: object) -> EmotionModel:  # type: ignore[override]
        raise NotImplementedError

    restore = configuration = preset  # type: ignore[assignment]


def trained(honest: bool) -> TrainedModel:
    frontends = {"audio": LogMel(40), "text": load_word_vectors(words=5000)}
    return TrainedModel(Loudness(honest), "none", frontends, FOUR_EMOTIONS, {})


@pytest.mark.parametrize("measure", [measure_audio, measure_text])
def test_honest_importance_holds_and_its_opposite_does_not(corpus: str, measure) -> None:  # type: ignore[no-untyped-def]
    utterances = [
        dataclasses.replace(u, transcript="what on earth are you doing here tonight") for u in read_corpus(corpus)
    ]
    honest, wrong = (summarize("any", measure(trained(kind), utterances)) for kind in (True, False))
    assert honest.recordings == 8
    for control, advantage in honest.advantage.items():
        assert advantage > 0
        assert wrong.advantage[control] < advantage


def test_an_interval_above_zero_is_needed() -> None:
    rng = np.random.default_rng(0)
    clear = [(str(i), {"important": 0.3 + 0.1 * rng.random(), "random": 0.1 * rng.random()}) for i in range(30)]
    noise = [(str(i), {"important": rng.normal(), "random": rng.normal()}) for i in range(30)]
    assert summarize("audio", clear).holds
    assert not summarize("audio", noise).holds
    low, high = summarize("audio", clear).interval["random"]
    assert low < summarize("audio", clear).advantage["random"] < high


def test_utterances_of_one_recording_count_once() -> None:
    falls = [("a", {"important": 1.0, "random": 0.0})] * 50 + [("b", {"important": 0.0, "random": 0.0})]
    found = summarize("text", falls)
    assert (found.utterances, found.recordings, found.advantage["random"]) == (51, 2, 0.5)
    assert not found.holds
    with pytest.raises(InputError, match="got 1 recordings, expected at least 2"):
        summarize("text", falls[:50])


def test_silence_is_where_the_rows_were(speech: Samples) -> None:
    quiet = silence(speech, np.array([0, 7]), 0.02)
    assert not quiet[:320].any()
    assert not quiet[7 * 320 : 8 * 320].any()
    np.testing.assert_array_equal(quiet[320 : 7 * 320], speech[320 : 7 * 320])
    assert quiet.shape == speech.shape
