"""Whisper: the weights as CTranslate2 ships them, its log-mel, and its encoder against three other implementations."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from edgeser.export_tools.encoders.ctranslate2 import read_model_bin
from edgeser.export_tools.encoders.export import EncoderOptions, export_encoder
from edgeser.export_tools.encoders.whisper import (
    WhisperLogMel,
    whisper_from_ctranslate2,
    whisper_from_transformers,
)
from edgeser.runtime.audio import SAMPLE_RATE, Samples
from edgeser.runtime.errors import InputError
from edgeser.runtime.frontends import SpeechEncoder

Deviations = Callable[[NDArray[Any], NDArray[Any]], float]
THIRTY_SECONDS = 30 * SAMPLE_RATE
_CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def name_bytes(name: str) -> bytes:
    return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"


def model_bin(
    variables: Mapping[str, NDArray[Any]], aliases: Mapping[str, str], version: int = 6, spec: str = "WhisperSpec"
) -> bytes:
    """Write the format down a second time, independent of the reader."""
    content = struct.pack("<I", version) + name_bytes(spec) + struct.pack("<II", 3, len(variables))
    for name, values in variables.items():
        content += name_bytes(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        content += struct.pack("<BI", _CODES[values.dtype.name], values.nbytes) + values.tobytes()
    content += struct.pack("<I", len(aliases))
    return content + b"".join(name_bytes(alias) + name_bytes(name) for alias, name in aliases.items())


VARIABLES: dict[str, NDArray[Any]] = {
    "a/weight": np.arange(6, dtype=np.float16).reshape(2, 3),
    "b": np.array(7, dtype=np.int8),
    "c": np.linspace(0, 1, 5, dtype=np.float32),
    "d": np.array([[1], [-2]], dtype=np.int16),
    "e": np.zeros((0, 4), dtype=np.int32),
}
SMALL = model_bin(VARIABLES, {"z": "c"})


def padded(samples: Samples, size: int) -> NDArray[np.float32]:
    return np.pad(samples[:size], (0, max(0, size - samples.shape[0])))[None]


@pytest.fixture(scope="module")
def folder(packaged: Callable[[str], Path]) -> Path:
    return packaged("whisper-tiny.en")


@pytest.fixture(scope="module")
def small_whisper(tmp_path_factory: pytest.TempPathFactory, randomise: Callable[[nn.Module], None]) -> Path:
    from transformers import WhisperConfig, WhisperModel

    folder = tmp_path_factory.mktemp("small-whisper")
    config = WhisperConfig(
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        vocab_size=8,
        num_mel_bins=20,
        max_source_positions=50,
        max_target_positions=8,
    )
    model = WhisperModel(config)
    randomise(model)
    model.save_pretrained(folder)
    return folder


def test_the_reader_gives_back_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    for version in (4, 5, 6):
        file.write_bytes(model_bin(VARIABLES, {"z": "c", "y": "z"}, version))
        specification, variables = read_model_bin(file)
        assert specification == "WhisperSpec"
        assert list(variables) == [*VARIABLES, "z", "y"]
        for name, values in {**VARIABLES, "z": VARIABLES["c"], "y": VARIABLES["c"]}.items():
            assert variables[name].dtype == values.dtype
            np.testing.assert_array_equal(variables[name], values)


def test_the_real_file(folder: Path) -> None:
    specification, variables = read_model_bin(folder / "model.bin")
    assert specification == "WhisperSpec"
    encoder = {name: values for name, values in variables.items() if name.startswith("encoder/")}
    assert encoder["encoder/conv1/weight"].shape == (384, 80, 3)
    assert encoder["encoder/position_encodings/encodings"].shape == (1500, 384)
    assert int(encoder["encoder/num_heads"]) == 6
    assert sum(values.size for values in variables.values()) > 37_000_000
    assert {values.dtype.name for values in encoder.values() if values.ndim} == {"float16"}
    assert all(np.isfinite(values).all() for values in encoder.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short"),
        (model_bin(VARIABLES, {}, version=3), "got version 3, expected one of"),
        (model_bin(VARIABLES, {}, version=7), "got version 7, expected one of"),
        (SMALL + b"\0", "1 bytes after its end"),
        (SMALL[:-1], "cut short"),
        (model_bin(VARIABLES, {"z": "nowhere"}), "nowhere"),
        (SMALL.replace(struct.pack("<BI", 4, 12), struct.pack("<BI", 9, 12)), "'a/weight' is of type 9"),
        (
            SMALL.replace(struct.pack("<BI", 4, 12), struct.pack("<BI", 4, 13)),
            "'a/weight' has 13 bytes, expected float16",
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_model_bin(file)
    assert str(caught.value).startswith(f"{file}: not readable as a CTranslate2 model: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", range(0, len(SMALL), 3))
def test_any_cut_is_found(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(SMALL[:cut])
    with pytest.raises(InputError, match="not readable as a CTranslate2 model"):
        read_model_bin(file)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(SMALL) - 1), value=st.integers(0, 255))
def test_a_changed_byte_never_crashes_the_reader(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "changed.bin"
    file.write_bytes(SMALL[:place] + bytes([value]) + SMALL[place + 1 :])
    try:
        read_model_bin(file)  # a changed weight or letter of a name cannot be seen
    except InputError as caught:
        error = str(caught)
    else:
        error = ""
    assert "\n" not in error


def test_the_real_file_cut_short(folder: Path, tmp_path: Path) -> None:
    content = (folder / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"model\.bin: not readable as a CTranslate2 model: cut short"):
        whisper_from_ctranslate2(tmp_path, 460)


def test_other_models_in_that_format_are_refused(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(model_bin(VARIABLES, {}, spec="TransformerSpec"))
    with pytest.raises(InputError, match="got a TransformerSpec, expected a WhisperSpec"):
        whisper_from_ctranslate2(tmp_path, 460)
    file.write_bytes(SMALL)
    with pytest.raises(InputError, match="has no 'conv1/weight'"):
        whisper_from_ctranslate2(tmp_path, 460)
    variables = {n: v for n, v in read_model_bin(folder / "model.bin")[1].items() if n.startswith("encoder/")}
    quantized = variables | {
        "encoder/layer_0/ffn/linear_0/weight": variables["encoder/layer_0/ffn/linear_0/weight"].astype(np.int8)
    }
    file.write_bytes(model_bin(quantized, {}))
    with pytest.raises(InputError, match="layer_0/ffn/linear_0/weight is int8, expected float16 or float32"):
        whisper_from_ctranslate2(tmp_path, 460)
    other = variables | {"encoder/layer_norm/gamma": np.ones(7, np.float32)}
    file.write_bytes(model_bin(other, {}))
    with pytest.raises(InputError, match="not those of a Whisper encoder") as caught:
        whisper_from_ctranslate2(tmp_path, 460)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [THIRTY_SECONDS, 147_200])
def test_log_mel_is_transformers(recordings: list[Samples], size: int) -> None:
    """Within 5e-5 of `transformers`' own (its float64 path), over values from about -1 to 2."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor()
    log_mel = WhisperLogMel(80)
    for samples in recordings:
        values = padded(samples, size)
        expected = extractor._np_extract_fbank_features(values, "cpu")[0]
        got = log_mel(torch.from_numpy(values))[0].numpy()
        assert got.shape == expected.shape == (80, size // 160)
        assert np.abs(got - expected).max() < 5e-5
        assert np.ptp(expected) > 1.8  # up to 2, which are 8 decades


def test_log_mel_of_silence_and_of_a_batch(recordings: list[Samples]) -> None:
    log_mel = WhisperLogMel(80)
    assert (log_mel(torch.zeros(1, 3200)) == -1.5).all()  # (log10(1e-10) + 4) / 4
    loud, soft = (torch.from_numpy(padded(recordings[0], 64_000)) * scale for scale in (1.0, 1e-3))
    both = log_mel(torch.cat([loud, soft]))
    torch.testing.assert_close(both[1:], log_mel(soft))  # the loudest is each utterance's own
    torch.testing.assert_close(both[:1], log_mel(loud))


@pytest.mark.parametrize(("name", "dim", "largest"), [("whisper-tiny.en", 384, 3e-4), ("whisper-base", 512, 1e-3)])
def test_thirty_seconds_are_ctranslate2s(
    name: str,
    dim: int,
    largest: float,
    packaged: Callable[[str], Path],
    recordings: list[Samples],
    in_pytorch: Callable[..., SpeechEncoder],
) -> None:
    """Within 3e-4, of base 1e-3 (5e-6 on average), of CTranslate2 in float32 on the same float16 weights."""
    import ctranslate2
    from transformers import WhisperFeatureExtractor

    folder = packaged(name)
    other = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type="float32", intra_threads=1)
    frontend = in_pytorch(whisper_from_ctranslate2(folder, 1500), 1500, "last")
    assert (frontend.length, frontend.dim, frontend.hop_s) == (1500, dim, 0.02)
    for samples in recordings[1:2]:
        values = padded(samples, THIRTY_SECONDS)
        log_mel = WhisperFeatureExtractor()._np_extract_fbank_features(values, "cpu").astype(np.float32)
        expected = np.array(other.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(log_mel))))[0]
        difference = np.abs(frontend.rows(values[0]) - expected)
        assert difference.shape == (1500, dim)
        assert difference.max() < largest
        assert difference.mean() < 5e-6
        assert 0.9 < expected.std() < 1.5


