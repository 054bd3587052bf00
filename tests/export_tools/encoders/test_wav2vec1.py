"""wav2vec 1.0: a synthetic checkpoint in fairseq's layout, against a reference from fairseq's definition."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgeser.export_tools.encoders.wav2vec1 import Wav2Vec1Encoder, wav2vec1_from_fairseq
from edgeser.runtime.audio import Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import SpeechEncoder

Deviations = Callable[[NDArray[Any], NDArray[Any]], float]
Tensors = dict[str, Tensor]

EXTRACTOR = ((6, 10, 5), (6, 8, 4), (8, 4, 2), (8, 1, 1))
AGGREGATOR = ((8, 2, 1), (8, 3, 1), (12, 4, 1))
HOP, WINDOW = 40, 105  # of EXTRACTOR, in samples
ARGS: dict[str, Any] = {
    "arch": "wav2vec",
    "conv_feature_layers": "[(6, 10, 5), (6, 8, 4), (8, 4, 2), (8, 1, 1)]",
    "conv_aggregator_layers": "[(8, 2, 1)] + [(8, 3, 1), (12, 4, 1)]",
    "skip_connections_agg": True,
    "skip_connections_feat": False,
    "residual_scale": 0.5,
    "log_compression": True,
    "no_conv_bias": False,
    "agg_zero_pad": False,
    "non_affine_group_norm": False,
    "aggregator": "cnn",
    "activation": "relu",
    "project_features": "none",
    "vq_type": "none",
    "dropout": 0.1,
    "lr": [0.005],
}


def fairseq_weights(args: Mapping[str, Any] = ARGS) -> Tensors:
    """Random weights under fairseq's names: their places in `Sequential`s of convolution, dropout, norm, ReLU."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors: Tensors = {}
    width = 1
    for i, (channels, kernel, _) in enumerate(EXTRACTOR):
        place = f"feature_extractor.conv_layers.{i}"
        tensors[f"{place}.0.weight"] = random(channels, width, kernel) / math.sqrt(width * kernel)
        tensors[f"{place}.2.weight"] = 1 + 0.3 * random(channels)
        tensors[f"{place}.2.bias"] = 0.3 * random(channels)
        width = channels
    for i, (channels, kernel, _) in enumerate(AGGREGATOR):
        place = f"feature_aggregator.conv_layers.{i}"
        tensors[f"{place}.1.weight"] = random(channels, width, kernel) / math.sqrt(width * kernel)
        if not args["no_conv_bias"]:
            tensors[f"{place}.1.bias"] = random(channels)
        tensors[f"{place}.3.weight"] = 1 + 0.3 * random(channels)
        tensors[f"{place}.3.bias"] = 0.3 * random(channels)
        if width != channels and args["skip_connections_agg"]:
            tensors[f"feature_aggregator.residual_proj.{i}.weight"] = random(channels, width, 1)
        width = channels
    tensors["wav2vec_predictions.project_to_steps.weight"] = random(width, width, 1, 3)
    tensors["wav2vec_predictions.project_to_steps.bias"] = random(width)
    if args["non_affine_group_norm"]:
        norms = ("2.weight", "2.bias", "3.weight", "3.bias")
        tensors = {n: t for n, t in tensors.items() if ".conv_layers." not in n or n.split(".", 3)[3] not in norms}
    return tensors


def write(file: Path, args: Mapping[str, Any] = ARGS, tensors: Tensors | None = None, **form: Any) -> Path:
    model = fairseq_weights(args) if tensors is None else tensors
    checkpoint = {"args": argparse.Namespace(**args), "model": model, "optimizer_history": [{"num_updates": 3}]}
    torch.save(checkpoint, file, **form)
    return file


