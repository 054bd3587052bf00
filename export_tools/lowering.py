"""PyTorch to ONNX, in two lowerings of one graph: standard operators only, and plugins left opaque."""

from __future__ import annotations

import collections
import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxsim
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgeser.export_tools import drop_attention, key_sparse
from edgeser.export_tools.key_sparse import DOMAIN, VERSION
from edgeser.models import EmotionModel

OPSET = 18  # JetPack 6's TensorRT 10.3 and the last ONNX Runtime for Python 3.10 read it
IR_VERSION = 10
# The operators that a graph may hold as single nodes, by name: what gives each its meaning.
FUNCTIONS: Mapping[str, Callable[[], onnx.FunctionProto]] = {
    key_sparse.NAME: key_sparse.key_sparse_function,
    drop_attention.NAME: drop_attention.drop_attention_function,
}
# A product and its bias stay apart, and query, key and value too: engines fuse them as they like, weights keep their
# names in both lowerings, and no reshapes stand around every product.
_SKIPPED = ["fuse_matmul_add_bias_into_gemm", "fuse_matmul_add_bias_into_gemm_batched", "fuse_qkv"]


@dataclass(frozen=True)
class Lowerings:
    """One model as two graphs.

    Attributes:
        portable: Standard operators only.
        plugin: `edgeser` operators left as single nodes, with their function bodies, so that it still is a
            complete ONNX model; a builder that maps the nodes to plugins drops the bodies.
            `None` for a model without such operators.
    """

    portable: onnx.ModelProto
    plugin: onnx.ModelProto | None

    def named(self) -> dict[str, onnx.ModelProto]:
        """Return the graphs there are, by name."""
        graphs = {"portable": self.portable}
        return graphs if self.plugin is None else {**graphs, "plugin": self.plugin}


def lower(model: EmotionModel, temperature: float = 1.0) -> Lowerings:
    """Export a model with fixed lengths and a symbolic batch, in both lowerings.

    Args:
        model: The model.
        temperature: What its logits are divided by.
    """
    return both_lowerings(_export(model, temperature))


def both_lowerings(plugin: onnx.ModelProto) -> Lowerings:
    """Return both lowerings of a graph fresh from the exporter, with the bodies of those functions that it uses."""
    plugin.ir_version = IR_VERSION
    _tidy(plugin)
    used = _own_operators(plugin)
    if not used:
        return Lowerings(simplify(plugin), None)
    plugin.functions.extend(FUNCTIONS[name]() for name in sorted(used))
    portable = onnx.inliner.inline_local_functions(plugin)
    for i, opset in reversed(list(enumerate(portable.opset_import))):
        if opset.domain == DOMAIN:
            del portable.opset_import[i]
    onnx.checker.check_model(plugin, full_check=True)
    return Lowerings(simplify(portable), plugin)


def _own_operators(proto: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in proto.graph.node if node.domain == DOMAIN}


