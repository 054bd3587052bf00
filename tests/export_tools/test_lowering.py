"""What lowering does to a graph for its engines: names of weights, GELU in one kernel, products without reshapes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from edgeser.export_tools import lowering
from edgeser.export_tools.encoders.bert import BertEncoder
from edgeser.export_tools.encoders.export import example_inputs, lower_encoder
from edgeser.export_tools.encoders.layers import LayerChoice
from edgeser.export_tools.lowering import IR_VERSION, OPSET, Lowerings, finish, name_weights, quiet, simplify
from edgeser.runtime.engines import open_engine

Count = Callable[[onnx.ModelProto], Counter[str]]
Node = tuple[str, Sequence[str], Sequence[str]]


def make_graph(
    nodes: Sequence[Node], outputs: Mapping[str, Sequence[int | str]], constants: Mapping[str, Any], width: int = 6
) -> onnx.ModelProto:
    """A graph over `x` and `z`, both `(N, width)`; nodes are called after their first output."""
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, given, made, name=f"{made[0]}.node") for operator, given, made in nodes],
        "graph",
        [helper.make_tensor_value_info(name, kind, ["N", width]) for name in "xz"],
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    with open_engine(proto.SerializeToString()) as engine:
        return engine.run(feeds)


def operators(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


@pytest.fixture
def fused_operators(tmp_path: Path) -> Count:
    """Count the operators that ONNX Runtime makes of a graph."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    def count(proto: onnx.ModelProto) -> Counter[str]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return operators(onnx.load(tmp_path / "optimized.onnx"))

    return count


class Perceptron(nn.Module):
    """Rows, an exact GELU, and two linear layers of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.second(nn.functional.gelu(self.first(rows)))
        return out


def export(module: nn.Module, *shape: int) -> onnx.ModelProto:
    """Export as EdgeSER's own models are, fresh from the exporter."""
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            (torch.zeros(2, *shape),),
            input_names=["rows"],
            output_names=["out"],
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


@pytest.fixture(scope="module")
def perceptron() -> tuple[Perceptron, bytes]:
    torch.manual_seed(0)
    module = Perceptron()
    return module, export(module, 5, 6).SerializeToString()


@pytest.fixture(scope="module")
def lowered(fresh: Callable[..., Any], exported: Callable[..., Any]) -> tuple[nn.Module, Lowerings]:
    """A model on words alone, and its graphs as a bundle has them."""
    bundle, _ = exported(("text",))
    return fresh("compact", ("text",)).model, Lowerings(
        *(onnx.load_from_string(bundle.graph(name)) for name in ("portable", "plugin"))
    )


def test_transposed_weights_get_the_names_of_their_parameters(perceptron: tuple[Perceptron, bytes]) -> None:
    module, exported = perceptron
    proto = onnx.load_from_string(exported)
    before = {tensor.name for tensor in proto.graph.initializer}
    assert not {"first.weight", "second.weight"} & before  # or there is nothing to show
    name_weights(proto, module)
    onnx.checker.check_model(proto, full_check=True)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for name in ("first", "second"):
        np.testing.assert_array_equal(stored[f"{name}.weight"], getattr(module, name).weight.detach().numpy().T)
    used = [name for node in proto.graph.node if node.op_type == "MatMul" for name in node.input]
    assert [name for name in used if name.endswith(".weight")] == ["first.weight", "second.weight"]
    rows = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(run(proto, {"rows": rows})["out"], module(torch.from_numpy(rows)), atol=1e-6)


class Holder(nn.Module):
    """Parameters by name."""

    def __init__(self, values: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(value.copy())))


