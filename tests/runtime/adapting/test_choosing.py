from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.adapting.choosing import GRID, Span, Strength, choose, correct, divisions, held_out_logits
from edgeser.runtime.adapting.clips import Clips, balance
from edgeser.runtime.errors import InputError

LABELS = ("angry", "happy", "sad")


def drawn(seed: int, each: int = 6, dim: int = 30, apart: float = 0.0, logits: float = 1.0) -> Clips:
    """Clips of three classes whose means are `apart`; the logits know nothing of them."""
    random = np.random.default_rng(seed)
    classes = np.repeat(np.arange(3), each)
    means = random.normal(size=(3 * each, dim)) + apart * np.eye(3, dim)[classes]
    base = logits * random.normal(size=(3 * each, 3))
    return Clips(LABELS, classes, np.arange(3 * each), means, base, base, np.zeros((0, dim)))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=6, max_size=20),
    st.integers(0, 5),
)
def test_divisions(recordings: list[tuple[int, int]], seed: int) -> None:
    """Recordings of a class, each with one to three clips."""
    recordings = [*recordings, *[(c, 1) for c in range(3)] * 2]
    order = np.random.default_rng(seed).permutation(sum(n for _, n in recordings))
    classes = np.array([c for c, n in recordings for _ in range(n)])[order]
    groups = np.array([g for g, (_, n) in enumerate(recordings) for _ in range(n)])[order]
    count = classes.size
    logits = np.zeros((count, 3))
    clips = Clips(LABELS, classes, groups, np.zeros((count, 2)), logits, logits, np.zeros((0, 2)))
    everyone = np.arange(count)
    parts = list(divisions(clips, everyone))
    assert 2 <= len(parts) <= 5
    np.testing.assert_array_equal(np.sort(np.concatenate([out for _, out in parts])), everyone)
    for known, held_out in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([known, held_out])), everyone)
        assert not set(groups[known]) & set(groups[held_out])
        assert set(classes[known]) == {0, 1, 2}


def test_what_there_is_to_learn_is_found_and_is_worth_what_it_says() -> None:
    clips, fresh = drawn(0, each=20, apart=4.0), drawn(1, each=200, apart=4.0)
    span, everyone = Span.of(clips), np.arange(60)
    correction = correct(clips, span, everyone, choose(clips, span, everyone))
    rows = (fresh.means - span.center) @ span.basis
    truth = float((correction.logits(rows, fresh.logits).argmax(axis=1) == fresh.classes).mean())
    estimate = float((held_out_logits(clips, span).argmax(axis=1) == clips.classes).mean())
    assert truth > 0.85 > (fresh.logits.argmax(axis=1) == fresh.classes).mean() + 0.3
    assert estimate == pytest.approx(truth, abs=0.1)


def test_where_there_is_nothing_to_learn_the_estimate_says_so() -> None:
    """A span of 1,000 columns separates any 30 clips; those that are held out are not fooled."""
    estimates = []
    for seed in range(8):
        clips = drawn(seed, each=10, dim=1000)
        span = Span.of(clips)
        fitted = correct(clips, span, np.arange(30), Strength(0.25, 0.1)).logits(span.rows, clips.logits)
        assert (fitted.argmax(axis=1) == clips.classes).all()
        estimates.append((held_out_logits(clips, span).argmax(axis=1) == clips.classes).mean())
    assert np.mean(estimates) == pytest.approx(1 / 3, abs=0.12)


def test_copies_of_a_clip_are_not_held_out_from_each_other() -> None:
    """The classes are drawn at random; each clip is there three times."""
    one = drawn(3, each=8, dim=200)
    again = np.repeat(np.arange(24), 3)
    logits = one.logits[again]
    copies = Clips(LABELS, one.classes[again], one.groups[again], one.means[again], logits, logits, np.zeros((0, 200)))
    estimate = (held_out_logits(copies, Span.of(copies)).argmax(axis=1) == copies.classes).mean()
    assert estimate < 0.6


