"""Graphs with open rows, fixed for a plan: one of Whisper's shape, and what a bundle says of its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx

from edgeser.export_tools.building.rows import at_its_longest, most_rows, with_rows
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import OnnxRuntimeEngine
from edgeser.runtime.recognizer import default_bundle

OPEN = """<ir_version: 10, opset_import: ["" : 18]>
g (float[N, "320*rows"] samples, float[N, rows, 3] hidden) => (float[N, M] y) {
    axes = Constant <value_ints = [1]> ()
    most = ReduceMax <keepdims = 0> (hidden, axes)
    loudest = ReduceMax <keepdims = 1> (samples, axes)
    y = Add (most, loudest)
}"""


def graph() -> bytes:
    # The parser takes no expression for a size, which the exporter writes.
    proto = onnx.parser.parse_model(OPEN.replace('"320*rows"', "S"))
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "320*rows"
    content: bytes = proto.SerializeToString()
    return content


def test_every_open_size_is_that_of_so_many_rows() -> None:
    fixed = with_rows(graph(), 7)
    with OnnxRuntimeEngine(graph()) as free, OnnxRuntimeEngine(fixed) as engine:
        assert [spec.shape for spec in free.inputs] == [(None, None), (None, None, 3)]
        assert [spec.shape for spec in engine.inputs] == [(None, 2240), (None, 7, 3)]
        rng = np.random.default_rng(0)
        feeds = {spec.name: rng.random((2, *spec.shape[1:]), np.float32) for spec in engine.inputs}
        np.testing.assert_array_equal(engine.run(feeds)["y"], free.run(feeds)["y"])


def test_a_bundle_says_how_many() -> None:
    bundle = Bundle.open(default_bundle())
    manifest = bundle.manifest
    audio = dataclasses.replace(manifest.inputs["audio"], frontend={"kind": "onnx-encoder", "windows": [100, 460]})
    recogniser = {"architecture": "whisper", "rows": 300}
    bundle.manifest = dataclasses.replace(manifest, inputs={**manifest.inputs, "audio": audio}, recogniser=recogniser)
    expected = {"audio": 460, "recogniser/step": 300, "recogniser/cross": 300, "text": None, "model": None}
    assert {part: most_rows(bundle, part) for part in expected} == expected
    assert at_its_longest(bundle, "text", graph()) == graph()
    assert at_its_longest(bundle, "recogniser/step", graph()) == with_rows(graph(), 300)