class _GraphContract(nn.Module):
    """A model with the graph's flat inputs and outputs instead of dictionaries."""

    def __init__(self, model: EmotionModel, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.scale = 1.0 / temperature
        self.names = input_names(model)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        output = self.model(dict(zip(self.names, tensors, strict=True)))
        return (output.logits * self.scale, *(output.importance[name] for name in self.model.importances))


def input_names(model: EmotionModel) -> list[str]:
    """Return the graph's inputs in order: `<name>`, `<name>_length` for each modality."""
    return [graph_input for name in model.inputs for graph_input in (name, f"{name}_length")]


def output_names(model: EmotionModel) -> list[str]:
    """Return the graph's outputs in order: `logits`, then the importances."""
    return ["logits", *(f"{name}_importance" for name in model.importances)]


def example_inputs(model: EmotionModel, batch: int = 2) -> dict[str, Tensor]:
    """Return inputs of the right shapes, for tracing; of a single utterance the tracer may fix the batch at 1."""
    inputs: dict[str, Tensor] = {}
    for name, spec in model.inputs.items():
        inputs[name] = torch.zeros(batch, spec.length, spec.dim)
        inputs[f"{name}_length"] = torch.full((batch,), spec.length, dtype=torch.int32)
    return inputs


def _export(model: EmotionModel, temperature: float) -> onnx.ModelProto:
    example = example_inputs(model)
    batch = torch.export.Dim("N", min=1)
    shapes = (tuple({0: batch} for _ in example),)
    proto = traced(_GraphContract(model, temperature), example, output_names(model), shapes)
    name_weights(proto, model)
    assert [value.name for value in proto.graph.input] == list(example)
    return proto


def traced(
    module: nn.Module, example: Mapping[str, Tensor], outputs: Sequence[str], shapes: tuple[Any, ...]
) -> onnx.ModelProto:
    """Return a module's graph as the exporter gives it, with a symbolic batch.

    Args:
        module: The module.
        example: Its inputs by name, in order, of at least two utterances.
        outputs: Names of its outputs.
        shapes: What of each input is symbolic, nested as the module's arguments are.
    """
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(example.values()),
            input_names=list(example),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None  # `f` is not given, so the exporter returns the program
    proto: onnx.ModelProto = program.model_proto
    assert_any_batch(proto)
    return proto


def _tidy(proto: onnx.ModelProto) -> None:
    """Drop traces of the exporter (paths of source files among them) and stale opsets."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.metadata_props[:]
    del proto.functions[:]
    used = {node.domain for node in proto.graph.node}
    for i, opset in reversed(list(enumerate(proto.opset_import))):
        if opset.domain and opset.domain not in used:
            del proto.opset_import[i]
    if DOMAIN in used and DOMAIN not in {opset.domain for opset in proto.opset_import}:
        proto.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    unknown = _own_operators(proto) - set(FUNCTIONS)
    assert not unknown, f"no function body for {unknown}"


def name_weights(proto: onnx.ModelProto, model: nn.Module) -> None:
    """Give weights that the exporter transposed, and called `val_17`, the names of the parameters they are."""
    taken = {tensor.name for tensor in proto.graph.initializer}
    parameters: dict[tuple[int, ...], list[tuple[str, NDArray[np.float32]]]] = collections.defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and name not in taken:
            parameters[tuple(parameter.T.shape)].append((name, parameter.detach().T.numpy()))
    renamed: dict[str, str] = {}
    for tensor in proto.graph.initializer:
        candidates = parameters.get(tuple(tensor.dims), [])
        if not candidates or tensor.data_type != onnx.TensorProto.FLOAT or not tensor.name.startswith("val_"):
            continue
        stored = numpy_helper.to_array(tensor)
        for place, (name, value) in enumerate(candidates):
            if np.array_equal(stored, value):
                renamed[tensor.name] = name
                tensor.name = name
                del candidates[place]
                break
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def assert_any_batch(proto: onnx.ModelProto) -> None:
    """Assert that the batch of every input and output is symbolic.

    PyTorch 2.13 fixes it without a word where it was traced with a batch of 1 and runs an LSTM, GRU or transformer.
    """
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param, f"the batch of {value.name} is fixed"


def finish(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Tidy and simplify a graph of standard operators, fresh from the exporter."""
    proto.ir_version = IR_VERSION
    _tidy(proto)
    return simplify(proto)


def simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants, bring GELU into the order that engines fuse, and check the result."""
    simplified: onnx.ModelProto = onnxsim.simplify(proto, check_n=0, skipped_optimizers=_SKIPPED)[0]
    simplified.ir_version = IR_VERSION
    _order_gelu(simplified.graph)
    onnx.checker.check_model(simplified, full_check=True)
    return simplified


def _order_gelu(graph: onnx.GraphProto) -> None:
    """Turn `x * (0.5 * (1 + erf))` into `(x * (1 + erf)) * 0.5`, the form that ONNX Runtime fuses into one kernel."""
    makers = {out: node for node in graph.node for out in node.output}
    uses = collections.Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    halves = {i.name for i in graph.initializer if not i.dims and float(numpy_helper.to_array(i)) == 0.5}
    for outer in graph.node:
        inner = makers.get(outer.input[1]) if outer.op_type == "Mul" else None
        if inner is None or inner.op_type != "Mul" or inner.input[0] not in halves or uses[inner.output[0]] != 1:
            continue
        shifted = makers.get(inner.input[1])
        erf = makers.get(shifted.input[0]) if shifted is not None and shifted.op_type == "Add" else None
        scaled = makers.get(erf.input[0]) if erf is not None and erf.op_type == "Erf" else None
        # Of another value than its own it is no GELU, and that value may come only after the inner product.
        if scaled is not None and outer.input[0] in scaled.input:
            half, value = inner.input[0], outer.input[0]
            inner.input[:] = [value, inner.input[1]]
            outer.input[:] = [inner.output[0], half]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's chatter (deprecations inside torch, per-pass logs) off the user's screen."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