@pytest.mark.parametrize("pieces", [0, 40])
def test_a_span_keeps_all_distances(pieces: int) -> None:
    """They are Mahalanobis's, by what rows differ by within a clip; Euclid's where nothing is known of that."""
    random = np.random.default_rng(0)
    means = random.normal(size=(12, 100))
    means[5] = means[4]
    deviations = random.normal(size=(pieces, 100)) * np.linspace(0.1, 5.0, 100)
    logits = np.zeros((12, 3))
    clips = Clips(LABELS, np.repeat(np.arange(3), 4), np.arange(12), means, logits, logits, deviations)
    span = Span.of(clips)
    spread = np.eye(100)
    if pieces:
        spread = deviations.T @ deviations
        spread = 0.8 * spread * (100 / np.trace(spread)) + 0.2 * np.eye(100)
    centered = means - means.mean(axis=0)
    assert span.rows.shape[1] == 10  # twelve, less the center, less the one that is there twice
    np.testing.assert_allclose(span.rows @ span.rows.T, centered @ np.linalg.inv(spread) @ centered.T, atol=1e-8)
    np.testing.assert_allclose((means - span.center) @ span.basis, span.rows, atol=1e-8)


def test_what_changes_within_clips_is_not_what_is_learned() -> None:
    """Two directions tell the classes apart; one of them changes within every clip, so the other is relied on."""
    random = np.random.default_rng(1)
    classes = np.repeat(np.arange(2), 6)
    means = 0.1 * random.normal(size=(12, 20))
    means[:, 0] += 2.0 * classes
    means[:, 1] += 2.0 * classes
    deviations = random.normal(size=(200, 20)) * np.where(np.arange(20) == 0, 10.0, 1.0)
    logits = np.zeros((12, 2))
    weights = []
    for known in (deviations, np.zeros((0, 20))):
        clips = Clips(LABELS[:2], classes, np.arange(12), means, logits, logits, known)
        span = Span.of(clips)
        weights.append(np.abs(span.basis @ correct(clips, span, np.arange(12), Strength(1.0, 1.0)).weights)[:, 1])
    assert weights[0][0] < 0.3 * weights[0][1]
    assert weights[1][0] == pytest.approx(weights[1][1], rel=0.2)


def test_equal_clips_have_no_span_and_end() -> None:
    logits, equal = np.zeros((6, 3)), np.ones((6, 9))
    clips = Clips(LABELS, np.repeat(np.arange(3), 2), np.arange(6), equal, logits, logits, 0.0 * equal)
    span, everyone = Span.of(clips), np.arange(6)
    correction = correct(clips, span, everyone, GRID[0])
    np.testing.assert_allclose(correction.logits(span.rows, clips.logits), np.zeros((6, 3)), atol=1e-6)


def test_the_best_weights_lie_in_the_span() -> None:
    """The correction is that of a fit with all columns, by scikit-learn, where the shipped logits are all equal."""
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    clips = drawn(4, each=7, dim=50, logits=0.0)
    span = Span.of(clips)
    correction = correct(clips, span, np.arange(21), Strength(1.0, 0.3))
    l2 = 0.3 * span.size
    centered = np.column_stack([clips.means - span.center, np.full(21, np.sqrt(l2))])
    reference = linear_model.LogisticRegression(C=1 / l2, fit_intercept=False, tol=1e-12, max_iter=10_000)
    reference.fit(centered, clips.classes)
    np.testing.assert_allclose(span.basis @ correction.weights, reference.coef_[:, :-1].T, atol=1e-5)


def test_classes_count_the_same() -> None:
    weights = balance(np.array([0, 0, 0, 1, 3]), 4)
    np.testing.assert_allclose([weights[:3].sum(), weights[3], weights[4]], 5 / 3)
    assert weights.mean() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("counts", "message"), [((2, 2, 0), "0 of sad"), ((3, 1, 1), "1 of happy, 1 of sad"), ((2, 2), "4 in all")]
)
def test_too_few(counts: tuple[int, ...], message: str) -> None:
    classes = np.repeat(np.arange(len(counts)), counts)
    empty = np.zeros((classes.size, len(counts)))
    with pytest.raises(InputError, match=f"clips: got {message}, expected at least 2 recordings of each"):
        Clips(LABELS[: len(counts)], classes, np.arange(classes.size), empty, empty, empty, empty)
