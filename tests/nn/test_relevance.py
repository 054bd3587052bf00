"""Relevance against PyTorch's own gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeser.nn.positions import masked_mean, masked_statistics
from edgeser.nn.relevance import (
    classifier_gradient,
    contrast,
    mean_contribution,
    relevance,
    statistics_contribution,
)
from edgeser.nn.skip import StatisticsSkip


def rows(lengths: list[int], width: int = 6, total: int = 9) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(len(lengths), total, width, dtype=torch.float64)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 0.0
    return x, torch.tensor(lengths, dtype=torch.int32)


def test_contrast_sets_the_winner_against_the_others() -> None:
    found = contrast(torch.tensor([[0.0, 3.0, 1.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([[-1 / 3, 1.0, -1 / 3, -1 / 3]]))


def test_the_classifiers_gradient_is_autograds() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 4)]
    classifier = nn.Sequential(*layers).double().eval()
    x = torch.randn(7, 8, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(7, 4, dtype=torch.float64)
    (expected,) = torch.autograd.grad((classifier(x) * direction).sum(), x)
    torch.testing.assert_close(classifier_gradient(classifier, x.detach(), direction), expected)


def test_contributions_through_the_mean_add_up_to_it() -> None:
    x, length = rows([9, 4, 1, 0])
    gradient = torch.randn(4, 6, dtype=torch.float64)
    total = mean_contribution(x, length, gradient).sum(dim=1)
    torch.testing.assert_close(total, (masked_mean(x, length) * gradient).sum(dim=1), check_dtype=False)


def test_contributions_through_the_deviation_are_first_order() -> None:
    """They add up to the gradient times half the deviation: the deviation is the root of a mean of squares."""
    x, length = rows([9, 4])
    statistics = masked_statistics(x, length)
    gradient = torch.randn(2, 12, dtype=torch.float64)
    gradient[:, :6] = 0.0
    inside = torch.arange(9) < length[:, None]
    total = (statistics_contribution(x, statistics, length, gradient) * inside).sum(dim=1)
    torch.testing.assert_close(total, (statistics[:, 6:] * gradient[:, 6:]).sum(dim=1) / 2, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("length", [0, 1, 2, 9])
def test_relevance_is_above_zero_in_valid_rows_only(length: int) -> None:
    found = relevance(torch.randn(1, 9), torch.tensor([length]))
    assert (found[0, :length] > 0).all()
    assert (found[0, length:] == 0).all()


def test_a_skip_standardises_and_knows_its_gradient() -> None:
    torch.manual_seed(0)
    skip = StatisticsSkip(3, 4, dropout=0.5).eval()
    statistics = torch.randn(50, 6) * 5.0 + 2.0
    skip.fit(statistics)
    length = torch.full((50,), 7)
    direction = torch.randn(50, 4)
    wanted = statistics.clone().requires_grad_()
    (expected,) = torch.autograd.grad((skip(wanted, length) * direction).sum(), wanted)
    torch.testing.assert_close(skip.gradient(direction), expected)
    torch.testing.assert_close(skip(statistics, length * 0), skip.classify.bias.expand(50, 4))


def test_statistics_of_rows_match_their_definition() -> None:
    x, length = rows([9, 4, 1, 0])
    found = masked_statistics(x, length)
    for row, count, (mean, std) in zip(x, length.tolist(), (f.chunk(2) for f in found), strict=True):
        valid = row[:count]
        torch.testing.assert_close(mean, valid.mean(dim=0) if count else torch.zeros(6), check_dtype=False)
        expected = (valid.var(dim=0, correction=0) + 1e-5).sqrt() if count else torch.zeros(6)
        torch.testing.assert_close(std, expected, check_dtype=False, rtol=1e-4, atol=1e-4)


def test_a_skip_without_training_rows_stays_neutral() -> None:
    """A corpus without a single transcript must not turn the text's skip into NaN."""
    skip = StatisticsSkip(3, 4, dropout=0.5).eval()
    skip.fit(torch.zeros(0, 6))
    assert torch.isfinite(skip(torch.randn(2, 6), torch.tensor([5, 0]))).all()


@pytest.mark.parametrize("kind", ["mean-deviation", "mean"])
def test_contributions_through_a_skip_are_those_of_its_statistics(kind: str) -> None:
    """Moving one row a little moves the logits by that row's share of the gradient."""
    x, length = rows([9, 4])
    torch.manual_seed(1)
    skip = StatisticsSkip(6, 4, 0.5, kind).double().eval()
    skip.fit(torch.randn(20, skip.classify.in_features, dtype=torch.float64))
    direction = torch.randn(2, 4, dtype=torch.float64)
    wanted = x.clone().requires_grad_()
    measured = skip.measure(wanted, length)
    measured.retain_grad()
    (skip(measured, length) * direction).sum().backward()
    torch.testing.assert_close(skip.gradient(direction), measured.grad, check_dtype=False)
    found = skip.contribution(x, measured.detach(), length, direction)
    if kind == "mean":
        expected = (wanted.grad * x).sum(dim=2)  # linear in the rows
        torch.testing.assert_close(found, expected, check_dtype=False, rtol=1e-5, atol=1e-5)
    else:
        expected = statistics_contribution(x, measured.detach(), length, skip.gradient(direction))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["mean-deviation", "mean"])
@pytest.mark.parametrize("lengths", [[9, 4], [3, 0], [0, 0]])
def test_a_skip_measures_the_same_in_training(kind: str, lengths: list[int]) -> None:
    x, length = rows(lengths)
    skip = StatisticsSkip(6, 4, 0.5, kind)
    torch.testing.assert_close(skip.train().measure(x, length), skip.eval().measure(x, length))
