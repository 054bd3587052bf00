"""ILT: fusion, arrangements, importance."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from edgeser.models import InputSpec, build_model, restore_model
from edgeser.models.ilt import ILT, Fusion
from edgeser.nn.recurrent import AttentionPooling
from edgeser.runtime.errors import InputError

AUDIO = {"audio": InputSpec(750, 40, "log-mel")}
LENGTHS = [750, 33, 1, 0]


def build(preset="compact", **changes):
    torch.manual_seed(0)
    return build_model("ilt", preset, AUDIO, 4, **changes).eval()


def batch(model, lengths=LENGTHS):
    torch.manual_seed(3)
    spec = model.inputs["audio"]
    rows = torch.randn(len(lengths), spec.length, spec.dim)
    for row, length in zip(rows, lengths, strict=True):
        row[length:] = 0.0
    return {"audio": rows, "audio_length": torch.tensor(lengths, dtype=torch.int32)}


def assert_answers(model, inputs):
    with torch.inference_mode():
        output = model(inputs)
    length = model.inputs["audio"].length
    assert output.logits.shape == (inputs["audio"].shape[0], model.config.classes)
    assert torch.isfinite(output.logits).all()
    assert set(output.importance) == set(model.importances)
    for weights in output.importance.values():
        assert weights.shape == (inputs["audio"].shape[0], length)
        for row, valid in zip(weights, inputs["audio_length"].tolist(), strict=True):
            assert (row[valid:] == 0).all()
            assert (row >= 0).all()
            assert row[:valid].sum() > 0 or valid == 0
            assert row.sum() <= 1.0 + 1e-5


@pytest.mark.parametrize("changes", [{}, *ILT.variants.values()])
def test_every_variant_answers(changes):
    model = build(**changes)
    assert_answers(model, batch(model))


@pytest.mark.parametrize("changes", [{}, {"arrangement": "no-lstm"}, {"arrangement": "cascaded"}])
def test_every_variant_trains(changes):
    model = build(**changes).train()
    output = model(batch(model))
    assert output.importance == {}
    output.logits.sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []


@pytest.mark.parametrize(("length", "dim"), [(1, 1), (50, 13), (460, 128)])
@pytest.mark.parametrize("preset", ["paper", "compact"])
def test_other_filter_banks_are_taken_too(preset, length, dim):
    model = build_model("ilt", preset, {"audio": InputSpec(length, dim, "log-mel")}, 3).eval()
    assert_answers(model, batch(model, [length, 1, 0]))


def test_presets_have_the_sizes_in_the_documents():
    assert build("paper").parameter_count() == 1_856_486
    assert build().parameter_count() == 153_054


def test_variants_are_different_models():
    inputs = batch(build())
    seen = []
    for changes in ({}, {"alpha": 0.9, "fusion": "plus"}, *ILT.variants.values()):
        model = build(**changes)
        if "weights" in dict(model.named_parameters()) or hasattr(getattr(model, "fusion", None), "weights"):
            model.fusion.weights.data = torch.tensor([0.6, 0.0])  # both begin with a half, as `plus` stays
        logits = model(inputs).logits[0].detach()
        assert all((logits - other).abs().max() > 1e-5 for other in seen), changes
        seen.append(logits)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_plus_follows_equation_13(alpha):
    first, second = torch.randn(2, 5), torch.randn(2, 5)
    expected = alpha * first.numpy() + (1 - alpha) * second.numpy()
    np.testing.assert_allclose(Fusion("plus", alpha)(first, second).numpy(), expected, rtol=1e-6)


def test_trainable_plus_follows_equations_14_to_16():
    fusion = Fusion("trainable-plus")
    assert torch.softmax(fusion.weights, 0).tolist() == [0.5, 0.5]
    fusion.weights.data = torch.tensor([0.9, -0.2])
    first, second = torch.randn(2, 5), torch.randn(2, 5)
    a, b = np.exp(0.9) / (np.exp(0.9) + np.exp(-0.2)), np.exp(-0.2) / (np.exp(0.9) + np.exp(-0.2))
    expected = a * first.numpy() + b * second.numpy()
    np.testing.assert_allclose(fusion(first, second).detach().numpy(), expected, rtol=1e-5)


def test_concatenation_follows_equation_12():
    first, second = torch.randn(2, 5), torch.randn(2, 5)
    assert torch.equal(Fusion("concatenation")(first, second), torch.cat([first, second], dim=1))


def test_the_lstm_comes_first_in_the_fusion():
    """`alpha` is the LSTM's share: with all of it, the transformer has no say, and with none, the LSTM."""
    for alpha, silent in ((1.0, "transformer"), (0.0, "lstm")):
        model = build(fusion="plus", alpha=alpha)
        inputs = batch(model, [300])
        before = model(inputs).logits
        for parameter in getattr(model, silent).parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        torch.testing.assert_close(model(inputs).logits, before)
        other = "lstm" if silent == "transformer" else "transformer"
        for parameter in getattr(model, other).parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        assert (model(inputs).logits - before).abs().max() > 1e-3