@pytest.fixture(scope="module")
def side_by_side(by_command: Callable[..., SpeechEncoder]) -> SpeechEncoder:
    return by_command("whisper-tiny.en", "--layer", "1+2+3")


def test_the_exported_graph_over_460_rows(
    folder: Path,
    side_by_side: SpeechEncoder,
    recordings: list[Samples],
    in_pytorch: Callable[..., SpeechEncoder],
    deviations: Deviations,
) -> None:
    """Within 1e-4 standard deviations of PyTorch."""
    expected = in_pytorch(whisper_from_ctranslate2(folder, 460), 460, "1+2+3")
    assert (side_by_side.length, side_by_side.dim) == (460, 3 * 384)
    assert side_by_side.samples_for(460) == 147_200  # 9.2 s
    assert not [spec for spec in side_by_side._encoder.engine.inputs if spec.name != "samples"]
    for samples in (*recordings, np.tile(recordings[0], 4)):
        features = side_by_side(samples)
        assert features.valid == min(460, samples.shape[0] // 320)
        assert features.total == samples.shape[0] // 320
        assert deviations(features.values, expected(samples).values) < 1e-4
        assert not features.values[features.valid :].any()


def test_only_the_layers_that_are_needed_are_exported(
    tmp_path: Path, side_by_side: SpeechEncoder, recordings: list[Samples], deviations: Deviations
) -> None:
    frontend, difference = export_encoder(EncoderOptions("whisper-tiny.en", tmp_path / "second", layer="2"))
    assert difference < 1e-4
    assert isinstance(frontend, SpeechEncoder)
    assert (frontend.dim, frontend.options()["layer"]) == (384, "2")
    assert frontend.options()["licence"] == "Whisper tiny.en, OpenAI, MIT"
    for samples in recordings:
        assert deviations(frontend.rows(samples), side_by_side.rows(samples)[:, 384:768]) < 1e-4
    sizes = [len(f.files()["encoder.onnx"]) for f in (frontend, side_by_side)]
    assert sizes[0] < 9.5e6  # two layers of 1.8 million float16 weights, the convolutions, the positions
    assert sizes[1] - sizes[0] == pytest.approx(12 * 384**2 * 2, rel=0.02)  # just the third layer's


def test_small_random_whisper_is_transformers(
    small_whisper: Path, speech: Samples, in_pytorch: Callable[..., SpeechEncoder], deviations: Deviations
) -> None:
    """All hidden states within 1e-4 standard deviations of `transformers`' model and feature extractor."""
    from transformers import WhisperFeatureExtractor, WhisperModel

    heard = speech[16_000 : 16_000 + 50 * 320]
    extractor = WhisperFeatureExtractor(feature_size=20)
    log_mel = torch.from_numpy(extractor._np_extract_fbank_features(heard[None], "cpu").astype(np.float32))
    with torch.inference_mode():
        states = WhisperModel.from_pretrained(small_whisper).encoder(log_mel, output_hidden_states=True).hidden_states
    assert len(states) == 3
    expected = torch.cat(states, dim=-1)[0].numpy()
    frontend = in_pytorch(whisper_from_transformers(small_whisper, 50), 50, "0+1+2")
    assert deviations(frontend.rows(heard), expected) < 1e-4


def test_a_shorter_window_keeps_the_first_positions(
    small_whisper: Path, speech: Samples, in_pytorch: Callable[..., SpeechEncoder], deviations: Deviations
) -> None:
    from transformers import WhisperFeatureExtractor, WhisperModel

    heard = speech[16_000 : 16_000 + 30 * 320]
    original = WhisperModel.from_pretrained(small_whisper).encoder
    original.config.max_source_positions = 30
    original.max_source_positions = 30
    original.embed_positions = nn.Embedding.from_pretrained(original.embed_positions.weight[:30].detach())
    log_mel = WhisperFeatureExtractor(feature_size=20)._np_extract_fbank_features(heard[None], "cpu")
    with torch.inference_mode():
        expected = original(torch.from_numpy(log_mel.astype(np.float32))).last_hidden_state[0].numpy()
    frontend = in_pytorch(whisper_from_transformers(small_whisper, 30), 30)
    assert deviations(frontend.rows(heard), expected) < 1e-4


def test_more_rows_than_positions_are_refused(small_whisper: Path) -> None:
    with pytest.raises(InputError, match="--length: got 51, expected at most 50 rows for this encoder"):
        whisper_from_transformers(small_whisper, 51)


def test_a_short_utterance_runs_over_a_short_window(
    by_command: Callable[..., SpeechEncoder], small_whisper: Path
) -> None:
    """What is heard is what the encoder makes of the audio with silence up to the window's end, and no further."""
    layers = ("--layer", "1", "--length", "50")
    encoder = by_command(small_whisper, *layers, "--windows", "10", "25", "50")
    alone = {rows: by_command(small_whisper, "--layer", "1", "--length", str(rows)) for rows in (10, 25, 50)}
    assert encoder.options()["windows"] == [10, 25, 50]
    speech = 0.1 * np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32)
    for count, rows in ((320, 10), (3_000, 10), (3_201, 25), (8_000, 25), (8_001, 50), (20_000, 50)):
        got, expected = encoder.extract(speech[:count]), alone[rows].extract(speech[:count])
        assert got.shape == expected.shape == (min(rows, count // 320), 16)
        assert np.abs(got - expected).max() < 1e-5, count


@pytest.mark.parametrize(
    ("windows", "problem"),
    [
        ((25, 10), "expected rows in rising order"),
        ((10, 10, 50), "expected rows in rising order"),
        ((1, 50), "2 at least"),
        ((10, 25), "up to 50"),
    ],
)
def test_windows_that_are_none(small_whisper: Path, tmp_path: Path, windows: tuple[int, ...], problem: str) -> None:
    with pytest.raises(InputError, match=rf"--windows: got {' '.join(map(str, windows))}, .*{problem}"):
        export_encoder(EncoderOptions(str(small_whisper), tmp_path / "out", length=50, windows=windows))
