"""Encoder graphs small enough to know their answers by heart, built node by node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

Inputs = tuple[tuple[str, int, tuple[Any, ...]], ...]
SPEECH: Inputs = (("samples", TensorProto.FLOAT, ("N", 24)),)


def _graph(nodes: list[Any], inputs: Inputs, rows: tuple[Any, ...], name: str = "rows", **weights: Any) -> bytes:
    return helper.make_model(
        helper.make_graph(
            nodes,
            "encoder",
            [helper.make_tensor_value_info(*given) for given in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, rows)],
            [numpy_helper.from_array(np.asarray(value), weight) for weight, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    ).SerializeToString()


@pytest.fixture(scope="session")
def speech_graph() -> Callable[..., bytes]:
    """Give 6 rows of 4 samples each, 4 wide: a row is its own samples. With a length, that is added to all."""

    def build(with_length: bool = False, name: str = "rows", inputs: Inputs = SPEECH) -> bytes:
        given = inputs[0][0]
        nodes = [helper.make_node("Reshape", [given, "shape"], ["cut" if with_length else name])]
        if with_length:
            inputs = (*inputs, (f"{given}_length", TensorProto.INT32, ("N",)))
            nodes += [
                helper.make_node("Cast", [f"{given}_length"], ["float"], to=TensorProto.FLOAT),
                helper.make_node("Unsqueeze", ["float", "axes"], ["wide"]),
                helper.make_node("Add", ["cut", "wide"], [name]),
            ]
        return _graph(nodes, inputs, ("N", 6, 4), name, shape=np.array([-1, 6, 4]), axes=np.array([1, 2]))

    return build


@pytest.fixture(scope="session")
def text_graph() -> Callable[..., bytes]:
    """Give 3 rows for 5 ids: the token's id and the number of ids that are valid."""

    def build(size: int = 5, dtype: int = TensorProto.INT32) -> bytes:
        nodes = [
            helper.make_node("Cast", ["ids"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Slice", ["float", "one", "end", "one"], ["inner"]),
            helper.make_node("Unsqueeze", ["inner", "last"], ["column"]),
            helper.make_node("Cast", ["ids_length"], ["count"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["count", "axes"], ["counts"]),
            helper.make_node("Mul", ["column", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "counts"], ["counted"]),
            helper.make_node("Concat", ["column", "counted"], ["rows"], axis=2),
        ]
        inputs = (("ids", dtype, ("N", size)), ("ids_length", TensorProto.INT32, ("N",)))
        return _graph(
            nodes,
            inputs,
            ("N", size - 2, 2),
            one=np.array([1]),
            end=np.array([size - 1]),
            last=np.array([2]),
            axes=np.array([1, 2]),
            zero=np.zeros(1, np.float32),
        )

    return build


@pytest.fixture(scope="session")
def line_graph() -> Callable[..., bytes]:
    """Give one row for 5 ids: the first id and the sum of those that are valid."""

    def build(size: int = 5, rows: int = 1) -> bytes:
        nodes = [
            helper.make_node("Unsqueeze", ["ids_length", "one"], ["count"]),
            helper.make_node("Less", ["places", "count"], ["inside"]),
            helper.make_node("Where", ["inside", "ids", "none"], ["valid"]),
            helper.make_node("ReduceSum", ["valid", "one"], ["sum"], keepdims=1),
            helper.make_node("Slice", ["ids", "zero", "one", "one"], ["first"]),
            helper.make_node("Concat", ["first", "sum"], ["row"], axis=1),
            helper.make_node("Cast", ["row"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["float", "one"], ["line"]),
            helper.make_node("Concat", ["line"] * rows, ["rows"], axis=1),
        ]
        inputs = (("ids", TensorProto.INT32, ("N", size)), ("ids_length", TensorProto.INT32, ("N",)))
        places = np.arange(size, dtype=np.int32)[None]
        constants = {"one": np.array([1]), "zero": np.array([0]), "none": np.int32(0), "places": places}
        return _graph(nodes, inputs, ("N", rows, 2), **constants)

    return build


@pytest.fixture(scope="session")
def failing_graph() -> bytes:
    """Take a logarithm of every sample, which is not finite for silence."""
    nodes = [helper.make_node("Log", ["samples"], ["log"]), helper.make_node("Reshape", ["log", "shape"], ["rows"])]
    return _graph(nodes, SPEECH, ("N", 6, 4), shape=np.array([-1, 6, 4]))


@pytest.fixture(scope="session")
def tokenizer() -> bytes:
    """Words of a vocabulary, lower-cased, in WordPiece's manner."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "door", "##s", "!", "talk", "##ing")
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.enable_truncation(2)
    made.enable_padding(length=4)
    return str(made.to_str()).encode()
