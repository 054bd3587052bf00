"""The plugins in a real registry: TensorRT-RTX has TensorRT's interface, and installs without a GPU."""

from __future__ import annotations

import gc
import subprocess
import sys
import types
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from edgeser.export_tools.plugins import operators, registration
from edgeser.export_tools.plugins.drop_attention import DropAttention
from edgeser.export_tools.plugins.key_sparse_attention import KeySparseAttention
from edgeser.export_tools.plugins.operators import Attribute, Operator
from edgeser.export_tools.plugins.plugin import make_creator
from edgeser.export_tools.plugins.registration import NAMESPACES, find_creator, register
from edgeser.export_tools.plugins.top_k_mask import TopKMask
from edgeser.runtime.errors import EngineError, InputError

FIELDS: dict[str, dict[str, Attribute]] = {
    "KeySparseAttention": {"keep": 7, "scale": 0.125},
    "DropAttention": {"keep": 7, "offsets": (0, 1, 3), "scale": 0.125},
    "TopKMask": {"keep": 7},
}
NAMES = pytest.mark.parametrize("name", list(FIELDS))


@pytest.fixture(scope="module")
def trt() -> ModuleType:
    module: ModuleType = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: edgeser[rtx]")
    register(module)
    return module


_arrays: list[NDArray[Any]] = []  # a field points into its array and holds no reference


def collect(trt: ModuleType, values: dict[str, Attribute]) -> Any:
    integers = (np.int32, trt.PluginFieldType.INT32)
    kinds = {int: integers, tuple: integers, float: (np.float32, trt.PluginFieldType.FLOAT32)}
    fields = []
    for name, value in values.items():
        dtype, kind = kinds[type(value)]
        _arrays.append(np.atleast_1d(np.asarray(value, dtype)))
        fields.append(trt.PluginField(name, _arrays[-1], kind))
    return trt.PluginFieldCollection(fields)


@pytest.fixture
def plugin(trt: ModuleType) -> Callable[..., Any]:
    """Make a plugin as TensorRT does: `(name, namespace="")`."""

    def make(name: str, namespace: str = "") -> Any:
        creator = trt.get_plugin_registry().get_creator(name, "1", namespace)
        return creator.create_plugin("layer", collect(trt, FIELDS[name]), trt.TensorRTPhase.BUILD)

    return make


def describe(trt: ModuleType, kind: Any, shape: tuple[int, ...] = (1,), form: Any = None) -> Any:
    found = trt.PluginTensorDesc()
    found.type, found.dims, found.format = kind, shape, form or trt.TensorFormat.LINEAR
    return found


def describe_dynamic(trt: ModuleType, *arguments: Any) -> Any:
    found = trt.DynamicPluginTensorDesc()
    found.desc = describe(trt, *arguments)
    found.min = found.opt = found.max = found.desc.dims
    return found


@NAMES
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_creators_are_found_and_registered_once(name: str, namespace: str, trt: ModuleType) -> None:
    register(trt)
    found = [
        creator
        for creator in trt.get_plugin_registry().all_creators
        if (creator.name, creator.plugin_version, creator.plugin_namespace) == (name, "1", namespace)
    ]
    assert found == [find_creator(trt, name, namespace)]
    assert trt.get_plugin_registry().get_creator(name, "1", namespace) is found[0]
    declared = {field.name: field.type for field in found[0].field_names}
    integer = trt.PluginFieldType.INT32
    kinds = {"keep": integer, "offsets": integer, "scale": trt.PluginFieldType.FLOAT32}
    assert declared == {field: kinds[field] for field in FIELDS[name]}


def test_no_other_creator_is_taken_for_ours(trt: ModuleType) -> None:
    assert find_creator(trt, "KeySparseAttention", "elsewhere") is None
    assert find_creator(trt, "Unknown") is None


@NAMES
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_fields_survive_a_plan(name: str, namespace: str, plugin: Callable[..., Any], trt: ModuleType) -> None:
    """What is serialized makes the same plugin again; so does a clone, also of a context."""
    first = plugin(name, namespace)
    assert (first.plugin_name, first.plugin_version, first.plugin_namespace) == (name, "1", namespace)
    serialized = first.get_fields_to_serialize()
    gc.collect()
    scrap = [np.full(1, -1.0, np.float32) for _ in range(100)]  # takes whatever memory the fields should still hold
    wanted = {field: np.atleast_1d(value).tolist() for field, value in FIELDS[name].items()}
    assert {field.name: field.data.tolist() for field in serialized} == wanted
    assert scrap
    creator = find_creator(trt, name, namespace)
    again = creator.create_plugin("layer", serialized, trt.TensorRTPhase.RUNTIME)
    for other in (again, first.clone(), first.attach_to_context(None)):
        assert other is not first
        assert other.operator == first.operator
        assert (other.plugin_name, other.plugin_namespace) == (name, namespace)


