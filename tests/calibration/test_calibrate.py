"""Calibrating whole bundles: on IEMOCAP's layout, on encoders, through the command, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch

from edgeser.calibration.calibrate import REPORT, CalibrationOptions, calibrate
from edgeser.calibration.parts import Observation, observe
from edgeser.calibration.pipeline import Cached, Pipeline
from edgeser.calibration.placement import PRESETS, is_quantized
from edgeser.calibration.ranges import Method
from edgeser.calibration.sampling import Sampling, divide
from edgeser.calibration.sensitivity import Sensitivity, leave_in_float
from edgeser.cli.main import main
from edgeser.corpora import read_corpus
from edgeser.export_tools.encoders.export import EncoderOptions, export_encoder
from edgeser.export_tools.export import ExportOptions, export
from edgeser.export_tools.parity import ParityReport
from edgeser.models import InputSpec, build_model
from edgeser.runtime.audio import SAMPLE_RATE
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.errors import BundleError, InputError
from edgeser.runtime.frontends import Frontend
from edgeser.runtime.golden import GoldenVectors
from edgeser.runtime.labels import FOUR_EMOTIONS
from edgeser.runtime.recognizer import Runtime
from edgeser.training.trained import TrainedModel

FEW = Sampling(count=16, validation=16, exclude_sessions=("5",))


def bundle_of(frontends: dict[str, Frontend], corpus: str, out: Path) -> Bundle:
    """Export a model of one layer with random weights: what quantizing changes does not depend on what was learned."""
    inputs = {name: InputSpec(f.length, f.dim, f.kind) for name, f in frontends.items()}
    torch.manual_seed(0)
    model = build_model("ks-transformer", "compact", inputs, 4, layers=(0, 0, 1)).eval()
    trained = TrainedModel(model, "compact", frontends, FOUR_EMOTIONS, {"corpus": corpus, "held_out": "5"})
    trained = dataclasses.replace(trained, training={"corpus": corpus})
    return export(trained, ExportOptions(out, "small", corpus=corpus, utterances=32))[0]


@pytest.fixture(scope="module")
def corpus(iemocap: Path) -> str:
    return f"iemocap:{iemocap}"


@pytest.fixture(scope="session")
def small(exported: Callable[..., tuple[Bundle, list[ParityReport]]]) -> Bundle:
    """A bundle on log-mels and GloVe."""
    return exported()[0]


@pytest.fixture(scope="session")
def smaller(exported: Callable[..., tuple[Bundle, list[ParityReport]]]) -> Bundle:
    """A bundle on GloVe alone: a third of the layers, where each layer or a further calibration costs time."""
    return exported(("text",))[0]


@pytest.fixture(scope="module")
def calibrated(small: Bundle, corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same, calibrated by the command on IEMOCAP's layout."""
    out = tmp_path_factory.mktemp("int8") / "int8.edgeser"
    few = ["--count", "16", "--validation", "16", "--exclude-sessions", "5"]
    assert main(["calibrate", str(small.path), "--corpus", corpus, "-o", str(out), *few]) == 0
    return Bundle.open(out)


def test_the_bundle_is_int8_and_says_how(small: Bundle, calibrated: Bundle, iemocap: Path) -> None:
    manifest = calibrated.manifest
    assert manifest.precision == "int8"
    for lowering in ("portable", "plugin"):
        assert is_quantized(onnx.load_from_string(calibrated.graph(lowering)))
    how = manifest.provenance["calibration"]
    assert how["corpus"] == {"reader": "iemocap", "name": iemocap.name}
    assert how["sampling"]["utterances"] == 16
    assert len(how["sampling"]["ids_sha256"]) == 64
    assert how["sampling"]["exclude_sessions"] == ["5"]
    assert how["from_sha256"] == small.sha256
    assert "## INT8" in calibrated.read("README.md").decode()
    assert sum(map(len, map(calibrated.read, manifest.graphs.values()))) < 0.5 * sum(
        map(len, map(small.read, small.manifest.graphs.values()))
    )


def test_golden_vectors_are_the_int8_graphs_own_beside_the_reference(small: Bundle, calibrated: Bundle) -> None:
    before, after = GoldenVectors.from_bundle(small), GoldenVectors.from_bundle(calibrated)
    assert after.reference is not None
    np.testing.assert_array_equal(after.reference, before.logits)
    assert 0 < np.abs(after.logits - before.logits).max() < 0.2
    with Runtime.load(calibrated.path, engine="onnxruntime", asr="none") as runtime:
        logits = runtime.engine.run(after.inputs)["logits"]
    np.testing.assert_allclose(logits, after.logits, atol=1e-5)


