"""CAT: which branch asks, arrangements, importance."""

from __future__ import annotations

import json

import pytest
import torch

from edgeser.models import InputSpec, build_model, restore_model
from edgeser.models.cat import CAT
from edgeser.runtime.errors import InputError

AUDIO = {"audio": InputSpec(750, 40, "log-mel")}
LENGTHS = [750, 33, 1, 0]


def build(preset="compact", **changes):
    torch.manual_seed(0)
    return build_model("cat", preset, AUDIO, 4, **changes).eval()


def batch(model, lengths=LENGTHS):
    torch.manual_seed(3)
    spec = model.inputs["audio"]
    rows = torch.randn(len(lengths), spec.length, spec.dim)
    for row, length in zip(rows, lengths, strict=True):
        row[length:] = 0.0
    return {"audio": rows, "audio_length": torch.tensor(lengths, dtype=torch.int32)}


@pytest.mark.parametrize("changes", [{}, {"bidirectional": False}, {"positions": True}, *CAT.variants.values()])
def test_every_variant_answers_and_trains(changes):
    model = build(**changes)
    inputs = batch(model)
    with torch.inference_mode():
        output = model(inputs)
    assert output.logits.shape == (4, 4)
    assert torch.isfinite(output.logits).all()
    assert set(output.importance) == set(model.importances)
    assert model.importances == (() if changes.get("arrangement") == "no-transformer" else ("audio",))
    for weights in output.importance.values():
        assert weights.shape == (4, 750)
        for row, valid in zip(weights, LENGTHS, strict=True):
            assert (row[valid:] == 0).all()
            assert (row >= 0).all()
            assert row[:valid].sum() > 0 or valid == 0
            assert row.sum() <= 1.0 + 1e-5
    output = model.train()(inputs)
    assert output.importance == {}
    output.logits.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("length", "dim"), [(1, 1), (50, 13), (460, 128)])
@pytest.mark.parametrize("preset", ["paper", "compact"])
def test_other_filter_banks_are_taken_too(preset, length, dim):
    model = build_model("cat", preset, {"audio": InputSpec(length, dim, "log-mel")}, 3).eval()
    output = model(batch(model, [length, 1, 0]))
    assert output.logits.shape == (3, 3)
    assert torch.isfinite(output.logits).all()
    assert output.importance["audio"].shape == (3, length)


def test_presets_have_the_sizes_in_the_documents():
    assert build("paper").parameter_count() == 3_077_604
    assert build().parameter_count() == 351_292


def test_variants_are_different_models():
    inputs = batch(build())
    seen = []
    for changes in ({}, *CAT.variants.values()):
        logits = build(**changes)(inputs).logits[0].detach()
        assert all((logits - other).abs().max() > 1e-4 for other in seen), changes
        seen.append(logits)


@pytest.mark.parametrize(("asking", "answering"), [("cnn", "lstm"), ("lstm", "cnn")])
def test_the_asking_branch_gives_queries_and_the_other_keys_and_values(asking, answering):
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


def test_both_directions_are_added():
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


def test_without_a_transformer_the_branches_are_added():
    model = build(arrangement="no-transformer")
    inputs = batch(model, [320, 0])
    rows = {}
    for name, branch in model.branches.items():
        branch.register_forward_hook(lambda _, __, out, name=name: rows.update({name: out[0]}))
    logits = model(inputs).logits
    expected = model.classifier(rows["cnn"][0, :20].mean(0) + rows["lstm"][0, :20].mean(0))
    torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[1], model.classifier[1].bias)


def test_importance_is_that_of_the_rows_that_answer():
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


def test_compact_hears_nothing_in_padding_and_paper_does():
    for preset, hears in (("compact", False), ("paper", True)):
        model = build(preset)
        inputs = batch(model, [160])
        before = model(inputs).logits
        inputs["audio"][:, 240:] = 2.0  # convolutions see a few rows past the end, which frontends leave at 0
        assert ((model(inputs).logits - before).abs().max() > 1e-4) == hears


def test_configuration_restores_the_same_model():
    model = build(arrangement="lstm-to-cnn", stride=5, bidirectional=False)
    twin = restore_model("cat", json.loads(json.dumps(model.configuration())))
    assert twin.config == model.config
    twin.load_state_dict(model.state_dict())
    inputs = batch(model)
    assert torch.equal(twin.eval()(inputs).logits, model(inputs).logits)


@pytest.mark.parametrize(
    ("preset", "inputs", "changes", "message"),
    [
        ("tiny", AUDIO, {}, "cat: got preset 'tiny', expected one of paper, compact"),
        ("paper", {"audio": InputSpec(460, 512, "onnx-encoder")}, {}, "got audio rows of frontend 'onnx-encoder'"),
        ("compact", {"text": InputSpec(20, 50, "word-vectors")}, {}, r"got modalities \['text'\], expected audio"),
        ("compact", AUDIO, {"arrangement": "neither"}, "got arrangement 'neither', expected one of both, cnn-to-lstm"),
        ("compact", AUDIO, {"stride": 0}, "got stride 0, expected at least 1"),
        ("compact", AUDIO, {"attention_dropout": -0.1}, "got attention_dropout -0.1"),
        ("compact", AUDIO, {"fusion": "plus"}, "unknown option among"),
    ],
)
def test_bad_configurations_are_refused(preset, inputs, changes, message):
    with pytest.raises(InputError, match=message):
        build_model("cat", preset, inputs, 4, **changes)
