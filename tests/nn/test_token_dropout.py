"""Token dropout against a plain loop over equations 5 and 6 of the DropFormer paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.nn.token_dropout import TokenDropout, Tokens, all_places, put_back
from edgeser.nn.transformer import Stream


def expected(importance: list[float], length: int, rate: float) -> list[int]:
    """Return the places that stay, in their order; of equally important rows the first."""
    ranked = sorted(range(length), key=lambda place: (-importance[place], place))
    return sorted(ranked[: length - int(length * rate + 1e-4)])


def tokens_of(rows: torch.Tensor, length: list[int]) -> Tokens:
    stream = Stream(rows, torch.zeros(rows.shape[1:]), torch.tensor(length, dtype=torch.int32))
    return Tokens(stream, all_places(stream))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.sampled_from([0.1, 0.25, 0.3, 0.5]), st.sampled_from([1, 2, 5, 40]), st.data())
def test_the_least_important_go_and_the_others_keep_their_order(count, rate, values, data):
    """Few values make many ties, which PyTorch 2.13 and OpenVINO 2026.4 break in other ways than ONNX says."""
    length = data.draw(st.integers(0, count))
    importance = torch.tensor(data.draw(st.permutations(range(count))), dtype=torch.float32) % values
    rows = torch.arange(count, dtype=torch.float32)[None, :, None].expand(1, count, 3)
    dropped = TokenDropout(count, rate)(tokens_of(rows, [length]), importance[None])
    kept = expected(importance.tolist(), length, rate)
    assert dropped.stream.rows.shape == (1, count - int(count * rate + 1e-4), 3)
    assert dropped.stream.length.tolist() == [len(kept)]
    assert dropped.stream.length.dtype == torch.int32
    assert dropped.stream.rows[0, : len(kept), 0].tolist() == kept
    assert dropped.places[0, : len(kept)].tolist() == kept


def test_the_papers_lengths():
    lengths = [460]
    for _ in range(4):
        lengths.append(TokenDropout(lengths[-1], 0.1).rows)
    assert lengths == [460, 414, 373, 336, 303]
    assert pytest.approx(0.3439, abs=1e-4) == 1 - 0.9**4  # the paper's 34.39 %; its 35.39 % is a slip


def test_a_full_sample_fills_the_fixed_length_at_every_length():
    for count in range(1, 600):
        dropout = TokenDropout(count, 0.1)
        assert count - int(count * 0.1 + 1e-4) == dropout.rows
        short = expected(list(range(count)), count - 1, 0.1)
        assert len(short) <= dropout.rows


def test_padding_never_stays_before_speech():
    importance = torch.tensor([[0.0, 0.0, 0.0, 0.0, 9.0, 9.0]])  # what lies in padding does not count
    rows = torch.arange(6.0)[None, :, None]
    dropped = TokenDropout(6, 0.34)(tokens_of(rows, [3]), importance)
    assert dropped.stream.length.tolist() == [2]
    assert set(dropped.places[0, :2].tolist()) <= {0, 1, 2}


def test_twice_dropped_rows_are_found_where_they_stood():
    generator = np.random.default_rng(0)
    importance = torch.from_numpy(generator.permutation(20).astype(np.float32))[None]
    tokens = tokens_of(torch.arange(20.0)[None, :, None], [17])
    first = TokenDropout(20, 0.2)(tokens, importance)
    second = TokenDropout(first.stream.rows.shape[1], 0.2)(first, first.stream.rows[:, :, 0])
    valid = int(second.stream.length[0])
    assert second.places[0, :valid].tolist() == second.stream.rows[0, :valid, 0].long().tolist()
    back = put_back(second.stream.rows[:, :, 0] + 1.0, second, 20)
    for place in range(20):
        stays = place in second.places[0, :valid].tolist()
        assert back[0, place].item() == (place + 1.0 if stays else 0.0)


def test_nothing_at_all_stays_nothing():
    dropped = TokenDropout(10, 0.1)(tokens_of(torch.ones(1, 10, 2), [0]), torch.zeros(1, 10))
    assert dropped.stream.length.tolist() == [0]
    assert put_back(torch.ones(1, 9), dropped, 10).abs().max() == 0