def test_importance_is_the_pooling_of_the_lstm():
    model = build()
    found = []
    pooling = model.pooling
    assert isinstance(pooling, AttentionPooling)
    pooling.register_forward_hook(lambda _, __, out: found.append(out[1]))
    pooling.score.weight.data *= 30.0  # so that weights differ
    importance = model(batch(model, [320])).importance["audio"][0]
    beta = found[0][0]
    assert beta[:20].std() > 1e-3
    for row in range(20):
        torch.testing.assert_close(importance[row * 16 : row * 16 + 16], (beta[row] / 16).expand(16))


def test_compact_hears_nothing_in_padding_and_paper_does():
    for preset, hears in (("compact", False), ("paper", True)):
        model = build(preset)
        inputs = batch(model, [160])
        before = model(inputs).logits
        inputs["audio"][:, 240:] = 2.0  # convolutions see a few rows past the end, which frontends leave at 0
        assert ((model(inputs).logits - before).abs().max() > 1e-4) == hears


def test_configuration_restores_the_same_model():
    model = build(fusion="plus", alpha=0.7, positions=True)
    twin = restore_model("ilt", json.loads(json.dumps(model.configuration())))
    assert twin.config == model.config
    twin.load_state_dict(model.state_dict())
    inputs = batch(model)
    assert torch.equal(twin.eval()(inputs).logits, model(inputs).logits)


@pytest.mark.parametrize(
    ("preset", "inputs", "changes", "message"),
    [
        ("tiny", AUDIO, {}, "ilt: got preset 'tiny', expected one of paper, compact"),
        ("compact", {"audio": InputSpec(460, 512, "onnx-encoder")}, {}, "expected log-mel: this family reads log-mels"),
        ("compact", {**AUDIO, "text": InputSpec(20, 50, "word-vectors")}, {}, "expected audio alone: it reads log-mel"),
        ("compact", {}, {}, r"got modalities \[\], expected audio alone"),
        ("compact", AUDIO, {"fusion": "gated"}, "got fusion 'gated', expected one of concatenation, plus, trainable"),
        ("compact", AUDIO, {"arrangement": "serial"}, "got arrangement 'serial', expected one of parallel, cascaded"),
        ("compact", AUDIO, {"alpha": 1.5}, "got alpha 1.5, expected 0 to 1"),
        ("compact", AUDIO, {"heads": 5}, "got width 96, expected an even multiple of its 5 heads"),
        ("compact", AUDIO, {"width": 97, "heads": 1}, "got width 97, expected an even multiple"),
        ("compact", AUDIO, {"pools": [2, 2]}, "expected as many of either"),
        ("compact", AUDIO, {"channels": [], "pools": []}, "expected as many of either"),
        ("compact", AUDIO, {"layers": 0}, "expected at least 1"),
        ("compact", AUDIO, {"dropout": 1.0}, "got dropout 1.0, expected 0 to below 1"),
        ("compact", AUDIO, {"depth": 3}, "unknown option among"),
    ],
)
def test_bad_configurations_are_refused(preset, inputs, changes, message):
    with pytest.raises(InputError, match=message):
        build_model("ilt", preset, inputs, 4, **changes)
