"""CAT: which branch asks, arrangements, importance."""

from __future__ import annotations

import functools

import pytest
import torch

from edgeser.runtime.errors import InputError


@pytest.fixture
def build(build_filter_bank):
    return functools.partial(build_filter_bank, "cat")


@pytest.mark.parametrize(("asking", "answering"), [("cnn", "lstm"), ("lstm", "cnn")])
def test_the_asking_branch_gives_queries_and_the_other_keys_and_values(build, batch, asking, answering):
    """CtoL: queries from the convolutions, keys and values from the LSTM (section 2.3); LtoC the other way round."""
    model = build(arrangement=f"{asking}-to-{answering}")
    seen, rows = {}, {}
    attention = model.transformers[asking][0].attention
    attention.register_forward_hook(
        lambda _, given, __: seen.update(zip(("query", "key", "value", "length"), given, strict=True))
    )
    for name, branch in model.branches.items():
        branch.register_forward_hook(lambda _, __, out, name=name: rows.update({name: out[0]}))
    model(batch(model))
    layer = model.transformers[asking][0]
    torch.testing.assert_close(seen["query"], layer.norm_query(rows[asking]))
    torch.testing.assert_close(seen["key"], layer.norm_key(rows[answering]))
    torch.testing.assert_close(seen["value"], seen["key"])


def test_both_directions_are_added(build, batch):
    """With one direction's layers taken from CAT, the logits of the ablations add up to CAT's."""
    model = build()
    inputs = batch(model)
    bias = model.classifier[1].bias
    total = torch.zeros(4, 4)
    for arrangement in ("cnn-to-lstm", "lstm-to-cnn"):
        one = build(arrangement=arrangement)
        one.load_state_dict({k: v for k, v in model.state_dict().items() if k in one.state_dict()})
        total += one(inputs).logits - bias
    torch.testing.assert_close(model(inputs).logits, total + bias, rtol=1e-4, atol=1e-5)


def test_without_a_transformer_the_branches_are_added(build, batch):
    model = build(arrangement="no-transformer")
    inputs = batch(model, [320, 0])
    rows = {}
    for name, branch in model.branches.items():
        branch.register_forward_hook(lambda _, __, out, name=name: rows.update({name: out[0]}))
    logits = model(inputs).logits
    expected = model.classifier(rows["cnn"][0, :20].mean(0) + rows["lstm"][0, :20].mean(0))
    torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[1], model.classifier[1].bias)


def test_importance_is_that_of_the_rows_that_answer(build, batch):
    """Each direction's shares of attention, spread over the rows that a key stands for, and their mean."""
    model = build(stride=8)
    sums = {}
    for name in ("cnn", "lstm"):
        attention = model.transformers[name][0].attention
        attention.project_q.weight.data *= 20.0  # so that shares differ
        attention.register_forward_hook(lambda _, given, out, name=name: sums.update({name: (out[1], given[0])}))
    importance = model(batch(model, [320])).importance["audio"][0]
    expected = torch.zeros(320)
    for asking, stride in (("cnn", 8), ("lstm", 16)):  # asked by the convolutions, the LSTM's rows of 8 answer
        columns, queries = sums[asking]
        share = columns[0].mean(dim=0) / queries.shape[1]
        assert share[: 320 // stride].std() > 1e-4
        expected += (share / stride).repeat_interleave(stride)[:320] / 2
    torch.testing.assert_close(importance[:320], expected)
    torch.testing.assert_close(importance.sum(), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrangement": "neither"}, "got arrangement 'neither', expected one of both, cnn-to-lstm"),
        ({"stride": 0}, "got stride 0, expected at least 1"),
        ({"fusion": "plus"}, "unknown option among"),
    ],
)
def test_bad_configurations_are_refused(build, changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)
