from __future__ import annotations

import pytest
import torch

from edgeser.models import InputSpec, build_model, restore_model
from edgeser.nn.attention import kept_keys
from edgeser.nn.positions import masked_statistics
from edgeser.nn.sparsity import KeySparse
from edgeser.runtime.errors import InputError

PAPER = {"audio": InputSpec(460, 512, "onnx-encoder"), "text": InputSpec(20, 1024, "onnx-encoder")}
COMPACT = {"audio": InputSpec(460, 80, "log-mel"), "text": InputSpec(20, 50, "word-vectors")}


def batch(model, lengths):
    torch.manual_seed(3)
    inputs = {}
    for name, spec in model.inputs.items():
        inputs[name] = torch.randn(len(lengths[name]), spec.length, spec.dim)
        inputs[f"{name}_length"] = torch.tensor(lengths[name], dtype=torch.int32)
    return inputs


def test_paper_preset_has_the_published_size():
    assert build_model("ks-transformer", "paper", PAPER, 4).parameter_count() == 85_340_036  # 85.3 M


def test_compact_preset_is_compact():
    assert 500_000 <= build_model("ks-transformer", "compact", COMPACT, 4).parameter_count() <= 2_000_000


@pytest.mark.parametrize("modalities", [("audio", "text"), ("audio",), ("text",)])
@pytest.mark.parametrize(
    "changes", [{}, {"sparse": False}, {"layers": (1, 0, 1)}, {"layers": (2, 3, 0)}, {"keep_rate": 0.1}]
)
def test_every_shape_of_model_answers(modalities, changes):
    inputs = {name: COMPACT[name] for name in modalities}
    model = build_model("ks-transformer", "compact", inputs, 4, **changes).eval()
    lengths = {"audio": [460, 17, 1], "text": [20, 0, 3]}
    output = model(batch(model, lengths))
    logits, importance = output.logits, output.importance
    assert logits.shape == (3, 4)
    assert torch.isfinite(logits).all()
    assert set(importance) == set(modalities)
    for name, weights in importance.items():
        assert weights.shape == (3, inputs[name].length)
        for row, length in zip(weights, lengths[name], strict=True):
            assert (row[length:] == 0).all()
            assert (row >= 0).all()
            assert row[:length].sum() > 0 or length == 0


ENCODED = {"audio": InputSpec(460, 48, "onnx-encoder"), "text": InputSpec(20, 24, "onnx-encoder")}


@pytest.mark.parametrize("modalities", [("audio", "text"), ("audio",), ("text",)])
@pytest.mark.parametrize(
    "changes", [{}, {"skip": None}, {"readout": "attention"}, {"layers": (0, 0, 0)}, {"skip_statistics": "mean"}]
)
def test_encoder_rows_are_taken_too(modalities, changes):
    inputs = {name: ENCODED[name] for name in modalities}
    model = build_model("ks-transformer", "compact", inputs, 4, **changes)
    prepared = batch(model, {"audio": [460, 17, 1, 230], "text": [20, 0, 3, 1]})
    model.prepare([prepared])
    trained = model.train()(prepared)
    assert set(trained.parts) == ({"fusion", *modalities} if model.config.skip else set())
    sum(part.sum() for part in (trained.logits, *trained.parts.values())).backward()
    output = model.eval()(prepared)
    assert torch.isfinite(output.logits).all()
    for name, weights in output.importance.items():
        for row, length in zip(weights, prepared[f"{name}_length"].tolist(), strict=True):
            assert (row[length:] == 0).all()
            assert (row >= 0).all()
            assert row[:length].sum() > 0 or length == 0


def test_a_missing_modality_leaves_the_other_skips_answer():
    model = build_model("ks-transformer", "compact", ENCODED, 4, layers=(0, 0, 0)).eval()
    inputs = batch(model, {"audio": [100, 100], "text": [5, 0]})
    model.prepare([inputs])
    inputs["audio"][1] = inputs["audio"][0]
    with torch.no_grad():
        skip = model.skips["text"]
        words = skip(masked_statistics(inputs["text"], inputs["text_length"]), inputs["text_length"])
    torch.testing.assert_close(words[1], skip.classify.bias.detach())


def test_an_unknown_readout_is_refused():
    with pytest.raises(InputError, match="got readout 'gradient', expected attention or relevance"):
        build_model("ks-transformer", "compact", ENCODED, 4, readout="gradient")


def test_masked_padding_makes_the_answer_independent_of_what_lies_in_it():
    model = build_model("ks-transformer", "compact", COMPACT, 4).eval()
    inputs = batch(model, {"audio": [96], "text": [4]})
    # The convolutions see a few rows past the end, which frontends leave at zero: keep those.
    inputs["audio"][:, 96:] = 0.0
    clean = model(inputs).logits
    inputs["audio"][:, 160:], inputs["text"][:, 4:] = 9.0, -9.0
    torch.testing.assert_close(model(inputs).logits, clean)


