"""Graphs with their edges: what is constant, and what nobody needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeser.calibration.graph import Graph, prune

Make = Callable[..., onnx.ModelProto]
HALVES = np.array([[1.5, -2.0], [0.25, 3.0]], np.float16)
CODES = np.array([[127, -3], [5, -127]], np.int8)
SCALES = np.array([[0.5, 0.25]], np.float32)
SHIFT = np.array([1.0, -1.0], np.float32)
TO_FLOAT = {"to": onnx.TensorProto.FLOAT}


@pytest.fixture
def proto(make_graph: Make) -> onnx.ModelProto:
    """Weights in every form that encoders keep them in, and a value of the input's in every form too."""
    return make_graph(
        [
            ("Cast", ["half"], ["weight"], TO_FLOAT),
            ("Cast", ["codes"], ["unscaled"], TO_FLOAT),
            ("Mul", ["unscaled", "scales"], ["scaled"], {}),
            ("Constant", [], ["shift"], {"value": numpy_helper.from_array(SHIFT)}),
            ("Mul", ["scaled", "shift"], ["both"], {}),
            ("Constant", [], ["numbers"], {"value_floats": [1.0, 2.0]}),
            ("MatMul", ["x", "weight"], ["a"], {}),
            ("Mul", ["a", "shift"], ["b"], {}),
            ("Cast", ["b"], ["c"], TO_FLOAT),
            ("MatMul", ["c", "both"], ["d"], {}),
            ("Add", ["d", "numbers"], ["e"], {}),
            ("Transpose", ["weight"], ["turned"], {}),
            ("MatMul", ["e", "turned"], ["y"], {}),
        ],
        {"x": ["N", 2]},
        {"y": ["N", 2]},
        {"half": HALVES, "codes": CODES, "scales": SCALES},
    )


def test_constants_are_seen_through_casts_and_scales(proto: onnx.ModelProto) -> None:
    graph = Graph(proto)
    expected = {
        "half": HALVES,
        "weight": HALVES.astype(np.float32),
        "codes": CODES,
        "scaled": CODES * SCALES,
        "shift": SHIFT,
        "both": CODES * SCALES * SHIFT,
    }
    for name, value in expected.items():
        found = graph.constant(name)
        assert found is not None, name
        assert found.dtype == value.dtype, name
        np.testing.assert_array_equal(found, value, err_msg=name)


def test_what_comes_from_inputs_or_other_operators_is_no_constant(proto: onnx.ModelProto) -> None:
    graph = Graph(proto)
    for name in ("x", "a", "b", "c", "y", "turned", "numbers", "nowhere", ""):
        assert graph.constant(name) is None, name


def test_constants_are_traced_to_what_is_stored(proto: onnx.ModelProto) -> None:
    graph = Graph(proto)
    assert graph.stored_in("half") == {"half"}
    assert graph.stored_in("weight") == {"half"}
    assert graph.stored_in("both") == {"codes", "scales"}
    assert graph.stored_in("x") == frozenset()


def test_makers_and_users(proto: onnx.ModelProto) -> None:
    graph = Graph(proto)
    assert graph.makers["both"].op_type == "Mul"
    assert "x" not in graph.makers
    assert "half" not in graph.makers
    assert [node.output[0] for node in graph.users["shift"]] == ["both", "b"]
    assert [node.output[0] for node in graph.users["weight"]] == ["a", "turned"]
    assert graph.users["y"] == []


def test_pruning_drops_what_no_output_needs_and_nothing_else(make_graph: Make) -> None:
    one = np.ones(2, np.float32)
    proto = make_graph(
        [
            ("Add", ["x", "dead"], ["p"], {}),
            ("Mul", ["p", "shared"], ["q"], {}),
            ("Split", ["x"], ["left", "right"], {"axis": 1, "num_outputs": 2}),
            ("Mul", ["right", "shared"], ["r"], {}),
            ("Add", ["r", "kept"], ["y"], {}),
        ],
        {"x": ["N", 4]},
        {"y": ["N", 2]},
        {"dead": np.ones(4, np.float32), "shared": one[:1], "kept": one, "unused": one},
    )
    prune(proto)
    assert [node.name for node in proto.graph.node] == ["left.node", "r.node", "y.node"]
    assert [tensor.name for tensor in proto.graph.initializer] == ["shared", "kept"]
    before = proto.SerializeToString()
    prune(proto)
    assert proto.SerializeToString() == before


def test_an_output_left_out_keeps_no_node_alive(make_graph: Make) -> None:
    """An empty name stands for any input or output left out: it connects nothing."""
    constants = {"w": np.zeros((1, 8, 3), np.float32), "r": np.zeros((1, 8, 2), np.float32), "h": np.zeros((1, 1, 2))}
    constants["h"] = constants["h"].astype(np.float32)
    alive = helper.make_node("LSTM", ["x", "w", "r", "", "", "h"], ["", "y"], name="alive", hidden_size=2)
    dead = helper.make_node("LSTM", ["x", "w2", "r"], ["", "z"], name="dead", hidden_size=2)
    proto = make_graph(
        [("Add", ["x", "x"], ["unused"], {})], {"x": [5, 1, 3]}, {}, {**constants, "w2": constants["w"] + 1}
    )
    proto.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1, 2]))
    proto.graph.node.extend([dead, alive])
    onnx.checker.check_model(proto, full_check=True)
    prune(proto)
    assert [node.name for node in proto.graph.node] == ["alive"]
    assert {tensor.name for tensor in proto.graph.initializer} == {"w", "r", "h"}