@NAMES
def test_every_attribute_is_set_and_every_base_initialised(
    name: str, plugin: Callable[..., Any], trt: ModuleType
) -> None:
    made = plugin(name)
    bases = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)
    assert isinstance(made, bases)
    for base in bases:
        assert made.api_language == base.api_language.fget(made) == trt.APILanguage.PYTHON
        assert base.interface_info.fget(made).kind  # in C++: a base that is not initialised crashes here
    assert (made.num_outputs, made.metadata_string, made.timing_cache_id) == (2, "", "")
    assert made.format_combination_limit == 100
    for kind in trt.PluginCapabilityType.__members__.values():
        assert made.get_capability_interface(kind) is made
    made.configure_plugin([], [])
    made.on_shape_change([], [])
    made.set_tactic(0)
    made.destroy()
    assert made.get_valid_tactics() == []


def test_formats(plugin: Callable[..., Any], trt: ModuleType) -> None:
    """FP32 or FP16, the same everywhere, lengths in INT32, and dense rows."""
    single, half, integer = trt.float32, trt.float16, trt.int32

    def supports(name: str, kinds: list[Any], position: int, form: Any = None) -> Any:
        tensors = [describe_dynamic(trt, kind, (1,), form) for kind in kinds]
        return plugin(name).supports_format_combination(position, tensors, len(kinds) - 2)

    for kind, other in ((single, half), (half, single)):
        right = [kind, kind, kind, integer, kind, kind]
        for name in ("KeySparseAttention", "DropAttention"):
            assert all(supports(name, right, position) for position in range(6))
            for position in (1, 2, 4, 5):
                assert not supports(name, [*right[:position], other, *right[position + 1 :]], position)
        assert all(supports("TopKMask", [kind] * 3, position) for position in range(3))
        assert not supports("TopKMask", [kind, other, kind], 1)
    assert not supports("KeySparseAttention", [single] * 6, 3)
    assert not supports("KeySparseAttention", [integer] * 6, 0)
    assert not supports("TopKMask", [trt.int8] * 3, 0)
    assert not supports("TopKMask", [half] * 3, 0, trt.TensorFormat.CHW4)


class Dims(list[Any]):
    """Stands in for `DimsExprs`, of which Python cannot make one outside a builder."""


@pytest.mark.parametrize(
    ("operator", "inputs", "expected"),
    [
        (
            KeySparseAttention(1, 1.0),
            ["N H Tq D", "N H Tk D", "N H Tk D", "N"],
            ["N H Tq D", "N H Tk"],
        ),
        (DropAttention(1, (0,), 1.0), ["N H T D"] * 3 + ["N"], ["N H T D", "N H T"]),
        (TopKMask(1), ["N H Tq Tk"], ["N H Tq Tk", "N H Tk"]),
    ],
)
def test_shapes_and_types(operator: Operator, inputs: list[str], expected: list[str], trt: ModuleType) -> None:
    module = types.SimpleNamespace(**vars(trt))
    module.DimsExprs = Dims
    creator = make_creator(module, type(operator), "")  # type: ignore[arg-type]
    made = creator.create_plugin("layer", collect(trt, FIELDS[operator.name]), trt.TensorRTPhase.BUILD)
    shapes = made.get_output_shapes([shape.split() for shape in inputs], [], None)
    assert all(type(shape) is Dims for shape in shapes)
    assert [" ".join(shape) for shape in shapes] == expected
    assert made.get_output_data_types([trt.float16, trt.int32]) == [trt.float16] * 2


def test_workspace(plugin: Callable[..., Any], trt: ModuleType) -> None:
    """For the largest shapes of the profile."""
    shapes = [(64, 8, 460, 64), (64, 8, 20, 64), (64, 8, 20, 64)]
    tensors = [describe_dynamic(trt, trt.float16, shape) for shape in shapes]
    lengths = describe_dynamic(trt, trt.int32, (64,))
    assert plugin("KeySparseAttention").get_workspace_size([*tensors, lengths], []) == 4 * 64 * 8 * (460 + 2 * 20 + 2)
    weights = describe_dynamic(trt, trt.float32, (2, 8, 20, 30))
    assert plugin("TopKMask").get_workspace_size([weights], []) == 4 * 2 * 8 * 31


class EmulatedKernels:
    """Stands in for `Kernels`: the same launches, on the CPU."""

    def __init__(self, kernels: Any) -> None:
        self.kernels = kernels
        self.cuda = types.SimpleNamespace(processors=1)
        self.streams: list[int] = []

    def run(self, launches: Any, stream: int) -> None:
        self.streams.append(stream)
        self.kernels.run(launches)


