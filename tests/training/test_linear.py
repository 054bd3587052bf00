"""Tests of a linear part that is fitted as logistic regression and fixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from edgeser.corpora import Utterance
from edgeser.nn.skip import StatisticsSkip
from edgeser.runtime.errors import InputError
from edgeser.training.baseline import balanced_sample_weights
from edgeser.training.features import audio_key
from edgeser.training.linear import fit_linear

DIM = 6
LABELS = ("angry", "happy", "sad")


@pytest.fixture
def utterances() -> list[Utterance]:
    """Two corpora of two speakers each, the second with half as many recordings; each has two lines."""
    found = []
    for corpus, count in (("a", 12), ("b", 6)):
        for number in range(count):
            audio, speaker = Path(f"{corpus}{number}.wav"), f"{corpus}{number % 2}"
            for line in ("one", "two"):
                emotion = LABELS[number % 3]
                name = f"{corpus}{number}{line}"
                found.append(Utterance(name, audio, emotion, line, speaker=speaker, session="1", corpus=corpus))
    return found


@pytest.fixture
def means(utterances: list[Utterance]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    found = {}
    for one in utterances:
        where = rng.normal(size=DIM) + 2.0 * np.eye(DIM)[LABELS.index(str(one.emotion))] + (one.corpus == "b")
        found.setdefault(audio_key(one), where.astype(np.float32))
    return found


def skip_of(statistics: str = "mean") -> StatisticsSkip:
    skip = StatisticsSkip(DIM, len(LABELS), 0.3, statistics)
    skip.get_buffer("mean").fill_(0.5)
    skip.get_buffer("scale").fill_(2.0)
    return skip.eval()


def logits(skip: StatisticsSkip, rows: NDArray[np.float64]) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = skip(torch.from_numpy(rows).float(), torch.ones(len(rows))).numpy()
    return found


def test_is_logistic_regression_on_each_recording_once(
    utterances: list[Utterance], means: dict[str, NDArray[np.float32]]
) -> None:
    skip = skip_of()
    fit_linear([skip], utterances, means, LABELS, c=0.1, prior=0.0)
    once = list({audio_key(one): one for one in utterances}.values())
    rows = np.stack([means[audio_key(one)] for one in once]).astype(np.float64)
    weights = balanced_sample_weights([(one.corpus, str(one.emotion)) for one in once])
    truth = [LABELS.index(str(one.emotion)) for one in once]
    expected = LogisticRegression(C=0.1, max_iter=1000).fit((rows - 0.5) * 2.0, truth, sample_weight=weights)
    np.testing.assert_allclose(logits(skip, rows), expected.decision_function((rows - 0.5) * 2.0), atol=1e-4)


def test_is_fixed_and_all_are_alike(utterances: list[Utterance], means: dict[str, NDArray[np.float32]]) -> None:
    skips = [skip_of(), skip_of()]
    fit_linear(skips, utterances, means, LABELS, c=0.1, prior=5.0)
    assert torch.equal(skips[0].classify.weight, skips[1].classify.weight)
    assert not any(parameter.requires_grad for skip in skips for parameter in skip.parameters())


def test_a_domain_that_is_far_off_is_met_with_its_mean_taken_out(
    utterances: list[Utterance], means: dict[str, NDArray[np.float32]]
) -> None:
    """Rows of a corpus with its mean taken out are near the training mean, so those are what it must also know."""
    far = {key: mean + 30.0 * (key[0] == "b") for key, mean in means.items()}
    with_prior, without = skip_of(), skip_of()
    fit_linear([with_prior], utterances, far, LABELS, c=0.1, prior=0.5)
    fit_linear([without], utterances, far, LABELS, c=0.1, prior=0.0)
    b = [one for one in {audio_key(u): u for u in utterances}.values() if one.corpus == "b"]
    rows = np.stack([far[audio_key(one)] for one in b]).astype(np.float64)
    centred = rows - rows.mean(axis=0) * len(b) / (len(b) + 0.5)
    truth = np.array([LABELS.index(str(one.emotion)) for one in b])
    right, wrong = (np.mean(logits(skip, centred).argmax(axis=1) == truth) for skip in (with_prior, without))
    assert right >= 0.8
    assert right >= wrong


def test_refusals(utterances: list[Utterance], means: dict[str, NDArray[np.float32]]) -> None:
    with pytest.raises(InputError, match="no skip from the mean of the voice's rows: --set skip_statistics=mean"):
        fit_linear([], utterances, means, LABELS, c=0.1, prior=0.0)
    with pytest.raises(InputError, match="a model whose skip reads more than the mean"):
        fit_linear([skip_of("mean-deviation")], utterances, means, LABELS, c=0.1, prior=0.0)
    with pytest.raises(InputError, match=r"linear_c 0.1 and no recording for bored, expected some of each"):
        fit_linear([skip_of()], utterances, means, (*LABELS, "bored"), c=0.1, prior=0.0)
