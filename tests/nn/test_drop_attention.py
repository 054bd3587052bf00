"""Drop attention, in PyTorch and as an ONNX function, against a plain, slow reference from the paper's equations."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.export_tools.building.half import to_half
from edgeser.export_tools.drop_attention import NAME, drop_attention_function
from edgeser.export_tools.key_sparse import DOMAIN, VERSION
from edgeser.export_tools.lowering import OPSET, both_lowerings, quiet
from edgeser.nn.attention import dense_attention, drop_attention
from edgeser.runtime.engines import open_engine

FIGURE_3 = {
    (0, 2): ["101000", "010100", "101010", "010101", "001010", "000101"],
    (0, 1, 3): ["110100", "111010", "011101", "101110", "010111", "001011"],
}


def slow_weights(q, k, length, scale):
    """Equation 1 for one head of one sample, in float64, for the valid rows alone."""
    weights = np.zeros((len(q), len(q)))
    for a in range(length):
        scores = [float(q[a].astype(np.float64) @ k[b].astype(np.float64)) * scale for b in range(length)]
        powers = [np.exp(score - max(scores)) for score in scores]
        for b in range(length):
            weights[a, b] = powers[b] / sum(powers)
    return weights


def slow_mask(sums, keep, offsets):
    """Equations 2 and 3: N is what is not below the keep-th largest sum."""
    rows = len(sums)
    threshold = sorted(sums, reverse=True)[min(keep, rows) - 1]
    mask = np.zeros((rows, rows))
    for a in range(rows):
        for b in range(rows):
            dynamic = keep > 0 and sums[a] >= threshold and sums[b] >= threshold
            mask[a, b] = dynamic or abs(a - b) in offsets
    return mask


def slow_drop_attention(q, k, v, lengths, keep, offsets, scale):
    """Equations 1 to 4; beside them how clear the threshold is, of the head where it is least so."""
    context, importance, gap = np.zeros(v.shape), np.zeros(v.shape[:3]), np.inf
    for n in range(q.shape[0]):
        for h in range(q.shape[1]):
            weights = slow_weights(q[n, h], k[n, h], lengths[n], scale)
            importance[n, h] = [sum(weights[:, b]) for b in range(len(weights))]
            context[n, h] = (weights * slow_mask(importance[n, h], keep, offsets)) @ v[n, h].astype(np.float64)
            ordered = np.sort(importance[n, h, : lengths[n]])
            if 0 < keep < len(ordered):
                gap = min(gap, ordered[-keep] - ordered[-keep - 1])
    return context, importance, gap


def in_pytorch(q, k, v, lengths, keep, offsets, scale):
    tensors = [torch.from_numpy(x) for x in (q, k, v, np.asarray(lengths, np.int32))]
    return tuple(x.numpy() for x in drop_attention(*tensors, keep, offsets, scale))


def function_model(keep, offsets, scale):
    """A graph of the operator alone, of any size."""
    attributes = {"keep": keep, "offsets": offsets or (-1,), "scale": scale}
    node = onnx.helper.make_node(NAME, list("qkvn"), ["context", "importance"], domain=DOMAIN, **attributes)
    sizes, kind = ["N", "H", "T", "D"], onnx.TensorProto.FLOAT
    values = [onnx.helper.make_tensor_value_info(name, kind, sizes) for name in "qkv"]
    values.append(onnx.helper.make_tensor_value_info("n", onnx.TensorProto.INT32, ["N"]))
    outputs = [onnx.helper.make_tensor_value_info("context", kind, sizes)]
    outputs.append(onnx.helper.make_tensor_value_info("importance", kind, sizes[:3]))
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, VERSION)]
    graph = onnx.helper.make_graph([node], "g", values, outputs)
    return onnx.helper.make_model(graph, functions=[drop_attention_function()], opset_imports=opsets, ir_version=10)


def in_onnx(q, k, v, lengths, keep, offsets, scale):
    with open_engine(function_model(keep, offsets, scale).SerializeToString()) as engine:
        found = engine.run({"q": q, "k": k, "v": v, "n": np.asarray(lengths, np.int32)})
    return found["context"], found["importance"]


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(3, *shape)).astype(np.float32)


BOTH = pytest.mark.parametrize("attend", [in_pytorch, in_onnx])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 16),
    keep=st.integers(0, 18),
    offsets=st.lists(st.integers(0, 17), max_size=4).map(tuple),
    data=st.data(),
)
@BOTH
def test_equals_the_slow_reference(attend, seed, rows, keep, offsets, data):
    lengths = data.draw(st.lists(st.integers(0, rows), min_size=2, max_size=2))
    arguments = (*draw((2, 2, rows, 4), seed), lengths, keep, offsets, 0.5)
    expected, sums, gap = slow_drop_attention(*arguments)
    context, importance = attend(*arguments)
    np.testing.assert_allclose(importance, sums, atol=1e-5)
    # Where two sums are closer than rounding, either row may fall: compare only clear thresholds.
    if gap > 1e-4:
        np.testing.assert_allclose(context, expected, atol=1e-5)


@BOTH
@pytest.mark.parametrize("offsets", [(0, 2), (0, 1, 3), ()])
@pytest.mark.parametrize("keep", [0, 1, 4, 9, 50])
def test_lengths_from_none_to_full(attend, keep, offsets):
    """With fewer valid rows than `keep` all of them stay, and so do all where `keep` is above T."""
    arguments = (*draw((4, 2, 9, 8)), [0, 1, 5, 9], keep, offsets, 0.35)
    expected, sums, gap = slow_drop_attention(*arguments)
    assert gap > 1e-4
    context, importance = attend(*arguments)
    np.testing.assert_allclose(context, expected, atol=2e-6)
    np.testing.assert_allclose(importance, sums, atol=2e-6)
    assert not context[0].any()
    assert not importance[0].any()
    for n, length in enumerate((0, 1, 5, 9)):
        assert not context[n, :, length:].any()
        assert not importance[n, :, length:].any()


@BOTH
@pytest.mark.parametrize("offsets", list(FIGURE_3))
def test_the_static_mask_is_figure_3(attend, offsets):
    """Equal scores and values one-hot: the context is the mask."""
    q = np.zeros((1, 1, 6, 6), np.float32)
    context, _ = attend(q, q, np.eye(6, dtype=np.float32)[None, None], [6], 0, offsets, 1.0)
    drawn = np.array([[int(digit) for digit in row] for row in FIGURE_3[offsets]])
    np.testing.assert_allclose(context[0, 0], drawn / 6, atol=1e-7)


@BOTH
def test_ties_at_the_threshold_stay(attend):
    """Three rows share the second place: four stay, as queries and as keys."""
    k = np.zeros((1, 1, 6, 1), np.float32)
    k[0, 0, :, 0] = [0.0, 1.0, 2.0, 1.0, 1.0, 0.5]
    q = np.ones_like(k)
    context, importance = attend(q, k, np.eye(6, dtype=np.float32)[None, None], [6], 2, (), 1.0)
    kept = np.array([False, True, True, True, True, False])
    np.testing.assert_array_equal(context[0, 0] > 0, np.outer(kept, kept))
    np.testing.assert_allclose(importance.sum(), 6.0, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_numbers_stay_finite(dtype):
    """Also where scores overflow half precision in padded rows."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 12, 4).to(dtype) for _ in range(3))
    q[1, :, 5:], k[1, :, 5:] = 300.0, -300.0
    lengths = torch.tensor([0, 5, 12], dtype=torch.int32)
    context, importance = drop_attention(q, k, v, lengths, 3, (0, 2), 0.5)
    assert context.dtype == importance.dtype == dtype
    assert torch.isfinite(context).all()
    assert not context[0].any()
    assert not context[1, :, 5:].any()
    torch.testing.assert_close(
        importance.sum(-1), torch.tensor([0.0, 5.0, 12.0], dtype=dtype)[:, None].expand(3, 2), atol=1e-2, rtol=0
    )


