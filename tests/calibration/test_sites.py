"""Sites: which products INT8 can compute, what they are called, and which stay in floating point by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgeser.calibration.graph import Graph
from edgeser.calibration.placement import chosen
from edgeser.calibration.sites import Site, find_sites
from edgeser.export_tools.encoders.storage import store_weights
from edgeser.runtime.errors import InputError

Make = Callable[..., onnx.ModelProto]
TO_FLOAT = {"to": onnx.TensorProto.FLOAT}


def values(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


KINDS: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any], int]] = {
    # Operator, input, weights, attributes, and the axis of the weights that gives the output channels.
    "matmul": ("MatMul", (5, 6), (6, 8), {}, 1),
    "gemm": ("Gemm", (6,), (6, 8), {}, 1),
    "gemm, transposed": ("Gemm", (6,), (8, 6), {"transB": 1}, 0),
    "conv1d": ("Conv", (6, 9), (8, 6, 3), {}, 0),
    "conv2d": ("Conv", (6, 9, 9), (8, 6, 3, 3), {}, 0),
    "grouped conv": ("Conv", (6, 9), (8, 3, 3), {"group": 2}, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_with_a_constant_is_a_site(make_graph: Make, kind: str) -> None:
    operator, given, shape, attributes, axis = KINDS[kind]
    proto = make_graph(
        [(operator, ["x", "layer.weight"], ["y"], attributes)],
        {"x": ["N", *given]},
        {"y": ["N", *["?"] * len(given)]},
        {"layer.weight": values(*shape)},
    )
    expected = "conv" if operator == "Conv" else "matmul"
    assert find_sites(proto) == [
        Site("layer", "y.node", expected, "x", ("layer.weight",), axis, parameters=int(np.prod(shape)))
    ]


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_a_recurrence_is_a_site_of_its_weights_alone(make_graph: Make, operator: str, gates: int) -> None:
    weights = {"w": values(2, gates * 5, 3), "r": values(2, gates * 5, 5), "b": values(2, 2 * gates * 5)}
    nodes = [(operator, ["x", "w", "r", "b"], ["y"], {"hidden_size": 5, "direction": "bidirectional"})]
    inputs, outputs = {"x": [7, "N", 3]}, {"y": [7, 2, "N", 5]}
    (site,) = find_sites(make_graph(nodes, inputs, outputs, weights))
    assert (site.kind, site.activation, site.weights, site.axis) == ("recurrent", "", ("w", "r"), 1)
    assert site.parameters == 2 * gates * 5 * (3 + 5)
    weights.pop("w")
    assert find_sites(make_graph(nodes, {**inputs, "w": [2, gates * 5, 3]}, outputs, weights)) == []


def test_what_is_no_product_with_a_constant_matrix_is_no_site(make_graph: Make) -> None:
    square = values(4, 4)
    proto = make_graph(
        [
            ("Transpose", ["x"], ["turned"], {"perm": [0, 2, 1]}),
            ("MatMul", ["x", "turned"], ["scores"], {}),  # two activations
            ("MatMul", ["square", "scores"], ["left"], {}),  # the constant is on the left
            ("MatMul", ["left", "batch"], ["stacked"], {}),  # a constant of three axes
            ("MatMul", ["left", "vector"], ["a"], {}),
            ("Gemm", ["two", "square"], ["b"], {"transA": 1}),  # its rows lie across
            ("Mul", ["stacked", "square"], ["c"], {}),
            ("Cast", ["x"], ["half"], {"to": onnx.TensorProto.FLOAT16}),
            ("MatMul", ["half", "half_weight"], ["half_product"], {}),  # not in single precision
            ("Cast", ["half_product"], ["d"], TO_FLOAT),
        ],
        {"x": ["N", 4, 4], "two": [4, "N"]},
        {"a": ["N", 4], "b": ["N", 4], "c": ["N", 4, 4], "d": ["N", 4, 4]},
        {
            "square": square,
            "batch": values(1, 4, 4),
            "vector": values(4),
            "half_weight": square.astype(np.float16),
        },
    )
    assert find_sites(proto) == []


def test_names_come_from_biases_or_else_from_weights_and_are_unique(make_graph: Make) -> None:
    weights = {name: values(6, 6) for name in ("val_1", "val_2", "b.weight", "c.weight", "val_5", "val_6", "val_7")}
    proto = make_graph(
        [
            ("MatMul", ["x", "val_1"], ["p1"], {}),
            ("Add", ["p1", "block.query.bias"], ["q1"], {}),
            ("MatMul", ["q1", "val_2"], ["p2"], {}),
            ("Add", ["model.block.key.bias", "p2"], ["q2"], {}),  # the bias on the left, behind the exporter's prefix
            ("Gemm", ["q2", "b.weight", "other.bias"], ["p3"], {}),  # its own bias, and not its weight's name
            ("MatMul", ["p3", "c.weight"], ["p4"], {}),  # no bias
            ("Add", ["p4", "x"], ["q4"], {}),  # a residual is no bias
            ("MatMul", ["q4", "val_5"], ["p5"], {}),
            ("Add", ["p5", "block.query.bias"], ["q5"], {}),  # the same bias once more
            ("MatMul", ["q5", "val_6"], ["p6"], {}),
            ("Add", ["p6", "in_proj_bias"], ["q6"], {}),
            ("MatMul", ["q6", "val_7"], ["p7"], {}),
            ("Add", ["p7", "val_8"], ["y"], {}),  # constant, but not called a bias
        ],
        {"x": ["N", 6]},
        {"y": ["N", 6]},
        {
            **weights,
            **{
                name: values(6)
                for name in ("block.query.bias", "model.block.key.bias", "other.bias", "in_proj_bias", "val_8")
            },
        },
    )
    names = [site.name for site in find_sites(proto)]
    assert names == ["block.query", "block.key", "other", "c", "block.query#2", "in_proj", "val_7"]


def test_the_product_before_the_logits_stays_in_floating_point(make_graph: Make) -> None:
    proto = make_graph(
        [
            ("MatMul", ["x", "first.weight"], ["p1"], {}),
            ("Relu", ["p1"], ["r1"], {}),
            ("MatMul", ["r1", "second.weight"], ["p2"], {}),
            ("Add", ["p2", "bias"], ["q2"], {}),
            ("MatMul", ["x", "skip.weight"], ["p3"], {}),
            ("Add", ["q2", "p3"], ["sum"], {}),
            ("Mul", ["sum", "temperature"], ["logits"], {}),
            ("MatMul", ["r1", "other.weight"], ["importance"], {}),
        ],
        {"x": ["N", 6]},
        {"logits": ["N", 6], "importance": ["N", 6]},
        {
            **{
                f"{name}.weight": values(6, 6) + place
                for place, name in enumerate(("first", "second", "skip", "other"))
            },
            "bias": values(6),
            "temperature": np.float32(0.5),
        },
    )
    reasons = {site.name: site.float_reason for site in find_sites(proto)}
    last = "last before an output"
    assert reasons == {"first": "", "second": last, "skip": last, "other": ""}
    assert [site.name for site in chosen(find_sites(proto))] == ["first", "other"]
    assert [site.name for site in chosen(find_sites(proto), ["other"])] == ["first"]
    with pytest.raises(InputError, match=r"floating point: no layer 'model/first', expected some of first, other, sec"):
        chosen(find_sites(proto), ["model/first"])


def test_encoders_have_no_logits_and_no_last_product(make_graph: Make) -> None:
    proto = make_graph(
        [("MatMul", ["x", "w"], ["rows"], {})], {"x": ["N", 4, 6]}, {"rows": ["N", 4, 6]}, {"w": values(6, 6)}
    )
    assert [site.float_reason for site in find_sites(proto)] == [""]


def test_a_convolution_over_one_channel_stays_in_floating_point(make_graph: Make) -> None:
    proto = make_graph(
        [("Conv", ["samples", "first"], ["a"], {}), ("Conv", ["a", "second"], ["rows"], {})],
        {"samples": ["N", 1, 50]},
        {"rows": ["N", 6, "T"]},
        {"first": values(4, 1, 5), "second": values(6, 4, 3)},
    )
    assert {site.name: site.float_reason for site in find_sites(proto)} == {
        "first": "reads one raw channel",
        "second": "",
    }


def test_shared_weights_stay_in_floating_point(make_graph: Make) -> None:
    """Shared as they are, in half precision through a cast each, or with something that is no product."""
    proto = make_graph(
        [
            ("MatMul", ["x", "twice"], ["a"], {}),
            ("MatMul", ["a", "twice"], ["b"], {}),
            ("Cast", ["half"], ["single_1"], TO_FLOAT),
            ("Cast", ["half"], ["single_2"], TO_FLOAT),
            ("MatMul", ["b", "single_1"], ["c"], {}),
            ("MatMul", ["c", "single_2"], ["d"], {}),
            ("MatMul", ["d", "penalised"], ["e"], {}),
            ("MatMul", ["e", "own"], ["rows"], {}),
            ("ReduceL2", ["penalised"], ["norm"], {"keepdims": 0}),
        ],
        {"x": ["N", 6]},
        {"rows": ["N", 6], "norm": []},
        {
            "twice": values(6, 6),
            "half": values(6, 6).astype(np.float16),
            "penalised": values(6, 6),
            "own": values(6, 6),
        },
    )
    shared = "weights are shared"
    assert {site.name: site.float_reason for site in find_sites(proto)} == {
        "twice": shared,
        "twice#2": shared,
        "single_1": shared,
        "single_2": shared,
        "penalised": shared,
        "own": "",
    }


@pytest.mark.parametrize("form", ["half", "int8"])
def test_weights_are_found_in_the_forms_that_encoders_keep_them_in(make_graph: Make, form: str) -> None:
    weights = {"a.weight": values(64, 96), "b.weight": values(96, 64)}
    proto = make_graph(
        [
            ("MatMul", ["x", "a.weight"], ["p"], {}),
            ("Relu", ["p"], ["r"], {}),
            ("MatMul", ["r", "b.weight"], ["rows"], {}),
        ],
        {"x": ["N", 4, 64]},
        {"rows": ["N", 4, 64]},
        weights,
    )
    plain = find_sites(proto)
    stored = store_weights(proto, form)
    assert not {tensor.name for tensor in stored.graph.initializer} & set(weights)
    assert find_sites(stored) == plain
    assert [(site.name, site.float_reason, site.parameters) for site in plain] == [("a", "", 6144), ("b", "", 6144)]
    error = {"half": 2e-3, "int8": 2e-2}[form]  # half a step of the largest weights, about 4
    for name, value in weights.items():
        seen = Graph(stored).constant(name)
        np.testing.assert_allclose(seen, value, atol=error)
        assert not np.array_equal(np.asarray(seen), value)
