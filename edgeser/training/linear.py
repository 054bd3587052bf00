"""The linear part of a network as logistic regression: fitted on its own, whole and to its optimum, then fixed.

Stochastic gradient descent beside a network fits a skip too closely to the training corpora: on a corpus that was not
among them logistic regression on the same rows, strongly regularised, was better by up to eleven points where nothing
was heard before. Fitted so, the linear part keeps what holds everywhere, and the network adds what it sees beyond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edgeser.corpora import Utterance
from edgeser.nn.skip import StatisticsSkip
from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.runtime.frontends import Rows
from edgeser.training.baseline import balanced_sample_weights
from edgeser.training.domains import shift_of_means
from edgeser.training.features import audio_key

_ITERATIONS = 1000


def fit_linear(
    skips: Sequence[StatisticsSkip],
    utterances: Sequence[Utterance],
    means: Mapping[str, Rows],
    labels: Sequence[str],
    c: float,
    prior: float,
) -> None:
    """Fit skips on the mean of a voice's rows, all alike, and fix their weights.

    Every recording counts with nothing taken out of its rows and, with a prior, with the mean of its corpus and that of
    its speaker taken out; every corpus weighs the same, and every emotion.

    Args:
        skips: Standardised already, see `EmotionModel.prepare`.
        utterances: The training split; lines of one recording count once.
        means: By recording (`audio_key`), the mean `(dim,)` of its standardised rows.
        labels: Emotions in the order of the classes.
        c: Inverse strength of the L2 penalty.
        prior: Utterances that the training mean counts as when another is taken out; 0 takes none out.

    Raises:
        InputError: A skip reads more than the mean, or an emotion has no recording.
        MissingDependencyError: scikit-learn is not installed.
    """
    if not skips or not all(skip.is_mean for skip in skips):
        raise InputError(
            f"recipe: got linear_c {c:g}, and a model {'whose skip reads more than' if skips else 'with no skip from'} "
            "the mean of the voice's rows: --set skip_statistics=mean"
        )
    recordings = {audio_key(one): one for one in utterances}
    truth = np.array([labels.index(str(one.emotion)) for one in recordings.values()])
    missing = [label for place, label in enumerate(labels) if place not in truth]
    if missing:
        raise InputError(f"recipe: got linear_c {c:g} and no recording for {', '.join(missing)}, expected some of each")
    heard = np.stack([means[key] for key in recordings]).astype(np.float64)
    states = [heard]
    if prior:
        for level in ("corpus", "speaker"):
            states.append(heard - _domain_shifts(heard, list(recordings.values()), level, prior))
    weights = balanced_sample_weights([(one.corpus, str(one.emotion)) for one in recordings.values()])
    for skip in skips:
        mean, scale = (skip.get_buffer(name).double().numpy() for name in ("mean", "scale"))
        rows = np.concatenate([(state - mean) * scale for state in states])
        coefficients, intercepts = _solve(rows, np.tile(truth, len(states)), np.tile(weights, len(states)), c)
        with torch.no_grad():
            skip.classify.weight.copy_(torch.from_numpy(coefficients))
            skip.classify.bias.copy_(torch.from_numpy(intercepts))
        skip.requires_grad_(False)


def _domain_shifts(
    heard: NDArray[np.float64], utterances: Sequence[Utterance], level: str, prior: float
) -> NDArray[np.float64]:
    """Return what a device takes out of each recording's rows that has heard all of its corpus, or of its speaker."""
    names = [(one.corpus, one.speaker if level == "speaker" else "") for one in utterances]
    domains = np.unique([f"{corpus}|{speaker or ''}" for corpus, speaker in names], return_inverse=True)[1]
    shifts = np.zeros_like(heard)
    for domain in range(domains.max() + 1):
        chosen = domains == domain
        shifts[chosen] = shift_of_means(heard[chosen].astype(np.float32), prior)
    return shifts


def _solve(
    rows: NDArray[np.float64], truth: NDArray[np.intp], weights: NDArray[np.float64], c: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coefficients `(classes, dim)` and intercepts `(classes,)`."""
    try:
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "train", "recipe linear_c") from error
    with threadpool_limits(1):
        model = LogisticRegression(C=c, max_iter=_ITERATIONS).fit(rows, truth, sample_weight=weights)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(intercepts) == 1:  # of two classes scikit-learn gives the second one's
        coefficients, intercepts = (np.concatenate([-one, one]) / 2 for one in (coefficients, intercepts))
    return coefficients, intercepts