def test_padded_content_changes_nothing():
    q, k, v = (torch.from_numpy(x) for x in draw((1, 2, 8, 4)))
    lengths = torch.tensor([5], dtype=torch.int32)
    before = drop_attention(q, k, v, lengths, 2, (0, 1), 0.5)
    q[:, :, 5:], k[:, :, 5:], v[:, :, 5:] = 40.0, 50.0, -50.0
    after = drop_attention(q, k, v, lengths, 2, (0, 1), 0.5)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("keep", "offsets"), [(7, ()), (1, tuple(range(7)))])
def test_keeping_everything_is_dense_attention(keep, offsets):
    q, k, v = (torch.from_numpy(x) for x in draw((2, 2, 7, 4)))
    lengths = torch.tensor([7, 3], dtype=torch.int32)
    context, importance = drop_attention(q, k, v, lengths, keep, offsets, 0.5)
    dense, _ = dense_attention(q, k, v, lengths, 0.5)
    torch.testing.assert_close(context[0], dense[0])
    torch.testing.assert_close(context[1, :, :3], dense[1, :, :3])
    torch.testing.assert_close(importance.sum(-1), torch.tensor([[7.0, 7.0], [3.0, 3.0]]))


def test_it_learns_through_what_stays():
    """No gradient of a dropped value, and dropout on the weights that are left."""
    q, k, v = (torch.from_numpy(x).requires_grad_() for x in draw((1, 1, 6, 4)))
    context, importance = drop_attention(q, k, v, torch.tensor([6], dtype=torch.int32), 2, (), 0.5)
    context.sum().backward()
    kept = importance[0, 0] >= importance[0, 0].topk(2).values[-1]
    assert ((v.grad[0, 0] != 0).all(-1) == kept).all()
    assert (q.grad[0, 0][kept] != 0).any()
    torch.manual_seed(0)
    dropped, same = drop_attention(q, k, v, torch.tensor([6], dtype=torch.int32), 6, (), 0.5, dropout=0.9)
    assert torch.equal(same, importance)
    assert not torch.allclose(dropped, context)