def reference(samples: Samples, args: Mapping[str, Any] = ARGS) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`z` and `c` of the audio alone, `(frames, channels)`, as fairseq's `wav2vec.py` computes them in evaluation.

    Extractor: Conv1d without bias, (dropout), GroupNorm(1), ReLU; then log(|x| + 1). Aggregator: ReplicationPad1d or
    ZeroPad1d((k - 1, 0)), Conv1d, (dropout), GroupNorm(1), ReLU; x = (x + projected residual) * sqrt(residual_scale).
    """
    weights = fairseq_weights(args)
    x = torch.from_numpy(samples.copy())[None, None]
    for i, (_, _, stride) in enumerate(EXTRACTOR):
        place = f"feature_extractor.conv_layers.{i}"
        x = functional.conv1d(x, weights[f"{place}.0.weight"], stride=stride)
        x = functional.group_norm(x, 1, weights.get(f"{place}.2.weight"), weights.get(f"{place}.2.bias"))
        x = functional.relu(x)
    if args["log_compression"]:
        x = (x.abs() + 1).log()
    z = x
    for i, (channels, kernel, _) in enumerate(AGGREGATOR):
        place = f"feature_aggregator.conv_layers.{i}"
        residual = x
        x = functional.pad(x, (kernel - 1, 0), mode="constant" if args["agg_zero_pad"] else "replicate")
        x = functional.conv1d(x, weights[f"{place}.1.weight"], weights.get(f"{place}.1.bias"))
        x = functional.group_norm(x, 1, weights.get(f"{place}.3.weight"), weights.get(f"{place}.3.bias"))
        x = functional.relu(x)
        if args["skip_connections_agg"]:
            if residual.shape[1] != channels:
                residual = functional.conv1d(residual, weights[f"feature_aggregator.residual_proj.{i}.weight"])
            x = (x + residual) * math.sqrt(args["residual_scale"])
    return z[0].T.numpy(), x[0].T.numpy()


def excerpts(speech: Samples, length: int) -> list[Samples]:
    """One row, one and a sample less than two, some, exactly the window, and more than it."""
    whole = (length - 1) * HOP + WINDOW
    sizes = (WINDOW, WINDOW + HOP - 1, 700, whole, whole + 500)
    return [speech[20_000 : 20_000 + size] for size in sizes]


def test_valid_rows_are_those_of_the_audio_alone(
    tmp_path: Path, speech: Samples, by_command: Callable[..., SpeechEncoder], deviations: Deviations
) -> None:
    """The exported graph on padded audio, extractor and aggregator side by side, within 1e-4 standard deviations."""
    frontend = by_command(write(tmp_path / "small.pt"), "--layer", "0+1", "--length", "40")
    assert (frontend.length, frontend.dim) == (40, 8 + 12)
    assert (round(frontend.hop_s * 16_000), round(frontend.window_s * 16_000)) == (HOP, WINDOW)
    assert frontend.options()["architecture"] == "wav2vec"
    assert frontend.options()["name"] == "small"
    for samples in excerpts(speech, 40):
        expected = np.concatenate(reference(samples[: frontend.samples_for(40)]), axis=1)
        features = frontend(samples)
        assert features.valid == expected.shape[0] == min(40, 1 + (samples.shape[0] - WINDOW) // HOP)
        assert deviations(features.values[: features.valid], expected) < 1e-4
        assert not features.values[features.valid :].any()


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"agg_zero_pad": True},
        {"no_conv_bias": True},
        {"log_compression": False},
        {"skip_connections_agg": False},
        {"residual_scale": 0.25},
        {"non_affine_group_norm": True},
    ],
    ids=str,
)
def test_every_option_is_fairseqs(
    tmp_path: Path,
    speech: Samples,
    in_pytorch: Callable[..., SpeechEncoder],
    deviations: Deviations,
    changed: dict[str, Any],
) -> None:
    """Within 1e-4 standard deviations, and away from what the other options give."""
    args = ARGS | changed
    frontend = in_pytorch(wav2vec1_from_fairseq(write(tmp_path / "small.pt", args), 40), 40)
    for samples in excerpts(speech, 40):
        expected = reference(samples[: frontend.samples_for(40)], args)[1]
        assert deviations(frontend.rows(samples), expected) < 1e-4
    if changed:
        usual = in_pytorch(wav2vec1_from_fairseq(write(tmp_path / "usual.pt"), 40), 40)
        assert deviations(usual.rows(speech[20_000:20_700]), reference(speech[20_000:20_700], args)[1]) > 1e-2


def test_every_length_gives_the_rows_it_says(
    tmp_path: Path, speech: Samples, in_pytorch: Callable[..., SpeechEncoder], deviations: Deviations
) -> None:
    frontend = in_pytorch(wav2vec1_from_fairseq(write(tmp_path / "small.pt"), 12), 12)
    for size in range(WINDOW, frontend.samples_for(12) + 1, 7):
        samples = speech[20_000 : 20_000 + size]
        assert deviations(frontend.rows(samples), reference(samples)[1]) < 1e-4


def test_old_files_and_newer_settings_are_read(tmp_path: Path) -> None:
    """`wav2vec_large.pt` is of 2019, before torch's zip files; later fairseq keeps its settings under `cfg`."""
    new = wav2vec1_from_fairseq(write(tmp_path / "new.pt"), 12)
    old = wav2vec1_from_fairseq(write(tmp_path / "old.pt", _use_new_zipfile_serialization=False), 12)
    torch.save({"args": None, "cfg": {"model": ARGS}, "model": fairseq_weights()}, tmp_path / "cfg.pt")
    for other in (old, wav2vec1_from_fairseq(tmp_path / "cfg.pt", 12)):
        for name, tensor in new.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], tensor, atol=0, rtol=0)