def test_both_lowerings_compute_the_same(calibrated: Bundle) -> None:
    from edgeser.runtime.engines import open_engine

    golden = GoldenVectors.from_bundle(calibrated)
    with open_engine(calibrated.graph("plugin"), "onnxruntime") as engine:
        logits = engine.run(golden.inputs)["logits"]
    # A value on the border between two codes may round either way.
    np.testing.assert_allclose(logits, golden.logits, atol=2e-2)


def test_the_report_holds_what_was_measured(calibrated: Bundle) -> None:
    report = json.loads(calibrated.read(REPORT))
    assert report["comparisons"]["excluded"]["reference"]["utterances"] == 10
    assert report["comparisons"]["validation"]["agreement"] >= 0.8
    assert report["bytes"]["int8"] < 0.6 * report["bytes"]["fp32"]
    assert report["p50_ms"]["int8"] > 0
    layers = {layer["layer"]: layer for layer in report["layers"]}
    assert layers["model/classifier.6"]["precision"] == "fp32"
    quantized = [layer for layer in layers.values() if layer["precision"] == "int8"]
    assert len(quantized) > 30
    assert all(layer["scale"] > 0 and layer["zero_point"] == 0 for layer in quantized)
    assert all(layer["saturated"] < 0.01 for layer in quantized)


def test_x86_preset_has_zero_points_and_runs(small: Bundle, corpus: str, tmp_path: Path, clip: Path) -> None:
    options = CalibrationOptions(corpus, tmp_path / "u8.edgeser", preset="onnxruntime-x86", sampling=FEW, calls=1)
    written, report = calibrate(small, options)
    assert any(layer.zero_point > 0 for layer in report.layers)
    with Runtime.load(written.path, asr="none") as runtime:
        assert runtime.recognize(clip, transcript="how dare you").label in FOUR_EMOTIONS


def test_layers_stay_in_float_when_asked(smaller: Bundle, corpus: str, tmp_path: Path) -> None:
    name = "model/stems.text.project"
    options = CalibrationOptions(corpus, tmp_path / "f.edgeser", sampling=FEW, in_float=(name,), calls=1)
    _, report = calibrate(smaller, options)
    layer = next(layer for layer in report.layers if layer.layer == name)
    assert (layer.precision, layer.reason) == ("fp32", "asked for")
    with pytest.raises(InputError, match=r"--float: got 'model/nothing', expected some of model/.* in all\)"):
        calibrate(smaller, dataclasses.replace(options, in_float=("model/nothing",)))


def test_sensitivity_ranks_every_layer_and_finds_the_one_that_was_spoilt(smaller: Bundle, corpus: str) -> None:
    division = divide(read_corpus(corpus), FOUR_EMOTIONS, FEW)
    how = Observation(PRESETS["tensorrt"], Method(), smoothing=False)
    parts = observe(smaller, division.calibration, how, lambda _: None)
    spoilt = parts["model"].layers()[0]
    parts["model"].histograms[spoilt.activation].add(np.full(1, 1e4, np.float32))  # a scale that leaves no codes
    measured = Sensitivity(smaller, parts, division.validation)
    ranking = measured.rank()
    assert len(ranking) == measured.count() == len(parts["model"].layers())
    assert ranking[0].layer == f"model/{spoilt.name}"
    assert [d.divergence for d in ranking] == sorted((d.divergence for d in ranking), reverse=True)
    everything, without = measured.together(), measured.together([ranking[0].layer])
    assert without.divergence < everything.divergence / 2


def test_leaves_the_shortest_beginning_of_the_ranking_in_float() -> None:
    @dataclasses.dataclass
    class Fall:
        drop: float

    ranking = [type("D", (), {"layer": f"model/{n}"})() for n in "abcd"]
    falls = {0: 0.03, 1: 0.02, 2: 0.004, 3: 0.0}
    chosen = leave_in_float(ranking, lambda names: Fall(falls[len(names)]), 0.005)  # type: ignore[arg-type,return-value]
    assert chosen == ["model/a", "model/b"]
    assert len(leave_in_float(ranking, lambda _: Fall(1.0), 0.005)) == 4  # type: ignore[arg-type,return-value]