class Layers(torch.nn.Module):
    """Three masks, one of each kind, one after the other."""

    def forward(self, q, k, v, length):
        first, _ = drop_attention(q, k, v, length, 3, (0, 2), 0.35)
        second, _ = drop_attention(first, k, v, length, 0, (0, 1, 3), 0.35)
        return drop_attention(second, k, v, length, 50, (), 0.35)


@pytest.fixture(scope="module")
def lowered():
    batch, tensors = torch.export.Dim("N", min=1), [torch.zeros(2, 2, 11, 8) for _ in range(3)]
    tensors.append(torch.full((2,), 11, dtype=torch.int32))
    with quiet():
        program = torch.onnx.export(
            Layers(),
            tuple(tensors),
            input_names=["q", "k", "v", "length"],
            output_names=["context", "importance"],
            dynamic_shapes=({0: batch},) * 4,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    return both_lowerings(program.model_proto)


@pytest.mark.parametrize("name", ["portable", "plugin"])
@pytest.mark.parametrize("batch", [1, 4])
def test_both_lowerings_equal_pytorch(lowered, name, batch):
    rows = dict(zip("qkv", draw((batch, 2, 11, 8)), strict=True))
    rows["length"] = np.array([7, 0, 11, 1], np.int32)[:batch]
    with open_engine(lowered.named()[name].SerializeToString()) as engine:
        found = engine.run(rows)
    expected = Layers()(*(torch.from_numpy(x) for x in rows.values()))
    for actual, wanted in zip((found["context"], found["importance"]), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-5)


def test_each_lowering_holds_what_it_should(lowered):
    opaque = [node for node in lowered.plugin.graph.node if node.domain == DOMAIN]
    found = [{a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in opaque]
    assert [(values["keep"], values["offsets"]) for values in found] == [(3, [0, 2]), (0, [0, 1, 3]), (50, [-1])]
    assert [function.name for function in lowered.plugin.functions] == [NAME]
    assert {node.domain for node in lowered.portable.graph.node} == {""}
    assert {opset.domain for opset in lowered.portable.opset_import} == {""}
    # T is known, so the static masks are constants.
    assert not {"Range", "Abs", "ReduceMax"} & {node.op_type for node in lowered.portable.graph.node}


@pytest.mark.parametrize("name", ["portable", "plugin"])
def test_half_precision(lowered, name):
    """The operator runs in it as one node, and as its products; masks of -1e4 and empty samples give no NaN."""
    half = to_half(lowered.named()[name])
    inferred = onnx.shape_inference.infer_shapes(half).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    products = [node for node in half.graph.node if node.op_type in ("MatMul", NAME)]
    assert {types[node.output[0]] for node in products} == {onnx.TensorProto.FLOAT16}
    rows = dict(zip("qkv", draw((3, 2, 11, 8)), strict=True))
    rows["length"] = np.array([7, 0, 11], np.int32)
    with open_engine(half.SerializeToString()) as engine:
        found = engine.run(rows)
    expected = Layers()(*(torch.from_numpy(x) for x in rows.values()))
    for actual, wanted in zip((found["context"], found["importance"]), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=2e-3)


def test_tensorrt_for_rtx_builds_the_portable_graph(lowered, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed: edgeser[rtx]")
    from edgeser.export_tools.building.compiling import CompileRequest, compile_graph

    graph = lowered.portable.SerializeToString()
    options = {"precision": "fp16", "max_batch": 4, "best_batch": 1, "workspace_mb": None, "capabilities": ("8.6",)}
    compiled = compile_graph(CompileRequest("tensorrt-rtx", graph, "portable", **options, timing_cache=tmp_path / "t"))
    assert len(compiled.engine) > 10_000
    assert [spec.shape for spec in compiled.outputs] == [(None, 2, 11, 8), (None, 2, 11)]