def test_only_what_is_a_transposed_parameter_is_named() -> None:
    rng = np.random.default_rng(0)
    a, b, c, d = (rng.normal(size=(6, 6)).astype(np.float32) for _ in range(4))
    zeros = np.zeros((6, 6), np.float32)
    module = Holder({"a": a, "twin": a, "b": b, "kept": c, "zero_1": zeros, "zero_2": zeros, "flat": a[0]})
    constants = {
        **{"val_1": a.T, "val_2": a.T, "val_3": zeros, "val_4": zeros},
        **{"val_5": b, "kept": c, "val_6": c.T, "other": b.T, "val_7": d.T, "val_8": a[0]},
    }
    nodes = [("MatMul", ["x", "val_1"], ["h0"])] + [
        ("MatMul" if np.ndim(constants[name]) == 2 else "Add", [f"h{place}", name], [f"h{place + 1}"])
        for place, name in enumerate(list(constants)[1:])
    ]
    proto = make_graph(nodes, {f"h{len(constants) - 1}": ["N", 6]}, constants)
    feeds = {name: rng.normal(size=(2, 6)).astype(np.float32) for name in "xz"}
    expected = run(proto, feeds)
    name_weights(proto, module)
    onnx.checker.check_model(proto, full_check=True)
    names = [tensor.name for tensor in proto.graph.initializer]
    # Equal ones get a name each; those not transposed, taken, named already, unknown or flat stay what they are called.
    assert names == ["a", "twin", "zero_1", "zero_2", "val_5", "kept", "val_6", "other", "val_7", "val_8"]
    assert [node.input[1] for node in proto.graph.node] == names
    for name, value in run(proto, feeds).items():
        np.testing.assert_array_equal(value, expected[name])


def test_both_lowerings_name_the_same_weights(lowered: tuple[nn.Module, Lowerings]) -> None:
    """All weights of linear layers, in both; constants that the exporter numbered are none of them."""
    model, lowerings = lowered
    assert lowerings.plugin is not None
    linear = {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    found = []
    for proto in lowerings.named().values():
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        products = [n for n in proto.graph.node if n.op_type in ("MatMul", "Gemm") and n.input[1] in stored]
        weights = {node.input[1].removeprefix("model."): stored[node.input[1]] for node in products}
        assert set(weights) == set(linear)
        for name, layer in linear.items():
            expected = layer.weight.detach().numpy()
            assert np.array_equal(weights[name], expected) or np.array_equal(weights[name], expected.T), name
        found.append({node.input[1] for node in products})
    assert found[0] == found[1]


def test_no_reshapes_stand_around_products(
    lowered: tuple[nn.Module, Lowerings], perceptron: tuple[Perceptron, bytes]
) -> None:
    """What the simplifier makes of a product of rows and its bias, left to itself, is a Gemm between two reshapes."""
    module, exported = perceptron
    proto = onnx.load_from_string(exported)
    left_alone = operators(onnxsim.simplify(proto, check_n=0)[0])
    assert (left_alone["Gemm"], left_alone["Reshape"] > 0) == (2, True)
    name_weights(proto, module)
    found = operators(finish(proto))
    assert (found["Gemm"], found["Reshape"], found["MatMul"], found["Add"]) == (0, 0, 2, 3)
    for graph in lowered[1].named().values():
        makers = {out: node for node in graph.graph.node for out in node.output}
        gemms = [node for node in graph.graph.node if node.op_type == "Gemm"]
        assert [node for node in gemms if getattr(makers.get(node.input[0]), "op_type", "") == "Reshape"] == []


def test_gelu_is_one_kernel_and_keeps_its_numbers(perceptron: tuple[Perceptron, bytes], fused_operators: Count) -> None:
    """Within 1e-6 of PyTorch; without the order ONNX Runtime finds no GELU in what the exporter writes."""
    module, exported = perceptron
    rows = np.random.default_rng(0).normal(scale=3, size=(3, 5, 6)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(rows)).numpy()
    unordered: onnx.ModelProto = onnxsim.simplify(
        onnx.load_from_string(exported), check_n=0, skipped_optimizers=lowering._SKIPPED
    )[0]
    counted = fused_operators(unordered)
    assert (counted["Erf"], counted["Gelu"] + counted["BiasGelu"]) == (1, 0)
    proto = finish(onnx.load_from_string(exported))
    counted = fused_operators(proto)
    assert (counted["Erf"], counted["Gelu"] + counted["BiasGelu"]) == (0, 1)
    np.testing.assert_allclose(run(proto, {"rows": rows})["out"], expected, atol=1e-6)


def test_all_gelus_of_an_encoder_are_fused(fused_operators: Count) -> None:
    """As many as there are error functions."""
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 12}
    config = BertConfig(**sizes, num_hidden_layers=3, num_attention_heads=2)
    encoder = BertEncoder(BertModel(config, add_pooling_layer=False), 6, {"start": 1, "end": 2, "padding": 0})
    encoder.choice = LayerChoice.parse("last", encoder.layers, encoder.learned)
    proto = lower_encoder(encoder, example_inputs(encoder, 6, encoder.describe()))
    assert operators(proto)["Erf"] == 3
    counted = fused_operators(proto)
    assert (counted["Erf"], counted["Gelu"] + counted["BiasGelu"]) == (0, 3)


