from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeser.export_tools.encoders.storage import FORMS, store_weights
from edgeser.export_tools.lowering import IR_VERSION, OPSET
from edgeser.runtime.engines import open_engine
from edgeser.runtime.errors import InputError

TOKENS, WIDTH, OUT = 100, 64, 80
GENERATOR = np.random.default_rng(0)
TABLE = GENERATOR.normal(size=(TOKENS, WIDTH)).astype(np.float32)
MATRIX = (GENERATOR.normal(size=(WIDTH, OUT)) * np.geomspace(0.01, 10, OUT)).astype(np.float32)
MATRIX[:, 3] = 0
KERNEL = GENERATOR.normal(size=(OUT, OUT, 1)).astype(np.float32)
BIAS = GENERATOR.normal(size=OUT).astype(np.float32)
IDS = GENERATOR.integers(0, TOKENS, (2, 7)).astype(np.int32)


def in_half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.astype(np.float16).astype(np.float32)


def graph(table: NDArray[np.float32], matrix: NDArray[np.float32], kernel: NDArray[np.float32]) -> onnx.ModelProto:
    """An embedding used twice, a matrix product, a small bias, a convolution."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["first"]),
        helper.make_node("Gather", ["table", "ids"], ["second"]),
        helper.make_node("Add", ["first", "second"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "matrix"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["biased"]),
        helper.make_node("Transpose", ["biased"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["turned", "kernel"], ["convolved"]),
    ]
    weights = {"table": table, "matrix": matrix, "kernel": kernel, "bias": BIAS}
    outputs = {"embedded": ("N", 7, WIDTH), "product": ("N", 7, OUT), "convolved": ("N", OUT, 7)}
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("ids", TensorProto.INT32, ("N", 7))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(values, name) for name, values in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


def run(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    onnx.checker.check_model(model, full_check=True)
    with open_engine(model.SerializeToString()) as engine:
        return engine.run({"ids": IDS})


def stored(model: onnx.ModelProto) -> dict[str, str]:
    return {w.name: TensorProto.DataType.Name(w.data_type) for w in model.graph.initializer}


def test_lossless_stores_in_half_only_what_comes_back() -> None:
    weights = in_half(TABLE), MATRIX, in_half(KERNEL)
    model = store_weights(graph(*weights), "lossless")
    assert stored(model) == {"table.half": "FLOAT16", "matrix": "FLOAT", "kernel.half": "FLOAT16", "bias": "FLOAT"}
    for name, values in run(model).items():
        np.testing.assert_array_equal(values, run(graph(*weights))[name])


def test_lossless_leaves_single_precision_alone() -> None:
    original = graph(TABLE, MATRIX, KERNEL)
    assert store_weights(graph(TABLE, MATRIX, KERNEL)).SerializeToString() == original.SerializeToString()


def test_half_rounds_every_large_weight() -> None:
    model = store_weights(graph(TABLE, MATRIX, KERNEL), "half")
    assert stored(model)["bias"] == "FLOAT"  # small ones are not worth a node
    assert sorted(stored(model).values()) == ["FLOAT", "FLOAT16", "FLOAT16", "FLOAT16"]
    expected = run(graph(in_half(TABLE), in_half(MATRIX), in_half(KERNEL)))
    for name, values in run(model).items():
        np.testing.assert_array_equal(values, expected[name])


def test_half_keeps_what_float16_cannot_hold() -> None:
    large = MATRIX * np.float32(1e6)
    model = store_weights(graph(TABLE, large, KERNEL), "half")
    assert stored(model)["matrix"] == "FLOAT"
    assert all(np.isfinite(values).all() for values in run(model).values())


def test_int8_is_within_half_a_step() -> None:
    """Of each token's row and each output's column, whatever their ranges; zero stays zero."""
    model = store_weights(graph(TABLE, MATRIX, in_half(KERNEL)), "int8")
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    assert {name: str(w.dtype) for name, w in weights.items() if "scales" not in name} == {
        **{"table.codes": "int8", "matrix.codes": "int8", "kernel.half": "float16", "bias": "float32"}
    }
    for name, values, axis in (("table", TABLE, 1), ("matrix", MATRIX, 0)):
        codes, scales = weights[f"{name}.codes"], weights[f"{name}.scales"]
        peaks = np.abs(values).max(axis=axis, keepdims=True)
        assert scales.shape == peaks.shape
        assert (np.abs(codes * scales - values) <= peaks / 127 / 2 * 1.0001).all()
        assert np.abs(codes).max() == 127
    outputs = run(model)
    rebuilt = weights["table.codes"] * weights["table.scales"], weights["matrix.codes"] * weights["matrix.scales"]
    for name, values in run(graph(*rebuilt, in_half(KERNEL))).items():
        np.testing.assert_allclose(outputs[name], values, rtol=1e-5, atol=1e-4)
    assert not outputs["product"][..., 3].any()
    assert model.ByteSize() < graph(TABLE, MATRIX, in_half(KERNEL)).ByteSize() * 0.5


def test_a_table_that_is_also_a_matrix_is_scaled_once() -> None:
    """Tied embeddings: a scale per column serves both uses."""
    square = GENERATOR.normal(size=(WIDTH, WIDTH)).astype(np.float32)
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Gather", ["tied", "ids"], ["rows"]),
                helper.make_node("MatMul", ["rows", "tied"], ["product"]),
            ],
            "g",
            [helper.make_tensor_value_info("ids", TensorProto.INT32, ("N", 7))],
            [helper.make_tensor_value_info("product", TensorProto.FLOAT, ("N", 7, WIDTH))],
            [numpy_helper.from_array(square, "tied")],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    ids = IDS % WIDTH
    onnx.checker.check_model(store_weights(model, "int8"), full_check=True)
    assert sorted(stored(model).values()) == ["FLOAT", "INT8"]
    with open_engine(model.SerializeToString()) as engine:
        product = engine.run({"ids": ids})["product"]
    expected = square[ids] @ square
    assert np.abs(product - expected).max() < 0.05 * expected.std()


def test_every_form_is_accepted_and_others_are_refused() -> None:
    for form in FORMS:
        run(store_weights(graph(TABLE, MATRIX, KERNEL), form))
    with pytest.raises(InputError, match="--weights: got 'int4', expected one of lossless, half, int8"):
        store_weights(graph(TABLE, MATRIX, KERNEL), "int4")
