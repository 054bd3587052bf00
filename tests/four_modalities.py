"""A bundle with every modality there is, its graph and sentence encoder built node by node: small, and known by heart.

Test folders are no packages: `runpy.run_path` gives what stands here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeser.runtime.bundle import Bundle, frontend_files, write_bundle
from edgeser.runtime.frontends import PHONEMES, Frontend, LogMel, Phonemes, TextEncoder, WordVectors
from edgeser.runtime.manifest import InputEntry, Manifest, ModelEntry

WIDTH, CLASSES, IDS = 8, 4, 8
SHARES = {"audio": 0.01, "text": 2.0, "phonemes": 10.0, "sentence": 0.1}  # so that each of them can be told in the sum
VOCABULARY = ("the", "dogs", "are", "sitting", "by", "door", "do", "n't", "!", "?")
SAID = {"the": "DH AH", "dogs": "D AO G Z", "are": "AA R", "sitting": "S IH T IH NG", "by": "B AY", "door": "D AO R"}


def frontends() -> dict[str, Frontend]:
    """Return a frontend of each modality."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vectors = np.random.default_rng(1).standard_normal((len(VOCABULARY), 6)).astype(np.float32)
    cut = Tokenizer(models.WordLevel({w: i for i, w in enumerate(("[UNK]", *VOCABULARY))}, unk_token="[UNK]"))
    cut.pre_tokenizer = pre_tokenizers.Whitespace()
    files = {"encoder.onnx": _line_encoder(), "tokenizer.json": str(cut.to_str()).encode()}
    description = {"name": "line", "architecture": "none", "start": 40, "end": 41, "padding": 0, "pool": "start"}
    return {
        "audio": LogMel(40, 100, hop_ms=12),
        "text": WordVectors.quantized(VOCABULARY, vectors),
        "phonemes": Phonemes({word: said.split() for word, said in SAID.items()}),
        "sentence": TextEncoder(1, description, files.__getitem__),
    }


def four_modalities(path: Path, modalities: Sequence[str] = ("audio", "text", "phonemes", "sentence")) -> Bundle:
    """Write a bundle whose graph adds up what the modalities give; importance it gives of words alone."""
    chosen = {name: one for name, one in frontends().items() if name in modalities}
    inputs = {n: InputEntry(f.length, f.dim, {"kind": f.kind, **f.options()}) for n, f in chosen.items()}
    labels = ("neutral", "happy", "sad", "angry")
    manifest = Manifest("four", "1", ModelEntry("none", "none", {}), labels, inputs, {"portable": "model.onnx"})
    files = {"model.onnx": _model(chosen)}
    for name, one in chosen.items():
        files.update(frontend_files(name, one))
        one.close()
    return write_bundle(path, manifest, files)


def _model(chosen: dict[str, Frontend]) -> bytes:
    rng = np.random.default_rng(2)
    constants: dict[str, NDArray[Any]] = {"rows": np.array([1]), "last": np.array([2]), "both": np.array([1, 2])}
    nodes, parts, inputs, outputs = [], [], [], {"logits": ("N", CLASSES)}
    for name, one in chosen.items():
        inputs += [(name, TensorProto.FLOAT, ("N", one.length, one.dim)), (f"{name}_length", TensorProto.INT32, ("N",))]
        parts += [f"{name}.part", f"{name}.count"]
        nodes += [
            helper.make_node("Cast", [f"{name}_length"], [f"{name}.number"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{name}.number", "rows"], [f"{name}.column"]),
            helper.make_node("Mul", [f"{name}.column", "share"], [f"{name}.count"]),
        ]
        if name == "phonemes":
            table = SHARES[name] * rng.standard_normal((len(PHONEMES) + 1, WIDTH))
            table[0] = 0.0
            constants["table"] = table.astype(np.float32)
            nodes += [
                helper.make_node("Cast", [name], [f"{name}.ids"], to=TensorProto.INT64, name="phonemes.cast"),
                helper.make_node("Gather", ["table", f"{name}.ids"], [f"{name}.embedded"], name="phonemes.gather"),
                helper.make_node("ReduceMean", [f"{name}.embedded", "both"], [f"{name}.part"], keepdims=0),
            ]
        else:
            weights = SHARES[name] * rng.standard_normal((one.dim, WIDTH))
            constants[f"{name}.weight"] = weights.astype(np.float32)
            nodes += [
                helper.make_node("ReduceMean", [name, "rows"], [f"{name}.mean"], keepdims=0),
                helper.make_node("MatMul", [f"{name}.mean", f"{name}.weight"], [f"{name}.part"], name=f"{name}.matmul"),
            ]
        if name in ("text", "phonemes"):
            outputs[f"{name}_importance"] = ("N", one.length)
            nodes += [helper.make_node("ReduceL1", [name, "last"], [f"{name}_importance"], keepdims=0)]
    constants["share"] = np.float32(0.01)
    constants["readout"] = rng.standard_normal((WIDTH, CLASSES)).astype(np.float32)
    nodes += [
        helper.make_node("Sum", parts, ["sum"]),
        helper.make_node("Tanh", ["sum"], ["bounded"]),
        helper.make_node("MatMul", ["bounded", "readout"], ["logits"], name="readout.matmul"),
    ]
    return _graph(nodes, inputs, [(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()], constants)


def _line_encoder() -> bytes:
    """One row for a line of up to 6 tokens: the sum over the embeddings of all ids but the padding."""
    rng = np.random.default_rng(3)
    table = rng.standard_normal((42, 5)).astype(np.float32)
    table[0] = 0.0
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"]),
        helper.make_node("ReduceSum", ["embedded", "axis"], ["line"], keepdims=1),
        helper.make_node("MatMul", ["line", "weight"], ["rows"], name="line.matmul"),
    ]
    constants = {"table": table, "weight": rng.standard_normal((5, 5)).astype(np.float32), "axis": np.array([1])}
    outputs = [("rows", TensorProto.FLOAT, ("N", 1, 5))]
    return _graph(nodes, [("ids", TensorProto.INT32, ("N", IDS))], outputs, constants)


def _graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, NDArray[Any]]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*given) for given in inputs],
        [helper.make_tensor_value_info(*made) for made in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(proto.SerializeToString())