GELU: list[Node] = [
    ("Div", ["x", "root"], ["d"]),
    ("Erf", ["d"], ["e"]),
    ("Add", ["e", "one"], ["s"]),
    ("Mul", ["half", "s"], ["i"]),
]
NUMBERS = {"root": np.sqrt(2.0), "one": 1.0, "half": 0.5}


def reorder(nodes: Sequence[Node], *outputs: str, **constants: Any) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return a graph and what reordering makes of it, after checking that both compute the same."""
    proto = make_graph(nodes, {name: ["N", 6] for name in outputs}, NUMBERS | constants)
    ordered = onnx.ModelProto()
    ordered.CopyFrom(proto)
    lowering._order_gelu(ordered.graph)
    onnx.checker.check_model(ordered, full_check=True)
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(scale=2, size=(4, 6)).astype(np.float32) for name in "xz"}
    found = run(ordered, feeds)
    for name, value in run(proto, feeds).items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
    return proto, ordered


def test_the_half_comes_last() -> None:
    proto, ordered = reorder([*GELU, ("Mul", ["x", "i"], ["y"])], "y")
    assert ordered != proto
    assert [list(node.input) for node in ordered.graph.node[-2:]] == [["x", "s"], ["i", "half"]]


@pytest.mark.parametrize(
    ("nodes", "outputs", "constants"),
    [
        pytest.param([*GELU, ("Mul", ["x", "i"], ["y"])], "y", {"half": 0.7}, id="no half"),
        pytest.param([*GELU, ("Mul", ["x", "i"], ["y"]), ("Neg", ["i"], ["u"])], "yu", {}, id="used twice"),
        pytest.param([*GELU, ("Mul", ["x", "i"], ["y"])], "yi", {}, id="an output"),
        pytest.param([*GELU, ("Mul", ["z", "i"], ["y"])], "y", {}, id="of another value"),
        pytest.param([*GELU, ("Neg", ["z"], ["n"]), ("Mul", ["n", "i"], ["y"])], "y", {}, id="of a later value"),
        pytest.param(
            [("Tanh", ["x"], ["e"]), *GELU[2:], ("Mul", ["x", "i"], ["y"])], "y", {}, id="tanh instead of erf"
        ),
        pytest.param([("Erf", ["x"], ["e"]), *GELU[2:], ("Mul", ["x", "i"], ["y"])], "y", {}, id="erf of an input"),
    ],
)
def test_what_is_no_gelu_is_left_alone(nodes: Sequence[Node], outputs: str, constants: Mapping[str, Any]) -> None:
    proto, ordered = reorder(nodes, *outputs, **constants)
    assert ordered.SerializeToString() == proto.SerializeToString()


def test_a_gated_error_function_survives_simplifying() -> None:
    """It comes to its factor only after the product with a half."""
    proto = make_graph([*GELU, ("Neg", ["z"], ["n"]), ("Mul", ["n", "i"], ["y"])], {"y": ["N", 6]}, NUMBERS)
    feeds = {name: np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32) for name in "xz"}
    np.testing.assert_allclose(run(simplify(proto), feeds)["y"], run(proto, feeds)["y"], atol=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_batch_that_the_exporter_fixed_is_found(kind: type[nn.RNNBase]) -> None:
    """PyTorch 2.13, told that the batch is any: traced with one utterance it fixes 1 without a word, with two not."""

    class Recurrence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(4, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            rows: Tensor = self.layer(x)[0]
            return rows

    def export(batch: int) -> onnx.ModelProto:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                Recurrence().eval(),
                (torch.zeros(batch, 7, 4),),
                dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        proto: onnx.ModelProto = program.model_proto
        return proto

    lowering.assert_any_batch(export(2))
    with pytest.raises(AssertionError, match="the batch of x is fixed"):
        lowering.assert_any_batch(export(1))
