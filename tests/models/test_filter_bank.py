"""What CAT and ILT have in common: answers, padding, configurations."""

from __future__ import annotations

import json

import pytest
import torch

from edgeser.models import FAMILIES, InputSpec, build_model, restore_model
from edgeser.runtime.errors import InputError

AUDIO = {"audio": InputSpec(750, 40, "log-mel")}
BOTH = ("cat", "ilt")
VARIANTS = [(name, changes) for name in BOTH for changes in ({}, *FAMILIES[name].variants.values())]


def assert_answers(model, inputs, classes=4):
    with torch.inference_mode():
        output = model(inputs)
    lengths = inputs["audio_length"].tolist()
    assert output.logits.shape == (len(lengths), classes)
    assert torch.isfinite(output.logits).all()
    assert set(output.importance) == set(model.importances)
    for weights in output.importance.values():
        assert weights.shape == (len(lengths), model.inputs["audio"].length)
        for row, valid in zip(weights, lengths, strict=True):
            assert (row[valid:] == 0).all()
            assert (row >= 0).all()
            assert row[:valid].sum() > 0 or valid == 0
            assert row.sum() <= 1.0 + 1e-5


@pytest.mark.parametrize(
    ("family", "changes"), [*VARIANTS, ("cat", {"bidirectional": False}), ("cat", {"positions": True})]
)
def test_every_variant_answers_and_trains(build_filter_bank, batch, family, changes):
    model = build_filter_bank(family, **changes)
    inputs = batch(model)
    assert model.importances == (() if changes.get("arrangement") == "no-transformer" else ("audio",))
    assert_answers(model, inputs)
    output = model.train()(inputs)
    assert output.importance == {}
    output.logits.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize(("length", "dim"), [(1, 1), (50, 13), (460, 128)])
@pytest.mark.parametrize("preset", ["paper", "compact"])
def test_other_filter_banks_are_taken_too(build_filter_bank, batch, family, preset, length, dim):
    model = build_filter_bank(family, preset, (length, dim), classes=3)
    assert_answers(model, batch(model, [length, 1, 0]), classes=3)


@pytest.mark.parametrize(("family", "paper", "compact"), [("cat", 3_077_604, 351_292), ("ilt", 1_856_486, 153_054)])
def test_presets_have_the_sizes_in_the_documents(build_filter_bank, family, paper, compact):
    assert build_filter_bank(family, "paper").parameter_count() == paper
    assert build_filter_bank(family).parameter_count() == compact


@pytest.mark.parametrize(
    ("family", "others", "apart"), [("cat", (), 1e-4), ("ilt", ({"alpha": 0.9, "fusion": "plus"},), 1e-5)]
)
def test_variants_are_different_models(build_filter_bank, batch, family, others, apart):
    seen = []
    for changes in ({}, *others, *FAMILIES[family].variants.values()):
        model = build_filter_bank(family, **changes)
        weights = getattr(getattr(model, "fusion", None), "weights", None)
        if weights is not None:
            weights.data = torch.tensor([0.6, 0.0])  # both begin with a half, as `plus` stays
        logits = model(batch(model)).logits[0].detach()
        assert all((logits - other).abs().max() > apart for other in seen), changes
        seen.append(logits)


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize(("preset", "hears"), [("compact", False), ("paper", True)])
def test_compact_hears_nothing_in_padding_and_paper_does(build_filter_bank, batch, family, preset, hears):
    model = build_filter_bank(family, preset)
    inputs = batch(model, [160])
    before = model(inputs).logits
    inputs["audio"][:, 240:] = 2.0  # convolutions see a few rows past the end, which frontends leave at 0
    assert ((model(inputs).logits - before).abs().max() > 1e-4) == hears


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("cat", {"arrangement": "lstm-to-cnn", "stride": 5, "bidirectional": False}),
        ("ilt", {"fusion": "plus", "alpha": 0.7, "positions": True}),
    ],
)
def test_configuration_restores_the_same_model(build_filter_bank, batch, family, changes):
    model = build_filter_bank(family, **changes)
    twin = restore_model(family, json.loads(json.dumps(model.configuration())))
    assert twin.config == model.config
    twin.load_state_dict(model.state_dict())
    inputs = batch(model)
    assert torch.equal(twin.eval()(inputs).logits, model(inputs).logits)


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize(
    ("preset", "inputs", "changes", "message"),
    [
        ("tiny", AUDIO, {}, "got preset 'tiny', expected one of paper, compact"),
        ("paper", {"audio": InputSpec(460, 512, "onnx-encoder")}, {}, "got audio rows of frontend 'onnx-encoder'"),
        ("compact", {"audio": InputSpec(460, 512, "onnx-encoder")}, {}, "expected log-mel: this family reads log-mels"),
        (
            "compact",
            {"text": InputSpec(20, 50, "word-vectors")},
            {},
            r"got modalities \['text'\], expected audio alone",
        ),
        ("compact", {**AUDIO, "text": InputSpec(20, 50, "word-vectors")}, {}, "expected audio alone: it reads log-mel"),
        ("compact", {}, {}, r"got modalities \[\], expected audio alone"),
        ("compact", AUDIO, {"heads": 5}, "got width 96, expected an even multiple of its 5 heads"),
        ("compact", AUDIO, {"width": 97, "heads": 1}, "got width 97, expected an even multiple"),
        ("compact", AUDIO, {"pools": [2, 2]}, "expected as many of either"),
        ("compact", AUDIO, {"channels": [], "pools": []}, "expected as many of either"),
        ("compact", AUDIO, {"layers": 0}, "expected at least 1"),
        ("compact", AUDIO, {"dropout": 1.0}, "got dropout 1.0, expected 0 to below 1"),
        ("compact", AUDIO, {"attention_dropout": -0.1}, "got attention_dropout -0.1"),
        ("compact", AUDIO, {"depth": 3}, "unknown option among"),
    ],
)
def test_bad_configurations_are_refused(family, preset, inputs, changes, message):
    with pytest.raises(InputError, match=f"^{family}: .*{message}"):
        build_model(family, preset, inputs, 4, **changes)
