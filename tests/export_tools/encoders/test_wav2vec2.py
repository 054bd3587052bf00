"""wav2vec 2.0, HuBERT and WavLM: small random ones, against `transformers`' model and feature extractor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgeser.export_tools.encoders.wav2vec2 import Wav2Vec2Encoder, receptive_field, wav2vec2_from_transformers
from edgeser.runtime.audio import Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import SpeechEncoder

Deviations = Callable[[NDArray[Any], NDArray[Any]], float]
LENGTH = 40
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 8,
}
SHORT = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 3, 2), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3}
SAMPLES = 39 * 20 + 30  # the three convolutions hop by 20 samples and see 30


@dataclass(frozen=True)
class Variant:
    """A checkpoint as its authors might have made it."""

    kind: str
    norm: str
    stable: bool
    masks: bool
    normalises: bool

    def __str__(self) -> str:
        words = [self.kind, self.norm, "stable" * self.stable, "masks" * self.masks, "raw" * (not self.normalises)]
        return "-".join(word for word in words if word)


EXPORTED = (
    Variant("wav2vec2", "group", False, False, True),
    Variant("hubert", "layer", True, True, True),
    Variant("wavlm", "layer", True, True, False),
)
VARIANTS = (
    *EXPORTED,
    Variant("wav2vec2", "layer", True, True, True),
    Variant("wav2vec2", "group", False, True, False),
    Variant("hubert", "group", False, False, False),
    Variant("wavlm", "group", False, False, True),
    Variant("wavlm", "group", False, True, True),
)


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory, randomise: Callable[[nn.Module], None]) -> Callable[..., Path]:
    """Save a small random checkpoint, with a head or without."""
    import transformers

    names = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}

    def make(variant: Variant, head: str = "Model", **sizes: Any) -> Path:
        folder = tmp_path_factory.mktemp(str(variant))
        config = getattr(transformers, f"{names[variant.kind]}Config")(
            **{**SIZES, **SHORT, **sizes}, feat_extract_norm=variant.norm, do_stable_layer_norm=variant.stable
        )
        model = getattr(transformers, f"{names[variant.kind]}{head}")(config)
        randomise(model)
        model.save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(
            return_attention_mask=variant.masks, do_normalize=variant.normalises
        ).save_pretrained(folder)
        return folder

    return make


def hidden_states(folder: Path, samples: Samples, size: int) -> list[NDArray[np.float32]]:
    """Every hidden state's valid rows, as `transformers` makes them from padded samples.

    The extractor normalises the utterance by itself: asked to pad one for a checkpoint without masks, it would count
    the padding in. The last state is the one after the final norm, which `hidden_states` leaves out since 5.0.
    """
    from transformers import AutoModel, Wav2Vec2FeatureExtractor

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    heard = samples[:size]
    values = extractor(heard, sampling_rate=16_000, return_tensors="np").input_values[0]
    room = size - heard.shape[0]
    inputs = {"input_values": torch.from_numpy(np.pad(values, (0, room)))[None]}
    if extractor.return_attention_mask:
        inputs["attention_mask"] = torch.tensor([[1] * heard.shape[0] + [0] * room])
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    valid = int(model._get_feat_extract_output_lengths(heard.shape[0]))
    return [state[0, :valid].numpy() for state in (*output.hidden_states[:-1], output.last_hidden_state)]


def excerpts(speech: Samples) -> list[Samples]:
    """From the middle of a word: exactly the window, far less, one row and a sample, and more than fits."""
    return [speech[20_000 : 20_000 + size] for size in (SAMPLES, 413, 31, 2000)]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_all_hidden_states_are_transformers(
    save: Callable[..., Path],
    speech: Samples,
    in_pytorch: Callable[..., SpeechEncoder],
    deviations: Deviations,
    variant: Variant,
) -> None:
    """Within 1e-4 standard deviations, padding and all."""
    folder = save(variant)
    encoder = wav2vec2_from_transformers(folder, LENGTH)
    assert (encoder.architecture, encoder.layers, encoder.masks_padding) == (variant.kind, 2, variant.masks)
    frontend = in_pytorch(encoder, LENGTH, "0+1+2")
    for samples in excerpts(speech):
        expected = np.concatenate(hidden_states(folder, samples, SAMPLES), axis=1)
        assert expected.shape[0] == min(LENGTH, 1 + (samples.shape[0] - 30) // 20)
        assert deviations(frontend.rows(samples), expected) < 1e-4


@pytest.mark.parametrize("variant", EXPORTED, ids=str)
def test_the_exported_graph_is_transformers(
    save: Callable[..., Path],
    speech: Samples,
    by_command: Callable[..., SpeechEncoder],
    deviations: Deviations,
    variant: Variant,
) -> None:
    """Within 1e-4 standard deviations; one graph with all layers side by side, through the command."""
    folder = save(variant)
    frontend = by_command(folder, "--layer", "0+1+2", "--length", str(LENGTH))
    assert (frontend.length, frontend.dim) == (LENGTH, 48)
    assert (frontend.hop_s * 16_000, frontend.window_s * 16_000) == (20, 30)
    assert len(frontend._encoder.engine.inputs) == 1 + variant.masks
    for samples in excerpts(speech):
        expected = np.concatenate(hidden_states(folder, samples, SAMPLES), axis=1)
        features = frontend(samples)
        assert features.valid == expected.shape[0]
        assert features.total == 1 + (samples.shape[0] - 30) // 20
        assert deviations(features.values[: features.valid], expected) < 1e-4


def test_padding_is_heard_only_without_a_mask(
    save: Callable[..., Path], speech: Samples, in_pytorch: Callable[..., SpeechEncoder]
) -> None:
    """So that the variants above differ at all: 20 rows alone, and in a window of 40."""
    samples = speech[20_000 : 20_000 + 20 * 20 + 10]
    for variant in (VARIANTS[0], VARIANTS[3]):
        folder = save(variant)
        short, long = (
            in_pytorch(wav2vec2_from_transformers(folder, length), length).rows(samples) for length in (20, LENGTH)
        )
        assert short.shape == long.shape
        assert (np.abs(short - long).max() < 1e-4) == variant.masks


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
def test_a_learned_sum_of_layers(
    save: Callable[..., Path],
    speech: Samples,
    in_pytorch: Callable[..., SpeechEncoder],
    deviations: Deviations,
    kind: str,
) -> None:
    """The softmax of a classifier's `layer_weights`, as `transformers`' heads apply it."""
    from safetensors.torch import load_file

    variant = Variant(kind, "layer", True, True, True)
    folder = save(variant, "ForSequenceClassification", use_weighted_layer_sum=True)
    weights = torch.softmax(load_file(folder / "model.safetensors")["layer_weights"], dim=0).numpy()
    assert weights.std() > 0.01
    samples = speech[20_000:20_700]
    expected = sum(w * state for w, state in zip(weights, hidden_states(folder, samples, SAMPLES), strict=True))
    frontend = in_pytorch(wav2vec2_from_transformers(folder, LENGTH), LENGTH, "learned")
    assert deviations(frontend.rows(samples), np.asarray(expected)) < 1e-4


def test_learned_weights_of_every_kind_of_file(save: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import Wav2Vec2ForSequenceClassification

    folder = save(VARIANTS[0], "ForSequenceClassification", use_weighted_layer_sum=True)
    learned = wav2vec2_from_transformers(folder, LENGTH).learned
    assert learned is not None
    assert len(learned) == 3
    model = Wav2Vec2ForSequenceClassification.from_pretrained(folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    assert wav2vec2_from_transformers(tmp_path / "shards", LENGTH).learned == learned
    (tmp_path / "bin").mkdir()
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path / "bin")
    assert wav2vec2_from_transformers(tmp_path / "bin", LENGTH).learned == learned


def test_no_layer_weights_to_learn_from(save: Callable[..., Path], in_pytorch: Callable[..., SpeechEncoder]) -> None:
    encoder = wav2vec2_from_transformers(save(VARIANTS[0]), LENGTH)
    with pytest.raises(InputError, match="--layer learned: the checkpoint has no layer_weights"):
        in_pytorch(encoder, LENGTH, "learned")


@pytest.mark.parametrize(("norm", "masks"), [("group", False), ("layer", True)])
def test_without_a_preprocessor_the_extractors_norm_decides(save: Callable[..., Path], norm: str, masks: bool) -> None:
    """As `transformers` documents it: checkpoints with a group norm were trained without masks."""
    folder = save(Variant("wav2vec2", norm, False, not masks, False))
    (folder / "preprocessor_config.json").unlink()
    encoder = wav2vec2_from_transformers(folder, LENGTH)
    assert encoder.masks_padding == masks
    assert encoder.describe()["normalisation"] == "zero-mean-unit-variance"


def test_default_convolutions_give_exactly_460_rows(save: Callable[..., Path]) -> None:
    """9.22 s of 16 kHz: one sample less gives one row less."""
    convolutions = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
    folder = save(VARIANTS[0], conv_dim=(4,) * 7, num_feat_extract_layers=7, **convolutions)
    encoder = wav2vec2_from_transformers(folder, 460)
    description = encoder.describe()
    assert (description["hop_s"], description["window_s"]) == (0.02, 0.025)
    size = round((459 * description["hop_s"] + description["window_s"]) * 16_000)
    assert size == 147_280
    assert int(encoder.model._get_feat_extract_output_lengths(size)) == 460
    assert int(encoder.model._get_feat_extract_output_lengths(size - 1)) == 459
    with torch.inference_mode():
        assert encoder.model.feature_extractor(torch.zeros(1, size)).shape == (1, 4, 460)


@pytest.mark.parametrize(
    ("kernels", "strides", "hop", "window"),
    [((10, 3, 2), (5, 2, 2), 20, 30), ((1,), (1,), 1, 1), ((10, 8, 4, 4, 4, 1, 1), (5, 4, 2, 2, 2, 1, 1), 160, 465)],
)
def test_receptive_field(kernels: tuple[int, ...], strides: tuple[int, ...], hop: int, window: int) -> None:
    assert receptive_field(kernels, strides) == (hop, window)


def test_weights_of_another_model_are_refused(save: Callable[..., Path]) -> None:
    """`transformers` would fill what is missing with random numbers and only warn."""
    from safetensors.torch import load_file, save_file

    folder = save(VARIANTS[0])
    tensors = load_file(folder / "model.safetensors")
    left = {n: t for n, t in tensors.items() if "layers.1.attention.q_proj" not in n}
    save_file(left, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks .*layers\.1\.attention\.q_proj"):
        wav2vec2_from_transformers(folder, LENGTH)


def test_an_unreadable_file_is_named(save: Callable[..., Path]) -> None:
    folder = save(VARIANTS[0])
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="not readable") as caught:
        wav2vec2_from_transformers(folder, LENGTH)
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_does_not_run(save: Callable[..., Path], tmp_path: Path) -> None:
    folder = save(VARIANTS[0])
    (folder / "model.safetensors").unlink()
    torch.save({"weight": _Malicious(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="not readable"):
        wav2vec2_from_transformers(folder, LENGTH)
    assert not (tmp_path / "ran").exists()


def test_the_encoder_takes_any_models_module() -> None:
    """A batch-normed positional convolution (HuBERT's option) is not parametrized and stays as it is."""
    from transformers import HubertConfig, HubertModel

    model = HubertModel(HubertConfig(**SIZES, **SHORT, conv_pos_batch_norm=True)).eval()
    encoder = Wav2Vec2Encoder(model, False, True, None)
    values = torch.randn(2, SAMPLES)
    with torch.inference_mode():
        expected = model(values).last_hidden_state
        torch.testing.assert_close(encoder.hidden(values, None, 2)[-1], expected, atol=1e-4, rtol=0)
