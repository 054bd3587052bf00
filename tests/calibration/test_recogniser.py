"""Calibrating a bundle that brings a recogniser: a Whisper of random weights, small enough to run in a moment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgeser.calibration.calibrate import CalibrationOptions, calibrate
from edgeser.calibration.parts import Observation, observe
from edgeser.calibration.placement import PRESETS, is_quantized
from edgeser.calibration.ranges import Method
from edgeser.calibration.report import CalibrationReport
from edgeser.calibration.sampling import Sampling, divide
from edgeser.calibration.sensitivity import Sensitivity
from edgeser.corpora import read_corpus
from edgeser.export_tools.encoders.export import EncoderOptions, placed
from edgeser.export_tools.export import with_recogniser
from edgeser.export_tools.parity import ParityReport
from edgeser.export_tools.recogniser.folder import write_recogniser
from edgeser.runtime.audio import load_audio
from edgeser.runtime.bundle import GOLDEN, Bundle, write_bundle
from edgeser.runtime.golden import GoldenVectors
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.runtime.recognizer import Runtime

FEW = Sampling(count=16, validation=16, exclude_sessions=("5",))
PARTS = {"recogniser/encoder", "recogniser/cross", "recogniser/step"}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser with tiny.en's tokens, 64 wide."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    folder = tmp_path_factory.mktemp("whisper")
    config = WhisperConfig(
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        vocab_size=51_864,
        num_mel_bins=80,
        max_source_positions=150,
        max_target_positions=128,
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.generation_config.alignment_heads = [[1, 1], [0, 0]]
    model.save_pretrained(folder)
    with placed("whisper-tiny.en") as given:
        (folder / "tokenizer.json").write_bytes((Path(given) / "tokenizer.json").read_bytes())
    out = folder / "words"
    write_recogniser(EncoderOptions(str(folder), out, length=150, windows=(100, 150)), out)
    description = json.loads((out / "recogniser.json").read_text())
    everything = {"min_score": -100.0, "no_speech_penalty": 0.0}  # of random weights all words are doubtful
    (out / "recogniser.json").write_text(json.dumps({**description, **everything}))
    return out


@pytest.fixture(scope="module")
def corpus(iemocap: Path) -> str:
    return f"iemocap:{iemocap}"


@pytest.fixture(scope="module")
def with_words(
    exported: Callable[..., tuple[Bundle, list[ParityReport]]],
    words: Path,
    clip: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """A bundle on GloVe that brings it."""
    bundle = exported(("text",))[0]
    manifest, more, heard = with_recogniser(bundle.manifest, words, {}, load_audio(clip))
    files = {path: bundle.read(path) for path in bundle.manifest.files}
    files[GOLDEN] = dataclasses.replace(GoldenVectors.from_bundle(bundle), words=heard).to_bytes()
    return write_bundle(tmp_path_factory.mktemp("bundle") / "words.edgeser", manifest, {**files, **more})


@pytest.fixture(scope="module")
def calibrated(
    with_words: Bundle, corpus: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, CalibrationReport]:
    out = tmp_path_factory.mktemp("int8") / "int8.edgeser"
    return calibrate(with_words, CalibrationOptions(corpus, out, sampling=FEW, calls=1, spoken=corpus))


def test_all_its_graphs_become_int8(with_words: Bundle, calibrated: tuple[Bundle, CalibrationReport]) -> None:
    written, report = calibrated
    paths = written.graphs()
    assert set(paths) == {*PARTS, "model"}
    for path in paths.values():
        assert is_quantized(onnx.load_from_string(written.read(path)))
    assert written.manifest.recogniser == {**dict(with_words.manifest.recogniser or {}), "weights": "int8 q/dq"}
    layers = {layer.layer: layer for layer in report.layers}
    assert layers["recogniser/step/table"].precision == "int8"
    assert layers["recogniser/step/table"].saturated < 0.01
    assert {name.rpartition("/")[0] for name, layer in layers.items() if layer.precision == "int8"} == {*PARTS, "model"}
    assert len(written.read(paths["recogniser/step"])) < 0.5 * len(with_words.read(paths["recogniser/step"]))


def test_golden_words_are_what_the_int8_recogniser_hears(
    with_words: Bundle, calibrated: tuple[Bundle, CalibrationReport]
) -> None:
    before, after = (GoldenVectors.from_bundle(bundle).words for bundle in (with_words, calibrated[0]))
    with Runtime.load(calibrated[0].path, engine="onnxruntime", asr="whisper") as runtime:
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(after.input, before.input)
        assert runtime.asr.hear(after.input).text == after.text


def test_what_it_was_watched_on_is_said(calibrated: tuple[Bundle, CalibrationReport], iemocap: Path) -> None:
    how = calibrated[0].manifest.provenance["calibration"]
    assert how["spoken"] == {"reader": "iemocap", "name": iemocap.name}


def test_the_report_says_what_it_hears(calibrated: tuple[Bundle, CalibrationReport]) -> None:
    written, report = calibrated
    assert set(report.words) == {"validation", "excluded"}
    assert report.words["validation"].recordings == 16
    assert report.words["validation"].words > 16
    assert report.as_dict()["words"]["validation"]["recordings"] == 16
    assert {"fp32", "int8", "fp32 words", "int8 words"} == set(report.p50_ms)
    assert "validation, the recogniser: the same words as FP32 in" in report.text()
    assert "Of what the recogniser hears, validation: the same words as FP32" in written.read("README.md").decode()


def test_a_step_stays_near_its_reference(
    with_words: Bundle, calibrated: tuple[Bundle, CalibrationReport], clip: Path
) -> None:
    """The same tokens in, step by step: probabilities of the next ones hardly move."""
    logits = []
    for bundle in (with_words, calibrated[0]):
        with Runtime.load(bundle.path, engine="onnxruntime", asr="whisper") as runtime:
            assert runtime.asr.hear(load_audio(clip)).words
            decoder = runtime.asr._decoder  # type: ignore[attr-defined]
            hidden = runtime.asr._own.run(load_audio(clip))["rows"]  # type: ignore[attr-defined]
            steps = decoder.graphs.start(hidden)
            logits.append(np.stack([steps.say(token).logits for token in (50257, 50363, 1000, 20_000)]))
    reference, quantized = (values - values.mean(axis=1, keepdims=True) for values in logits)
    assert np.abs(quantized - reference).mean() < 0.2 * reference.std()


def test_layers_are_ranked_by_the_logits_so_not_the_recogniser_s(with_words: Bundle, corpus: str) -> None:
    division = divide(read_corpus(corpus), FOUR_EMOTIONS, FEW)
    how = Observation(PRESETS["tensorrt"], Method(), smoothing=False)
    parts = observe(with_words, division.calibration, how, lambda _: None)
    assert set(parts) == {*PARTS, "model"}
    assert Sensitivity(with_words, parts, division.validation).count() == len(parts["model"].layers())
