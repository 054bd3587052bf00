from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeser.runtime.adapting.regression import Problem, fit, log_softmax
from edgeser.runtime.errors import InputError


def finite(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, width=32)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    n, width, classes = draw(st.integers(2, 12)), draw(st.integers(1, 8)), draw(st.integers(2, 5))
    return Problem(
        draw(arrays(np.float64, (n, width), elements=finite(-5, 5))),
        draw(arrays(np.float64, (n, classes), elements=finite(-10, 10))),
        np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)), dtype=np.intp),
        draw(arrays(np.float64, (n,), elements=finite(0.125, 4))),
        draw(finite(0.0625, 1e4)),
    )


def drawn(seed: int, n: int = 40, width: int = 6, classes: int = 4, l2: float = 0.5, offsets: float = 1.0) -> Problem:
    random = np.random.default_rng(seed)
    return Problem(
        random.normal(size=(n, width)),
        offsets * random.normal(size=(n, classes)),
        random.integers(0, classes, n),
        np.ones(n),
        l2,
    )


@settings(deadline=None)
@given(problems())
def test_the_gradient_is_zero_at_the_optimum(problem: Problem) -> None:
    coefficients = fit(problem)
    slope = problem.gradient(coefficients, np.exp(log_softmax(problem.logits(coefficients))))
    assert np.abs(slope).max() < 1e-6 * problem.weights.sum()


@settings(deadline=None)
@given(problems(), st.integers(0, 10))
def test_every_other_correction_is_worse(problem: Problem, seed: int) -> None:
    best = fit(problem)
    for size in (1e-3, 0.1, 10.0):
        other = best + size * np.random.default_rng(seed).normal(size=best.shape)
        assert problem.loss(other) > problem.loss(best)


@settings(deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_does_not_matter(problem: Problem, random: Any) -> None:
    order = list(range(problem.offsets.shape[1]))
    random.shuffle(order)
    classes = np.array([order.index(c) for c in problem.classes], dtype=np.intp)
    permuted = Problem(problem.rows, problem.offsets[:, order], classes, problem.weights, problem.l2)
    np.testing.assert_allclose(fit(permuted), fit(problem)[:, order], atol=1e-5)


@settings(deadline=None)
@given(problems())
def test_a_strong_penalty_leaves_the_offsets_alone(problem: Problem) -> None:
    strong = Problem(problem.rows, problem.offsets, problem.classes, problem.weights, 1e12)
    np.testing.assert_allclose(strong.logits(fit(strong)), problem.offsets, atol=1e-6)


@settings(deadline=None)
@given(problems())
def test_the_same_input_gives_the_same_answer(problem: Problem) -> None:
    assert np.array_equal(fit(problem), fit(problem))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("l2", [0.05, 1.0, 30.0])
def test_without_offsets_it_is_logistic_regression(seed: int, l2: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    problem = drawn(seed, l2=l2, offsets=0.0)
    reference = linear_model.LogisticRegression(C=1 / l2, fit_intercept=False, tol=1e-10, max_iter=10_000)
    reference.fit(problem.rows, problem.classes)
    np.testing.assert_allclose(fit(problem).T, reference.coef_, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_offsets_are_rows_whose_coefficients_are_fixed(seed: int) -> None:
    # Rows that count alike, with offsets that are linear in them: the optimum is that of the rows alone, moved.
    problem = drawn(seed, l2=1e-6, offsets=0.0)
    moved = np.random.default_rng(seed).normal(size=(6, 4))
    with_offsets = Problem(problem.rows, problem.rows @ moved, problem.classes, problem.weights, 1e-6)
    np.testing.assert_allclose(
        log_softmax(with_offsets.logits(fit(with_offsets))), log_softmax(problem.logits(fit(problem))), atol=1e-3
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_a_weight_of_two_is_a_clip_that_stands_there_twice(seed: int) -> None:
    problem = drawn(seed, n=10)
    weights = np.ones(10)
    weights[0] = 2.0
    weighted = Problem(problem.rows, problem.offsets, problem.classes, weights, problem.l2)
    again = [0, *range(10)]
    doubled = Problem(problem.rows[again], problem.offsets[again], problem.classes[again], np.ones(11), problem.l2)
    np.testing.assert_allclose(fit(weighted), fit(doubled), atol=1e-6)


def test_far_apart_classes_and_huge_offsets_end() -> None:
    rows = np.array([[1e3], [-1e3]])
    problem = Problem(rows, np.array([[1e4, -1e4], [1e4, -1e4]]), np.array([1, 0]), np.ones(2), 1e-3)
    coefficients = fit(problem)
    assert np.isfinite(coefficients).all()
    assert problem.loss(coefficients) < problem.loss(np.zeros((1, 2)))


@pytest.mark.parametrize("l2", [0.0, -1.0, float("nan")])
def test_no_penalty(l2: float) -> None:
    with pytest.raises(InputError, match=r"l2: got .*, expected more than 0"):
        drawn(0, l2=l2)


def test_not_finite() -> None:
    problem = drawn(0)
    problem.rows[3, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        fit(problem)
