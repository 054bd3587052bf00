"""Logistic regression on the mean of the rows that a model gets: what a network has to beat to be worth its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeser.corpora import Fold, Utterance
from edgeser.runtime.errors import InputError, MissingDependencyError
from edgeser.training.domains import shift_of_means
from edgeser.training.features import LineFeatures, RecordingFeatures, audio_key

Vectors = NDArray[np.float64]
Sources = Mapping[str, RecordingFeatures | LineFeatures]

_ITERATIONS = 1000
_ROUNDS = 20  # of balancing by turns; it converges in a few


@dataclass(frozen=True)
class BaselineOptions:
    """How the baseline is fitted; nothing of it is chosen by looking at a test split.

    Attributes:
        c: Inverse strength of the L2 penalty, on standardised columns.
        mean_prior: How many utterances the training mean counts for where each corpus' own mean is taken out of its
            rows; `None` takes none out.
    """

    c: float = 0.001
    mean_prior: float | None = None

    def __post_init__(self) -> None:
        if not self.c > 0.0 or (self.mean_prior is not None and not self.mean_prior >= 0.0):
            raise InputError(
                f"baseline: got c {self.c} and mean_prior {self.mean_prior}, expected c above 0, a prior of 0 or more"
            )


def has_mean(modality: str) -> bool:
    """Whether the rows of a modality have a mean that says something: phonemes are numbers of symbols."""
    return modality != "phonemes"


def predict_baseline(
    fold: Fold, features: Sources, labels: Sequence[str], options: BaselineOptions | None = None
) -> NDArray[np.float64]:
    """Fit on a fold's training split and return the probabilities `(tests, classes)` of its test split.

    Every corpus weighs the same, and every class. Where means are taken out, those of the test corpora are measured on
    the test split itself, without labels, as a device could that has heard all of it (two passes).

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    options = options or BaselineOptions()
    has_lines = any(isinstance(source, LineFeatures) and has_mean(name) for name, source in features.items())
    train = fold.train if has_lines else list({(audio_key(u), u.emotion): u for u in fold.train}.values())
    columns = [
        _audio_columns(train, fold.test, source, options.mean_prior)
        if isinstance(source, RecordingFeatures)
        else (_line_columns(train, source), _line_columns(fold.test, source))
        for name, source in features.items()
        if has_mean(name)
    ]
    ours, theirs = (np.hstack(side) for side in zip(*columns, strict=True))
    truth = np.array([labels.index(str(u.emotion)) for u in train])
    weights = balanced_sample_weights([(u.corpus, str(u.emotion)) for u in train])
    weights *= len({audio_key(u) for u in train}) / len(train)  # lines of one recording are not more voices
    found = np.zeros((len(fold.test), len(labels)))
    classes = np.unique(truth)
    found[:, classes] = 1.0 if len(classes) == 1 else _fit_predict(ours, truth, weights, theirs, options.c)
    return found


def balanced_sample_weights(groups: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    """Return a weight for each sample of a corpus and class, so that all corpora weigh the same, and all classes.

    The two are brought to balance by turns; a class that a corpus does not have is made up for by the others. The
    weights' mean is 1.
    """
    weights = np.ones(len(groups))
    sides: list[NDArray[np.intp]] = [np.unique([g[side] for g in groups], return_inverse=True)[1] for side in (0, 1)]
    for _ in range(_ROUNDS):
        for side in sides:
            weights /= np.bincount(side, weights)[side]
    balanced: NDArray[np.float64] = weights * len(groups) / weights.sum()
    return balanced


def _fit_predict(
    train: Vectors, truth: NDArray[np.intp], weights: NDArray[np.float64], test: Vectors, c: float
) -> NDArray[np.float64]:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "train", "logistic regression") from error
    with threadpool_limits(1):
        scaler = StandardScaler().fit(train)
        model = LogisticRegression(C=c, max_iter=_ITERATIONS)
        model.fit(scaler.transform(train), truth, sample_weight=weights)
        found: NDArray[np.float64] = model.predict_proba(scaler.transform(test))
    return found


def _audio_columns(
    train: Sequence[Utterance], test: Sequence[Utterance], source: RecordingFeatures, prior: float | None
) -> tuple[Vectors, Vectors]:
    """Return the means of both splits' rows, those of their corpora taken out where there is a prior."""
    ours, theirs = (np.array([source.mean(u) for u in side], np.float64) for side in (train, test))
    if prior is None:
        return ours, theirs
    center = ours.mean(axis=0)
    return _shifted(ours - center, train, prior), _shifted(theirs - center, test, prior)


def _shifted(vectors: Vectors, utterances: Sequence[Utterance], prior: float) -> Vectors:
    """Take out of each corpus' vectors what a device would that has heard all of its recordings."""
    shifted = vectors.copy()
    corpora = np.array([u.corpus for u in utterances])
    keys = np.array([audio_key(u) for u in utterances])
    for corpus in np.unique(corpora):
        chosen = np.flatnonzero(corpora == corpus)
        once = chosen[np.unique(keys[chosen], return_index=True)[1]]
        shifted[chosen] -= shift_of_means(vectors[once].astype(np.float32), prior)
    return shifted


def _line_columns(utterances: Sequence[Utterance], source: LineFeatures) -> Vectors:
    """Return the means of transcripts' rows; that of no words is 0."""
    found = np.zeros((len(utterances), source.frontend.dim))
    for place, utterance in zip(found, utterances, strict=True):
        rows = source.rows(utterance)[: source.frontend.length]
        if rows.shape[0]:
            place[:] = rows.mean(axis=0)
    return found
