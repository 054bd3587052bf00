from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeser.runtime.bundle import Bundle, write_bundle
from edgeser.runtime.engines import OnnxRuntimeEngine, OpenVinoEngine
from edgeser.runtime.errors import BundleError, EngineError
from edgeser.runtime.frontends import Statistics, read_frontend
from edgeser.runtime.manifest import InputEntry, Manifest, ModelEntry
from edgeser.runtime.onnx_wire import MESSAGES, check_graph, embedding_rows
from edgeser.runtime.recognizer import default_bundle

TOKENIZER = "frontends/text/tokenizer.json"
OUTSIDE = "keeps tensors in other files"
WEIGHTS = np.arange(6, dtype=np.float32)


def inside() -> TensorProto:
    return numpy_helper.from_array(WEIGHTS, "w")


def outside(location: str = "weights.bin") -> TensorProto:
    """Return a tensor whose numbers are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[6], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(nodes: list[Any], tensors: list[Any], **fields: Any) -> onnx.ModelProto:
    rows = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 6]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "graph", rows[:1], rows[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, **fields)


def add(*outputs: Any) -> onnx.NodeProto:
    return helper.make_node("Add", ["x", "w"], ["y"])


def initializer(tensor: TensorProto) -> onnx.ModelProto:
    return model([add()], [tensor])


def constant(tensor: TensorProto) -> onnx.ModelProto:
    return model([helper.make_node("Constant", [], ["w"], value=tensor), add()], [])


def subgraph(tensor: TensorProto) -> onnx.ModelProto:
    result = [helper.make_tensor_value_info("r", TensorProto.FLOAT, [6])]
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["r"])], "branch", [], result, [tensor])
    node = helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch)
    return model([node, add()], [numpy_helper.from_array(np.array(True), "yes")])


def function(tensor: TensorProto) -> onnx.ModelProto:
    body = [helper.make_node("Constant", [], ["w"], value=tensor), add()]
    made = helper.make_function("own", "F", ["x"], ["y"], body, [helper.make_opsetid("", 18)])
    return model([helper.make_node("F", ["x"], ["y"], domain="own")], [], functions=[made])


def sparse(tensor: TensorProto) -> onnx.ModelProto:
    made = model([add()], [])
    made.graph.sparse_initializer.add(values=tensor, indices=numpy_helper.from_array(np.arange(6), "i"), dims=[6])
    return made


def list_of_tensors(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Other", ["x"], ["y"], domain="own")
    node.attribute.add(name="parts", type=onnx.AttributeProto.TENSORS, tensors=[inside(), tensor])
    return model([node], [])


def training(tensor: TensorProto) -> onnx.ModelProto:
    made = model([add()], [inside()])
    made.training_info.add().algorithm.initializer.append(tensor)
    return made


PLACES = [initializer, constant, subgraph, function, sparse, list_of_tensors, training]


@pytest.mark.parametrize("place", PLACES)
def test_data_in_other_files_is_refused_wherever_it_hangs(place: Callable[..., onnx.ModelProto]) -> None:
    check_graph(place(inside()).SerializeToString())
    with pytest.raises(BundleError, match=OUTSIDE):
        check_graph(place(outside()).SerializeToString())


def test_either_sign_of_it_is_enough() -> None:
    said, named = outside(), outside()
    del said.external_data[:]
    named.ClearField("data_location")
    for tensor in (said, named):
        with pytest.raises(BundleError, match=OUTSIDE):
            check_graph(initializer(tensor).SerializeToString())
    stated = inside()
    stated.data_location = TensorProto.DEFAULT
    check_graph(initializer(stated).SerializeToString())


def test_the_table_is_onnx_s_own() -> None:
    """Every way from a model to a tensor, as the installed `onnx` describes its messages."""
    known, todo = {}, [onnx.ModelProto.DESCRIPTOR]
    while todo:
        message = todo.pop()
        inner = {field.number: field.message_type for field in message.fields if field.message_type}
        known[message.name] = {number: kind.name for number, kind in inner.items()}
        todo += [kind for kind in inner.values() if kind.name not in known]

    def leads(name: str, seen: frozenset[str] = frozenset()) -> bool:
        ways = set(known[name].values()) - seen
        return name == "TensorProto" or any(leads(way, seen | {name}) for way in ways)

    table = {name: {n: kind for n, kind in ways.items() if leads(kind)} for name, ways in known.items() if leads(name)}
    # A tensor's own fields lead to no other tensor.
    assert {name: dict(ways) for name, ways in MESSAGES.items()} == table
    fields = TensorProto.DESCRIPTOR.fields_by_name
    assert (fields["external_data"].number, fields["data_location"].number) == (13, 14)


def test_real_graphs_pass() -> None:
    bundle = Bundle.open(default_bundle())
    for name in bundle.manifest.files:
        if name.endswith(".onnx"):
            check_graph(bundle.read(name))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_anything_that_onnx_refuses_is_refused_or_harmless(raw: bytes) -> None:
    """And nothing raises anything else."""
    try:
        check_graph(raw)
        embedding_rows(raw, "ids")
    except BundleError as error:
        assert "damaged" in str(error) or OUTSIDE in str(error)  # noqa: PT017


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_cut_or_changed_graphs(data: st.DataObject) -> None:
    """What still reads as a graph that names other files is refused, whatever else was changed."""
    raw = bytearray(subgraph(outside()).SerializeToString())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    content = bytes(raw[: data.draw(st.integers(0, len(raw)))]) if data.draw(st.booleans()) else bytes(raw)
    try:
        reads_outside = any(map(is_outside, tensors_of(onnx.load_from_string(content))))
    except Exception:  # protobuf's own, or onnx's
        reads_outside = False
    try:
        check_graph(content)
        assert not reads_outside
    except BundleError:
        pass


def tensors_of(message: Any) -> Iterator[TensorProto]:
    if isinstance(message, TensorProto):
        yield message
    for field, value in message.ListFields():
        if field.message_type:
            for inner in value if not hasattr(value, "ListFields") else [value]:
                yield from tensors_of(inner)


def is_outside(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


@pytest.mark.parametrize("engine", [OnnxRuntimeEngine, OpenVinoEngine])
def test_no_engine_takes_them_from_the_working_directory(
    engine: type[OnnxRuntimeEngine] | type[OpenVinoEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine is OpenVinoEngine:
        pytest.importorskip("openvino")
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises((EngineError, BundleError)) as caught:
        engine(initializer(outside()).SerializeToString())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["tiny", "tiny.edgeser"])
def test_a_bundle_refuses_them_by_name(form: str, tmp_path: Path) -> None:
    manifest = Manifest(
        name="tiny",
        version="1",
        model=ModelEntry("ks-transformer", "compact", {}),
        labels=("angry", "sad"),
        inputs={
            "text": InputEntry(3, 2, {"kind": "onnx-encoder", "input": "text", "start": 0, "end": 1, "padding": 0})
        },
        graphs={"portable": "model.onnx", "plugin": "model.plugin.onnx"},
    )
    graph = initializer(outside()).SerializeToString()
    names = ("model.onnx", "model.plugin.onnx", "frontends/text/encoder.onnx")
    files = {**dict.fromkeys(names, graph), TOKENIZER: Bundle.open(default_bundle()).read(TOKENIZER)}
    bundle = write_bundle(tmp_path / form, manifest, files)
    for read in (bundle.graph, lambda: bundle.graph("plugin"), lambda: bundle.frontend("text")):
        with pytest.raises(BundleError, match=rf"{form}: .*\.onnx: the graph {OUTSIDE}"):
            read()


def test_a_frontend_s_folder_refuses_them_too(tmp_path: Path) -> None:
    (tmp_path / "frontend.json").write_text(
        '{"kind": "onnx-encoder", "length": 3, "input": "speech", "hop_s": 0.02, "window_s": 0.02, '
        '"normalisation": "none"}'
    )
    (tmp_path / "encoder.onnx").write_bytes(initializer(outside()).SerializeToString())
    (tmp_path / "statistics.safetensors").write_bytes(Statistics.none(6).to_bytes())
    with pytest.raises(BundleError, match=OUTSIDE):
        read_frontend(tmp_path)


def lookup(*nodes: onnx.NodeProto, rows: int = 7, axis: int | None = None, **more: np.ndarray) -> bytes:
    tensors = {"table": np.zeros((rows, 4), np.float32), **more}
    options = {} if axis is None else {"axis": axis}
    last = [helper.make_node("Gather", ["words", "indices"], ["y"], **options)]
    return model([*nodes, *last], [numpy_helper.from_array(v, k) for k, v in tensors.items()]).SerializeToString()


def test_rows_of_the_table_that_ids_look_up() -> None:
    cast = helper.make_node("Cast", ["ids"], ["indices"], to=TensorProto.INT64)
    same = helper.make_node("Identity", ["table"], ["words"])
    assert embedding_rows(lookup(cast, same), "ids") == 7
    assert embedding_rows(lookup(cast, same, axis=0), "ids") == 7
    assert embedding_rows(lookup(cast, same, axis=1), "ids") is None
    assert embedding_rows(lookup(cast, same), "others") is None
    assert embedding_rows(lookup(cast), "ids") is None
    two = helper.make_node("Gather", ["small", "ids"], ["z"])
    assert embedding_rows(lookup(cast, same, two, small=np.zeros((3, 1), np.float32)), "ids") == 3
    codes = helper.make_node("DequantizeLinear", ["codes", "scale"], ["words"])
    quantized = {"codes": np.zeros((5, 4), np.int8), "scale": np.float32(1)}
    assert embedding_rows(lookup(cast, codes, **quantized), "ids") == 5


def test_rows_of_the_default_bundle_s_text_encoder() -> None:
    assert embedding_rows(Bundle.open(default_bundle()).read("frontends/text/encoder.onnx"), "ids") == 30_522