@pytest.fixture
def on_cpu(emulated: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> list[EmulatedKernels]:
    """Let plugins run their kernels on the CPU."""
    used: list[EmulatedKernels] = []

    def kernels(name: str, **macros: int) -> EmulatedKernels:
        used.append(EmulatedKernels(emulated(name, **macros)))
        return used[-1]

    for module in ("attention", "top_k_mask"):
        monkeypatch.setattr(f"edgeser.export_tools.plugins.{module}.kernels", kernels)
    return used


def enqueue(trt: ModuleType, made: Any, inputs: list[NDArray[Any]], outputs: list[NDArray[Any]], stream: int) -> None:
    kinds = {"float32": trt.float32, "float16": trt.float16, "int32": trt.int32}
    given, results = (
        [describe(trt, kinds[str(array.dtype)], array.shape) for array in arrays] for arrays in (inputs, outputs)
    )
    dynamic = [describe_dynamic(trt, desc.type, tuple(desc.dims)) for desc in given]
    workspace = np.full(made.get_workspace_size(dynamic, []), 0xFF, np.uint8)
    addresses = [[array.ctypes.data for array in arrays] for arrays in (inputs, outputs)]
    made.enqueue(given, results, *addresses, workspace.ctypes.data, stream)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_attention_runs(
    dtype: str, trt: ModuleType, plugin: Callable[..., Any], on_cpu: Any, checks: ModuleType, reference: ModuleType
) -> None:
    """From TensorRT's call to the result: only the GPU is missing."""
    inputs = checks.draw(checks.problem((2, 2, 20, 31, 32), 7, dtype, 0.125), (31, 12))
    outputs = [np.full(shape, np.nan, dtype) for shape in ((2, 2, 20, 32), (2, 2, 31))]
    enqueue(trt, plugin("KeySparseAttention"), inputs.arrays, outputs, stream=77)
    assert on_cpu[0].streams == [77]
    weights = reference.attention_weights(inputs.q, inputs.k, inputs.key_length, 0.125)
    sums = reference.importance(weights)
    expected = reference.context(weights, reference.kept_keys(sums, 7), np.nan_to_num(inputs.v))
    checks.assert_near(outputs[1], sums, checks.TOLERANCE[dtype])
    checks.assert_near(outputs[0], expected, checks.TOLERANCE[dtype])


@pytest.mark.parametrize("offsets", [(0, 1, 3), (-1,)])
def test_drop_attention_runs(
    offsets: tuple[int, ...], trt: ModuleType, on_cpu: Any, checks: ModuleType, reference: ModuleType
) -> None:
    """With a static mask, and with what stands for none."""
    inputs = checks.draw(checks.drop_problem((2, 2, 31, 32), 7, (), scale=0.125), (31, 12))
    outputs = [np.full(shape, np.nan, np.float32) for shape in ((2, 2, 31, 32), (2, 2, 31))]
    fields = collect(trt, {"keep": 7, "offsets": offsets, "scale": 0.125})
    made = find_creator(trt, "DropAttention").create_plugin("layer", fields, trt.TensorRTPhase.BUILD)
    enqueue(trt, made, inputs.arrays, outputs, stream=78)
    assert on_cpu[0].streams == [78]
    q, v = np.nan_to_num(inputs.q), np.nan_to_num(inputs.v)
    weights = reference.attention_weights(q, inputs.k, inputs.key_length, 0.125)
    weights = reference.without_padded_queries(weights, inputs.key_length)
    sums = reference.importance(weights)
    mask = reference.drop_mask(reference.kept_keys(sums, 7), offsets)
    checks.assert_near(outputs[1], sums, checks.TOLERANCE["float32"])
    checks.assert_near(outputs[0], reference.drop_context(weights, mask, v), checks.TOLERANCE["float32"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_mask_runs(
    dtype: str, trt: ModuleType, plugin: Callable[..., Any], on_cpu: Any, checks: ModuleType, reference: ModuleType
) -> None:
    weights = np.random.default_rng(0).random((2, 2, 9, 31)).astype(dtype)
    outputs = [np.full(shape, np.nan, dtype) for shape in ((2, 2, 9, 31), (2, 2, 31))]
    enqueue(trt, plugin("TopKMask"), [weights], outputs, stream=5)
    assert on_cpu[0].streams == [5]
    sums = reference.importance(weights)
    np.testing.assert_array_equal(outputs[0], weights * reference.kept_keys(sums, 7)[:, :, None])
    checks.assert_near(outputs[1], sums, checks.TOLERANCE[dtype])


def test_a_failure_is_raised(trt: ModuleType, plugin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT wants no status from a Python plugin."""
    weights = np.ones((1, 1, 2, 3), np.float32)

    def refuse(*_: object, **__: object) -> None:
        raise EngineError("no compiler")

    monkeypatch.setattr("edgeser.export_tools.plugins.top_k_mask.kernels", refuse)
    with pytest.raises(EngineError, match="no compiler"):
        enqueue(trt, plugin("TopKMask"), [weights], [weights, weights[:, :, 0]], stream=0)


def test_attributes() -> None:
    assert KeySparseAttention.from_values({"keep": np.int64(5), "scale": np.float32(0.5), "plugin_version": "1"}) == (
        KeySparseAttention(5, 0.5)
    )
    offsets = np.array([0, 2], np.int32)
    drop = DropAttention.from_values({"keep": np.array([5]), "offsets": offsets, "scale": np.array([0.5], np.float32)})
    assert drop == DropAttention(5, (0, 2), 0.5)
    assert DropAttention.from_values({"keep": 5, "offsets": 2, "scale": 1}) == DropAttention(5, (2,), 1.0)
    with pytest.raises(InputError, match="KeySparseAttention: attributes scale are missing, got keep"):
        KeySparseAttention.from_values({"keep": 5})
    for operator in registration.OPERATORS:
        assert set(operator.attributes()) == set(FIELDS[operator.name])
        assert operator.input_count >= 1
    assert operators.kernels("top_k_mask") is operators.kernels("top_k_mask")


def test_old_or_unwilling_tensorrt() -> None:
    with pytest.raises(EngineError, match=r"TensorRT: got 8\.6\.1, expected 10\.0 or newer"):
        register(types.SimpleNamespace(__version__="8.6.1"))  # type: ignore[arg-type]
    module = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: edgeser[rtx]")
    stubborn = types.SimpleNamespace(**vars(module))
    registry = types.SimpleNamespace(all_creators=[], register_creator=lambda creator, namespace: False)
    stubborn.get_plugin_registry = lambda: registry
    with pytest.raises(EngineError, match="refuses the plugin KeySparseAttention in namespace ''"):
        register(stubborn)  # type: ignore[arg-type]


PARSE = """
import sys
import tensorrt_rtx as trt
from edgeser.export_tools.plugins import plugin, register

made = plugin._plugin_class
def spy(*arguments):
    kind = made(*arguments)
    def make(operator):
        print("made", repr(operator), flush=True)
        return kind(operator)
    return make
plugin._plugin_class = spy
register(trt)
logger = trt.Logger(trt.Logger.INFO)
network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
print("parsed", parser.parse(sys.stdin.buffer.read()), [parser.get_error(i).desc() for i in range(parser.num_errors)])
"""


def parse(name: str, attributes: dict[str, Any]) -> str:
    """Parse a graph with an operator in another process; return what was printed."""
    node = helper.make_node(name, ["q", "k", "v", "l"], ["c", "i"], domain="edgeser", **attributes)
    shapes = {"q": ["N", 2, 9, 16], "k": ["N", 2, 9, 16], "v": ["N", 2, 9, 16], "l": ["N"]}
    kinds = {"l": onnx.TensorProto.INT32}
    given = [helper.make_tensor_value_info(x, kinds.get(x, onnx.TensorProto.FLOAT), shapes[x]) for x in shapes]
    results = [helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, None) for x in "ci"]
    graph = helper.make_graph([node], "graph", given, results)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("edgeser", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    done = subprocess.run(
        [sys.executable, "-c", PARSE], input=proto.SerializeToString(), capture_output=True, timeout=120, check=False
    )
    return done.stdout.decode() + done.stderr.decode()


@pytest.mark.usefixtures("trt")
@pytest.mark.parametrize(
    ("name", "values", "namespace", "expected"),
    [
        ("KeySparseAttention", {"keep": 3}, None, "keep=3, scale=0.25"),
        ("DropAttention", {"keep": 3, "offsets": (0, 2)}, "edgeser", "keep=3, offsets=(0, 2), scale=0.25"),
    ],
)
def test_the_parser_finds_the_plugin(
    name: str, values: dict[str, Attribute], namespace: str | None, expected: str
) -> None:
    """A node finds its creator, and its attributes come with their values.

    No further: TensorRT-RTX's parser ends the process where TensorRT's adds the layer.
    """
    wanted = {} if namespace is None else {"plugin_namespace": namespace}
    output = parse(name, {**values, "scale": 0.25, **wanted})
    assert f"plugin_version: 1, plugin_namespace: {namespace or ''}" in output
    assert f"made {name}({expected})" in output
    assert f"Successfully created plugin: {name}" in output


@pytest.mark.usefixtures("trt")
def test_the_parser_reports_a_missing_attribute() -> None:
    output = parse("KeySparseAttention", {"keep": 3})
    assert "parsed False" in output
    assert "Could not create the plugin" in output
