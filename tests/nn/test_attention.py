"""Key-sparse attention against a plain, slow reference written from the paper's equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.nn.attention import dense_attention, kept_keys, key_sparse_attention


def slow_attention(q, k, v, key_length, keep, scale):
    """Equations 1 to 3, one head and one sample at a time, in float64."""
    samples, heads, _, width = q.shape
    context = np.zeros((samples, heads, q.shape[2], width))
    importance = np.zeros((samples, heads, k.shape[2]))
    for n in range(samples):
        length = key_length[n]
        for h in range(heads):
            if length == 0:
                continue
            weights = np.zeros((q.shape[2], k.shape[2]))
            for i, query in enumerate(q[n, h].astype(np.float64)):
                scores = k[n, h, :length].astype(np.float64) @ query * scale
                exponent = np.exp(scores - scores.max())
                weights[i, :length] = exponent / exponent.sum()
            sums = weights.sum(axis=0)
            threshold = np.sort(sums)[-keep]
            importance[n, h] = sums
            context[n, h] = (weights * (sums >= threshold)) @ v[n, h]
    return context, importance


def attend(q, k, v, lengths, keep, scale):
    tensors = [torch.from_numpy(x.astype(np.float32)) for x in (q, k, v)]
    context, importance = key_sparse_attention(*tensors, torch.tensor(lengths, dtype=torch.int32), keep, scale)
    return context.numpy(), importance.numpy()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 12),
    keys=st.integers(1, 24),
    keep_share=st.floats(0.01, 1.0),
    data=st.data(),
)
def test_equals_the_slow_reference(seed, queries, keys, keep_share, data):
    rng = np.random.default_rng(seed)
    lengths = data.draw(st.lists(st.integers(0, keys), min_size=2, max_size=2))
    q, k, v = (rng.normal(size=(2, 3, rows, 4)) for rows in (queries, keys, keys))
    keep = max(1, int(keys * keep_share))
    expected_context, expected_importance = slow_attention(q, k, v, lengths, keep, 0.5)
    context, importance = attend(q, k, v, lengths, keep, 0.5)
    np.testing.assert_allclose(importance, expected_importance, atol=2e-5)
    # Where two sums are closer than rounding, either key may fall: compare only clear thresholds.
    sums = np.sort(expected_importance, axis=-1)
    clear = keep == keys or (sums[..., -keep] - sums[..., -keep - 1] > 1e-4).all()
    if clear:
        np.testing.assert_allclose(context, expected_context, atol=2e-5)


def test_ties_at_the_threshold_stay():
    q = np.ones((1, 1, 3, 2))
    k = np.ones((1, 1, 4, 2))  # every key draws the same weight
    v = np.arange(8.0).reshape(1, 1, 4, 2)
    context, importance = attend(q, k, v, [4], keep=1, scale=1.0)
    np.testing.assert_allclose(importance, 0.75)
    np.testing.assert_allclose(context, np.broadcast_to(v.mean(axis=2, keepdims=True), (1, 1, 3, 2)))


def test_dropped_weights_are_not_made_up_for():
    rng = np.random.default_rng(1)
    q, k = rng.normal(size=(1, 1, 5, 4)), rng.normal(size=(1, 1, 6, 4))
    context, importance = attend(q, k, np.ones((1, 1, 6, 4)), [6], keep=2, scale=1.0)
    kept_mass = np.sort(importance[0, 0])[-2:].sum()
    assert context[0, 0, :, 0].sum() == pytest.approx(kept_mass, rel=1e-5)
    assert kept_mass < 5.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_padding_weighs_nothing_even_when_all_is_padding(dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 7, 4, dtype=dtype) for _ in range(3))
    lengths = torch.tensor([0, 1, 7], dtype=torch.int32)
    context, importance = key_sparse_attention(q, k, v, lengths, keep=3, scale=0.5)
    assert torch.isfinite(context).all()
    assert (context[0] == 0).all()
    assert (importance[0] == 0).all()
    assert (importance[1, :, 1:] == 0).all()
    torch.testing.assert_close(context[1], v[1, :, :1].expand(2, 7, 4))


def test_padded_content_changes_nothing():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 6, 4) for _ in range(3))
    lengths = torch.tensor([4], dtype=torch.int32)
    before = key_sparse_attention(q, k, v, lengths, 2, 0.5)
    k[:, :, 4:], v[:, :, 4:] = 50.0, -50.0
    after = key_sparse_attention(q, k, v, lengths, 2, 0.5)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


def test_dense_attention_is_torchs_own():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 5, 4) for _ in range(3))
    context, importance = dense_attention(q, k, v, torch.tensor([5, 3]), 0.5)
    mask = torch.arange(5) < torch.tensor([5, 3])[:, None]
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask[:, None, None], scale=0.5)
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(importance.sum(-1), torch.full((2, 2), 5.0))


def test_keeping_every_key_is_dense_attention():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 5, 4) for _ in range(3))
    lengths = torch.tensor([5, 2], dtype=torch.int32)
    for sparse, dense in zip(
        key_sparse_attention(q, k, v, lengths, 5, 0.5), dense_attention(q, k, v, lengths, 0.5), strict=True
    ):
        torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize(("keys", "rate", "kept"), [(460, 0.5, 230), (20, 0.5, 10), (20, 0.01, 1), (7, 0.9, 6)])
def test_kept_keys(keys, rate, kept):
    assert kept_keys(keys, rate) == kept