def test_default_shapes_are_the_large_models() -> None:
    """512 features every 10 ms, each from 465 samples (29 ms); 460 rows are 4.62 s."""
    encoder = Wav2Vec1Encoder({}).eval()
    description = encoder.describe()
    assert description["hop_s"] * 16_000 == 160
    assert description["window_s"] * 16_000 == 465
    assert description["normalisation"] == "none"
    assert len(encoder.aggregator) == 12
    size = 459 * 160 + 465
    frames = torch.tensor([size, size - 1])
    for block in encoder.extractor:
        frames = block.frames(frames)
    assert frames.tolist() == [460, 459]
    with torch.inference_mode():
        short = 2 * 160 + 465
        states = encoder.hidden(torch.randn(1, short), torch.tensor([short]), 1)
    assert [tuple(state.shape) for state in states] == [(1, 3, 512), (1, 3, 512)]


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "malicious.pt"
    args = {**ARGS, "lr": _Malicious(tmp_path / "ran")}
    write(file, args, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="not readable as a fairseq checkpoint") as caught:
        wav2vec1_from_fairseq(file, 12)
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(caught.value)
    torch.load(file, weights_only=False)  # the test's own check: an ordinary load does run it
    assert (tmp_path / "ran").exists()


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 4_000), zipped=st.booleans())
def test_any_cut_is_an_error(tmp_path_factory: pytest.TempPathFactory, cut: int, zipped: bool) -> None:
    file = write(tmp_path_factory.getbasetemp() / "cut.pt", _use_new_zipfile_serialization=zipped)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(InputError, match="not readable as a fairseq checkpoint") as caught:
        wav2vec1_from_fairseq(file, 12)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "checkpoint",
    [[1, 2], torch.zeros(3), {"args": None}, {"model": 3}, {"model": {"w": 3}, "args": [1]}, {"model": None}],
    ids=str,
)
def test_other_contents_are_refused(tmp_path: Path, checkpoint: object) -> None:
    torch.save(checkpoint, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other\.pt: ") as caught:
        wav2vec1_from_fairseq(tmp_path / "other.pt", 12)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("left_out", "added"),
    [
        ("feature_extractor.conv_layers.1.0.weight", ""),
        ("feature_aggregator.conv_layers.2.3.bias", ""),
        ("feature_aggregator.residual_proj.2.weight", ""),
        ("", "feature_extractor.conv_layers.9.0.weight"),
        ("", "feature_aggregator.odd"),
        ("", "feature_extractor.conv_layers.1"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, left_out: str, added: str) -> None:
    tensors = {name: tensor for name, tensor in fairseq_weights().items() if name != left_out}
    tensors |= {added: torch.zeros(1)} if added else {}
    with pytest.raises(InputError, match=r"its weights are not those of wav2vec 1\.0") as caught:
        wav2vec1_from_fairseq(write(tmp_path / "other.pt", tensors=tensors), 12)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"aggregator": "gru"}, "got aggregator 'gru', expected cnn"),
        ({"activation": "gelu"}, "got activation 'gelu', expected relu"),
        ({"skip_connections_feat": True}, "skip connections in the extractor"),
        ({"project_features": "same"}, "projected features are not supported"),
        ({"vq_type": "kmeans"}, "got vq_type 'kmeans', expected none"),
        ({"conv_feature_layers": "__import__('os').system('true')"}, "expected .*channels, kernel, stride"),
        ({"conv_feature_layers": "[(6, 10)]"}, "expected .*channels, kernel, stride"),
        ({"conv_feature_layers": "[(6, 10, 5)"}, "expected .*channels, kernel, stride"),
        ({"conv_feature_layers": "[]"}, "expected .*channels, kernel, stride"),
        ({"conv_feature_layers": "[(6, 0, 5)]"}, "expected .*channels, kernel, stride"),
        ({"conv_feature_layers": "[(6, 10, 5)] * 100000"}, "expected .*channels, kernel, stride"),
        ({"conv_aggregator_layers": 7}, "expected .*channels, kernel, stride"),
        ({"residual_scale": "much"}, "residual_scale"),
    ],
    ids=str,
)
def test_options_that_are_not_supported_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    file = tmp_path / "other.pt"
    torch.save({"args": argparse.Namespace(**(ARGS | changed)), "model": fairseq_weights()}, file)
    with pytest.raises(InputError, match=message) as caught:
        wav2vec1_from_fairseq(file, 12)
    assert "\n" not in str(caught.value)
