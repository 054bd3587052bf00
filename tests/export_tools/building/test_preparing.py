from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeser.export_tools.building.library import LIBRARIES
from edgeser.export_tools.building.preparing import prepared
from edgeser.runtime.bundle import Bundle
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import EngineError, MissingDependencyError
from edgeser.runtime.recognizer import default_bundle

TENSORRT, RTX = LIBRARIES["tensorrt"], LIBRARIES["tensorrt-rtx"]


class Registry:
    """TensorRT's, as far as it is asked."""

    def __init__(self) -> None:
        self.known: set[tuple[str, str, str]] = set()

    def get_creator(self, name: str, version: str, namespace: str) -> object | None:
        return object() if (name, version, namespace) in self.known else None


@pytest.fixture(scope="module")
def plugin_graph() -> bytes:
    return Bundle.open(default_bundle()).graph("plugin")


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a TensorRT with one plugin of a name in a namespace, which `register` brings."""

    def make(name: str, namespace: str) -> Any:
        registry = Registry()
        trt = SimpleNamespace(get_plugin_registry=lambda: registry)
        plugins = SimpleNamespace(
            register=lambda module: module.get_plugin_registry().known.add((name, "1", namespace))
        )
        monkeypatch.setitem(sys.modules, "edgeser.export_tools.plugins", plugins)
        return trt

    return make


@pytest.mark.parametrize("namespace", ["", "edgeser"])
def test_plugins_are_addressed_and_their_bodies_left_out(
    plugin_graph: bytes, register: Callable[..., Any], namespace: str
) -> None:
    trt = register("KeySparseAttention", namespace)
    proto = onnx.load_from_string(prepared(plugin_graph, "fp32", TENSORRT, trt, plugins=True))
    assert list(proto.functions) == []
    nodes = [node for node in proto.graph.node if node.domain == "edgeser"]
    assert len(nodes) == 6
    for node in nodes:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        assert (attributes["plugin_version"], attributes["plugin_namespace"]) == (b"1", namespace.encode())
        assert {"keep", "scale"} < set(attributes)
    assert len(onnx.load_from_string(plugin_graph).functions) == 1


def test_a_plugin_that_is_not_there_is_named(plugin_graph: bytes, register: Callable[..., Any]) -> None:
    trt = register("DropAttention", "")
    with pytest.raises(EngineError, match=r"^no plugin is registered for edgeser::KeySparseAttention$"):
        prepared(plugin_graph, "fp32", TENSORRT, trt, plugins=True)


@pytest.mark.parametrize(("precision", "plugins"), [("fp16", False), ("fp32", True)])
def test_without_onnx_graphs_that_must_change_are_refused(
    monkeypatch: pytest.MonkeyPatch, precision: str, plugins: bool
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"onnx is not installed, an engine with plugins or in FP16 needs"):
        prepared(b"graph", precision, TENSORRT, None, plugins=plugins)
    assert prepared(b"graph", "int8", TENSORRT, None, plugins=False) == b"graph"


def test_codes_without_scales_of_their_own_kind_are_widened() -> None:
    """Weights that were stored as codes and not calibrated: TensorRT takes INT8 only right before DQ."""
    codes = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]> g (float[N, 4] x) => (float[N, 4] y) {
            numbers = Cast <to = 1> (cast_codes)
            plain = MatMul (x, numbers)
            weight = DequantizeLinear (codes, scale, zero)
            y = MatMul (plain, weight)
        }"""
    )
    stored = {"cast_codes": codes, "codes": codes, "scale": np.float32(0.5), "zero": np.int8(0)}
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items())
    graph = proto.SerializeToString()
    changed = prepared(graph, "fp32", RTX, None, plugins=False)
    kinds = {t.name: t.data_type for t in onnx.load_from_string(changed).graph.initializer}
    assert kinds["cast_codes"] == onnx.TensorProto.FLOAT16
    assert kinds["codes"] == kinds["zero"] == onnx.TensorProto.INT8
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    with open_engine(graph) as before, open_engine(changed) as after:
        np.testing.assert_array_equal(after.run({"x": x})["y"], before.run({"x": x})["y"])


def test_codes_that_a_graph_unpacks_are_constants() -> None:
    """A table in fewer bits, as `tie_table` writes it: TensorRT's DequantizeLinear takes no codes that are computed."""
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18]> g (float[N, 4] x) => (float[N, 4] y) {
            numbers = Cast <to = 6> (bytes)
            codes = Gather (levels, numbers)
            weight = DequantizeLinear (codes, scale, zero)
            rounded = QuantizeLinear (x, scale, zero)
            coarse = DequantizeLinear (rounded, scale, zero)
            y = MatMul (coarse, weight)
        }"""
    )
    packed = np.random.default_rng(0).integers(0, 16, (4, 4)).astype(np.uint8)
    levels = np.arange(-64, 64, 8, dtype=np.int8)
    stored = {"bytes": packed, "levels": levels, "scale": np.float32(0.5), "zero": np.int8(0)}
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in stored.items())
    graph = proto.SerializeToString()
    changed = prepared(graph, "int8", RTX, None, plugins=False)
    after = onnx.load_from_string(changed).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.initializer}
    assert constants.keys() == {"codes", "scale", "zero"}
    np.testing.assert_array_equal(constants["codes"], levels[packed])
    assert [node.op_type for node in after.node] == [
        "DequantizeLinear",
        "QuantizeLinear",
        "DequantizeLinear",
        "MatMul",
    ]
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    with open_engine(graph) as one, open_engine(changed) as other:
        np.testing.assert_array_equal(other.run({"x": x})["y"], one.run({"x": x})["y"])
