"""Which rows speak for the answer: contributions of rows to the winning logit, as part of the forward pass.

A model that pools rows and classifies the pooled vector is linear in its rows from there on, once the classifier's
ReLUs are known to be open or shut. So a row's contribution is its product with the gradient (as in class activation
maps, Zhou et al. 2016), and the gradient of a small classifier is two matrix products: no backward pass, and every
engine can run it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeser.nn.positions import masked_mean, valid_rows


def contrast(logits: Tensor) -> Tensor:
    """Return `(N, classes)`: 1 for the winning class, and -1 shared by the others."""
    classes = logits.shape[1]
    winner = (torch.arange(classes, device=logits.device) == logits.argmax(dim=1, keepdim=True)).to(logits.dtype)
    return winner - (1.0 - winner) / (classes - 1)


def classifier_gradient(classifier: nn.Sequential, x: Tensor, direction: Tensor) -> Tensor:
    """Return the gradient at `x` `(N, D)` of the logits along `direction` `(N, classes)`.

    Args:
        classifier: Linear layers with ReLUs and dropouts between them.
        x: What the classifier got.
        direction: Weight of each logit.
    """
    linears = [layer for layer in classifier if isinstance(layer, nn.Linear)]
    is_open: list[Tensor] = []
    for layer in linears[:-1]:
        x = torch.relu(layer(x))
        is_open.append((x > 0).to(x.dtype))
    gradient = torch.matmul(direction, linears[-1].weight)
    for layer, mask in zip(reversed(linears[:-1]), reversed(is_open), strict=True):
        gradient = torch.matmul(gradient * mask, layer.weight)
    return gradient


def mean_contribution(rows: Tensor, length: Tensor, gradient: Tensor) -> Tensor:
    """Return what each of `(N, T, D)` rows adds, through their mean, along `gradient` `(N, D)`: `(N, T)`."""
    return torch.matmul(rows, gradient[:, :, None])[:, :, 0] / length[:, None].clamp(min=1)


def statistics_contribution(rows: Tensor, statistics: Tensor, length: Tensor, gradient: Tensor) -> Tensor:
    """Return what each row adds through `masked_statistics` (mean and deviation) of all rows, to first order.

    Args:
        rows: `(N, T, D)`.
        statistics: `(N, 2 D)`, their mean and deviation.
        length: `(N,)` valid rows.
        gradient: `(N, 2 D)`.
    """
    mean, std = statistics.chunk(2, dim=1)
    along_mean, along_std = gradient.chunk(2, dim=1)
    spread = (rows - mean[:, None]).square()
    deviation = torch.matmul(spread, (along_std / (2.0 * std.clamp(min=1e-3)))[:, :, None])[:, :, 0]
    return mean_contribution(rows, length, along_mean) + deviation / length[:, None].clamp(min=1)


def relevance(contribution: Tensor, length: Tensor) -> Tensor:
    """Return `(N, T)` >= 0: how much more a valid row contributes than the average one; 0 in padding."""
    mean = masked_mean(contribution[:, :, None], length)
    # The small constant keeps the relevance of a single row above 0.
    return (torch.relu(contribution - mean) + 1e-6) * valid_rows(length, contribution.shape[1])