def test_encoders_become_int8_and_prove_themselves(iemocap: Path, corpus: str, tmp_path: Path, clip: Path) -> None:
    text, _ = export_encoder(EncoderOptions("minilm-l6-v2", tmp_path / "minilm", layer="1", weights="int8"))
    bundle = bundle_of({"text": text}, corpus, tmp_path / "text.edgeser")
    options = CalibrationOptions(corpus, tmp_path / "text.int8.edgeser", sampling=FEW, calls=1)
    written, report = calibrate(bundle, options)
    assert is_quantized(onnx.load_from_string(written.read("frontends/text/encoder.onnx")))
    assert written.manifest.inputs["text"].frontend["weights"] == "int8 q/dq"
    assert report.bytes["int8"] < 0.35 * report.bytes["fp32 weights"]
    golden = GoldenVectors.from_bundle(written)
    assert golden.encoders["text"].rows.shape[1] == 384
    with Runtime.load(written.path, asr="none") as runtime:
        assert runtime.recognize(clip, transcript="how dare you").label in FOUR_EMOTIONS


def wrong(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["calibrate", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("edgeser: ")]
    assert len(lines) == 1
    return lines[0]


def test_wrong_input_gets_one_line_and_writes_nothing(
    small: Bundle, calibrated: Bundle, corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.edgeser"
    to = ["-o", out, "--count", 16, "--validation", 16]
    assert "is INT8 already" in wrong(capsys, calibrated.path, "--corpus", corpus, *to)
    assert "expected at least 16" in wrong(capsys, small.path, "--corpus", corpus, "-o", out, "--count", 3)
    assert "--exclude-sessions: got 9, the corpus has 1, 2" in wrong(
        capsys, small.path, "--corpus", corpus, *to, "--exclude-sessions", 9
    )
    assert "its folder does not exist: create" in wrong(
        capsys, small.path, "--corpus", corpus, "-o", tmp_path / "a/b.edgeser"
    )
    assert "is the bundle to calibrate" in wrong(capsys, small.path, "--corpus", corpus, "-o", small.path)
    assert "brings no recogniser: leave it out" in wrong(
        capsys, small.path, "--corpus", corpus, *to, "--spoken", corpus
    )
    assert "--max-drop: got 2.0" in wrong(capsys, small.path, "--corpus", corpus, *to, "--max-drop", 2)
    other = tmp_path / "other.csv"
    other.write_text("id,audio,emotion\na,a.wav,bored\n", encoding="utf-8")
    assert "its emotions are boredom, the bundle's angry" in wrong(
        capsys, small.path, "--corpus", f"manifest:{other}", *to
    )
    assert not out.exists()


def test_a_clip_with_nan_is_named(
    small: Bundle, iemocap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "IEMOCAP_full_release"
    shutil.copytree(iemocap, copy)
    for wav in copy.glob("Session*/sentences/wav/*/Ses*.wav"):
        soundfile.write(wav, np.full(SAMPLE_RATE, np.nan, np.float32), SAMPLE_RATE, subtype="FLOAT")
    error = wrong(
        capsys,
        small.path,
        "--corpus",
        f"iemocap:{copy}",
        "-o",
        tmp_path / "o.edgeser",
        "--count",
        16,
        "--validation",
        16,
    )
    assert "utterance Ses0" in error
    assert "NaN or infinity among the samples" in error
    assert not (tmp_path / "o.edgeser").exists()


def test_features_of_another_frontend_are_refused(small: Bundle, corpus: str) -> None:
    with Pipeline(small) as pipeline:
        cached = Cached.of(pipeline, read_corpus(corpus)[:2])
        foreign = [dataclasses.replace(one, values=one.values[:, :40]) for one in cached.features["audio"]]
        other = Cached(cached.utterances, {**cached.features, "audio": foreign})
        with pytest.raises(InputError, match=r"audio: got float32 \(1, 460, 40\), expected float32 \(N, 460, 80\)"):
            other.logits(pipeline.engine)


def test_a_damaged_bundle_is_refused(small: Bundle, corpus: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        calibrate(Bundle.open(tmp_path / "nothing.edgeser"), CalibrationOptions(corpus, tmp_path / "o.edgeser"))