def test_words_and_voice_both_count():
    model = build_model("ks-transformer", "compact", COMPACT, 4).eval()
    inputs = batch(model, {"audio": [300], "text": [8]})
    logits = model(inputs).logits
    for name in ("audio", "text"):
        changed = dict(inputs)
        changed[name] = inputs[name] + torch.randn_like(inputs[name])
        assert (model(changed).logits - logits).abs().max() > 1e-4


def test_interaction_needs_both_modalities_and_reads_them_before_either_is_updated():
    model = build_model("ks-transformer", "compact", COMPACT, 4).eval()
    assert set(model.interaction) == {"audio", "text"}
    alone = build_model("ks-transformer", "compact", {"audio": COMPACT["audio"]}, 4)
    assert len(alone.interaction) == 0


@pytest.mark.parametrize("ccabs", range(5))
def test_any_number_of_ccabs(ccabs):
    model = build_model("ks-transformer", "compact", COMPACT, 4, layers=(1, ccabs, 1)).eval()
    assert [len(blocks) for blocks in model.interaction.values()] == [ccabs, ccabs]
    inputs = batch(model, {"audio": [300], "text": [8]})
    assert torch.isfinite(model(inputs).logits).all()


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_keep_rates_of_figure_6(rate):
    model = build_model("ks-transformer", "compact", COMPACT, 4, keep_rate=rate).eval()
    assert model.fusion["text"][0].attention.attend == KeySparse(rate)
    assert kept_keys(460, rate) == round(460 * rate)
    assert kept_keys(20, rate) == round(20 * rate)
    assert torch.isfinite(model(batch(model, {"audio": [300], "text": [8]})).logits).all()


@pytest.mark.parametrize("variant", ["MIM+DFM", "FEM+MIM", "w/o CCAB"])
def test_modules_can_be_left_out(variant):
    changes = type(build_model("ks-transformer", "compact", COMPACT, 4)).variants[variant]
    model = build_model("ks-transformer", "compact", COMPACT, 4, **changes)
    there = [bool(len(part["audio"])) for part in (model.extraction, model.interaction, model.fusion)]
    assert there == [m in changes["modules"] for m in ("extraction", "interaction", "fusion")]


def test_configuration_restores_the_same_model():
    model = build_model("ks-transformer", "compact", COMPACT, 4, keep_rate=0.3).eval()
    twin = restore_model("ks-transformer", model.configuration())
    twin.load_state_dict(model.state_dict())
    inputs = batch(model, {"audio": [300], "text": [8]})
    assert torch.equal(twin.eval()(inputs).logits, model(inputs).logits)


@pytest.mark.parametrize(
    ("family", "preset", "inputs", "changes", "message"),
    [
        ("ks", "compact", COMPACT, {}, "family: got 'ks', expected one of ks-transformer, dropformer, cat"),
        ("ks-transformer", "tiny", COMPACT, {}, "got preset 'tiny', expected one of paper, compact"),
        ("ks-transformer", "compact", COMPACT, {"keep_rate": 0.0}, "got keep_rate 0.0"),
        ("ks-transformer", "compact", COMPACT, {"layers": (1, 1)}, "expected three counts"),
        ("ks-transformer", "compact", COMPACT, {"modules": ("head",)}, "expected of extraction"),
        ("ks-transformer", "compact", COMPACT, {"heads": 7}, "no multiple of 7 heads"),
        ("ks-transformer", "compact", COMPACT, {"depth": 3}, "unknown option among"),
        ("ks-transformer", "compact", {}, {}, "expected audio, text or both"),
    ],
)
def test_bad_configurations_are_refused(family, preset, inputs, changes, message):
    with pytest.raises(InputError, match=message):
        build_model(family, preset, inputs, 4, **changes)


def test_a_skip_on_the_mean_alone_is_blind_to_deviations():
    model = build_model("ks-transformer", "compact", ENCODED, 4, skip_statistics="mean").eval()
    inputs = batch(model, {"audio": [100, 100], "text": [5, 5]})
    model.prepare([inputs])
    assert model.skips["audio"].classify.in_features == 48
    mean = inputs["audio"][0, :100].mean(dim=0)
    inputs["audio"][1, :100] = mean  # the same mean, and no deviation
    inputs["audio"][0, 100:] = 7.0  # padding is not heard
    with torch.no_grad():
        skip = model.skips["audio"]
        first, second = skip(skip.measure(inputs["audio"], inputs["audio_length"]), inputs["audio_length"])
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


def test_bundles_from_before_have_a_skip_on_both():
    model = build_model("ks-transformer", "compact", ENCODED, 4)
    configuration = model.configuration()
    assert configuration.pop("skip_statistics") == "mean-deviation"
    old = restore_model("ks-transformer", configuration)
    old.load_state_dict(model.state_dict())
    assert old.config == model.config
    narrow = build_model("ks-transformer", "compact", ENCODED, 4, skip_statistics="mean")
    assert restore_model("ks-transformer", narrow.configuration()).config == narrow.config
    with pytest.raises(InputError, match="got skip_statistics 'median', expected mean-deviation or mean"):
        build_model("ks-transformer", "compact", ENCODED, 4, skip_statistics="median")
