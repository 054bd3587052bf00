"""Calibrating a bundle that takes every modality: what is quantized, and what must not be."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeser.calibration.calibrate import CalibrationOptions, calibrate
from edgeser.calibration.pipeline import Cached, Pipeline, read_parts
from edgeser.calibration.placement import is_quantized
from edgeser.calibration.sampling import Sampling
from edgeser.calibration.sites import find_sites
from edgeser.corpora import Utterance, read_corpus
from edgeser.corpora.inputs import graph_inputs
from edgeser.runtime.bundle import GOLDEN, Bundle, write_bundle
from edgeser.runtime.golden import GoldenVectors, encoder_vectors

FEW = Sampling(count=16, validation=16)


@pytest.fixture(scope="module")
def utterances(wide_corpus: str) -> list[Utterance]:
    return read_corpus(wide_corpus)[::7]


@pytest.fixture(scope="module")
def bundle(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Four modalities, one of them an encoder, with golden vectors."""
    folder = tmp_path_factory.mktemp("four")
    write = runpy.run_path(str(Path(__file__).parents[1] / "four_modalities.py"))["four_modalities"]
    plain: Bundle = write(folder / "plain.edgeser")
    with Pipeline(plain) as pipeline:
        inputs = graph_inputs(pipeline.frontends, utterances)
        line = encoder_vectors(pipeline.frontends["sentence"], "dogs are sitting by the door")
        golden = GoldenVectors(inputs, pipeline.engine.run(inputs)["logits"], encoders={"sentence": line})
    files = {path: plain.read(path) for path in plain.manifest.files}
    manifest = dataclasses.replace(plain.manifest, files={})
    return write_bundle(folder / "four.edgeser", manifest, {**files, GOLDEN: golden.to_bytes()})


def test_the_pipeline_feeds_every_modality(bundle: Bundle, utterances: list[Utterance]) -> None:
    with Pipeline(bundle) as pipeline:
        assert set(pipeline.frontends) == {"audio", "text", "phonemes", "sentence"}
        expected = np.stack(
            [pipeline.engine.run(graph_inputs(pipeline.frontends, [u]))["logits"][0] for u in utterances]
        )
        np.testing.assert_array_equal(pipeline.logits(utterances), expected)
        cached = Cached.of(pipeline, utterances).with_part(pipeline, "sentence")
        np.testing.assert_array_equal(cached.logits(pipeline.engine), expected)
        assert len(np.unique(expected.round(4), axis=0)) == len(utterances)


def test_phoneme_ids_stay_as_they_are(bundle: Bundle, iemocap: Path, tmp_path: Path) -> None:
    """They are looked up in a table: no product, so no place for a pair; the products around them are quantized."""
    model = read_parts(bundle)["model"]
    assert {site.name for site in find_sites(model)} == {"audio", "text", "sentence", "readout"}
    out = tmp_path / "four.int8.edgeser"
    written, report = calibrate(bundle, CalibrationOptions(f"iemocap:{iemocap}", out, sampling=FEW, calls=1))
    graph = onnx.load_from_string(written.graph()).graph
    makers = {output: node for node in graph.node for output in node.output}
    (lookup,) = (node for node in graph.node if node.op_type == "Gather")
    assert lookup.input[0] == "table"
    cast = makers[lookup.input[1]]
    assert (cast.op_type, cast.input[0]) == ("Cast", "phonemes")
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert len(quantized) == 3  # audio, text, sentence; the readout is the last before the logits
    assert not any("phonemes" in name for name in quantized)
    assert is_quantized(onnx.load_from_string(written.read("frontends/sentence/encoder.onnx")))
    assert written.read("frontends/phonemes/pronunciations.txt") == bundle.read("frontends/phonemes/pronunciations.txt")
    golden = GoldenVectors.from_bundle(written)
    assert golden.encoders["sentence"].rows.shape == (1, 5)
    assert np.abs(golden.logits - golden.reference).max() < 0.1
    assert report.comparisons["validation"].agreement > 0.9
