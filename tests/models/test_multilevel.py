"""Multilevel and multi-granularity models: what is their own; the rest is in `test_families.py`."""

from __future__ import annotations

import pytest
import torch

from edgeser.models import InputSpec, build_model
from edgeser.nn.highway import Highway
from edgeser.runtime.errors import InputError

AUDIO = InputSpec(625, 128, "log-mel")
TEXT = InputSpec(20, 300, "word-vectors")
PHONEMES = InputSpec(20, 16, "phonemes")
SENTENCE = InputSpec(1, 768, "onnx-encoder")
ALL = {"audio": AUDIO, "text": TEXT, "phonemes": PHONEMES}


def batch(inputs: dict[str, InputSpec], lengths: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    made = {}
    for name, spec in inputs.items():
        shape = (len(lengths[name]), spec.length, spec.dim)
        rows = torch.randint(0, 42, shape).float() if name == "phonemes" else torch.randn(shape)
        length = torch.tensor(lengths[name], dtype=torch.int32)
        made[name] = rows * (torch.arange(spec.length) < length[:, None])[:, :, None]
        made[f"{name}_length"] = length
    return made


def test_paper_is_the_published_shape():
    model = build_model("multilevel", "paper", ALL, 4)
    encoder = model.encoder
    assert isinstance(encoder.combine, Highway)
    assert len(encoder.combine.transforms) == 2
    assert len(encoder.text_prenet.convolutions) == 3
    assert (len(encoder.text_encoder), len(encoder.cross), len(encoder.fusion)) == (1, 1, 2)
    assert encoder.dummy.shape == (128,)
    assert model.classifier.in_features == 128


def test_without_deep_fusion_there_is_no_dummy_vector():
    model = build_model("multilevel", "compact", ALL, 4, depths=(1, 1, 0))
    assert not hasattr(model.encoder, "dummy")


@pytest.mark.parametrize("depths", [(3, 3, 1), (2, 2, 1), (1, 1, 1), (1, 1, 2), (1, 1, 3), (2, 2, 2), (2, 2, 3)])
def test_depths_of_table_2(depths):
    encoder = build_model("multilevel", "compact", ALL, 4, depths=depths).encoder
    assert (len(encoder.text_encoder), len(encoder.cross), len(encoder.fusion)) == depths


@pytest.mark.parametrize("changes", [{}, {"depths": (1, 1, 0)}, {"combine": "concatenation"}])
def test_padding_does_not_matter_and_everything_else_does(changes):
    model = build_model("multilevel", "paper", ALL, 4, **changes).eval()
    inputs = batch(ALL, {"audio": [300, 0], "text": [7, 0], "phonemes": [7, 0]})
    logits = model(inputs).logits
    assert torch.isfinite(logits).all()
    padded = dict(inputs)
    padded["audio"] = inputs["audio"] + 9.0 * (inputs["audio"] == 0)
    padded["text"] = inputs["text"] - 9.0 * (inputs["text"] == 0)
    padded["phonemes"] = inputs["phonemes"].clone()
    padded["phonemes"][:, 7:] = 5.0
    torch.testing.assert_close(model(padded).logits[0], logits[0])
    for name in ALL:
        changed = dict(inputs)
        changed[name] = inputs[name].clone()
        changed[name][0, 3] = torch.randint(1, 42, (16,)).float() if name == "phonemes" else 3.0
        assert (model(changed).logits[0] - logits[0]).abs().max() > 1e-5, name


def test_the_sentence_counts_beside_the_fine_grained_part_and_alone():
    inputs = {**ALL, "sentence": SENTENCE}
    model = build_model("multigranularity", "compact", inputs, 4).eval()
    given = batch(inputs, {"audio": [300], "text": [7], "phonemes": [7], "sentence": [1]})
    logits = model(given).logits
    for name in inputs:
        assert (model({**given, name: given[name] * 0.5}).logits - logits).abs().max() > 1e-5, name
    without = {**given, "sentence_length": torch.zeros(1, dtype=torch.int32)}
    torch.testing.assert_close(model(without).logits, model({**given, "sentence": given["sentence"] * 0.0}).logits)
    alone = build_model("multigranularity", "paper", {"sentence": SENTENCE}, 4)
    assert alone.encoder is None
    assert alone.importances == ()


@pytest.mark.parametrize(
    ("family", "inputs", "changes", "message"),
    [
        ("multilevel", {"audio": AUDIO}, {}, "expected audio with text, phonemes or both"),
        ("multilevel", ALL, {"depths": (1, 0, 2)}, "the middle one at least 1"),
        ("multilevel", ALL, {"combine": "sum"}, "got combine 'sum'"),
        ("multilevel", ALL, {"heads": 5}, "no multiple of 5 heads"),
        ("multilevel", {**ALL, "text": InputSpec(20, 384, "onnx-encoder")}, {}, "expected word vectors"),
        ("multilevel", {**ALL, "phonemes": InputSpec(10, 16, "phonemes")}, {}, "10 of phonemes"),
        ("multigranularity", ALL, {}, "got modalities audio,text,phonemes, expected"),
        ("multigranularity", {**ALL, "sentence": InputSpec(20, 8, "onnx-encoder")}, {}, "run `edgeser export-encoder`"),
        ("multigranularity", {"sentence": SENTENCE}, {"combine": "highway"}, "the sentence alone has no use for"),
    ],
)
def test_bad_configurations_are_refused(family, inputs, changes, message):
    with pytest.raises(InputError, match=message):
        build_model(family, "compact", inputs, 4, **changes)
