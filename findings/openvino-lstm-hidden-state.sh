#!/usr/bin/env bash
# OpenVINO 2026.4.1 against ONNX's definition (ONNX Runtime 1.27.0): an LSTM whose input comes out of a Q/DQ pair and whose
# weights are INT8 behind a DequantizeLinear. The graph rounds nothing else.
#
# Guess:  the weights become numbers and the LSTM runs in floating point, as in ONNX Runtime; if it runs in integers, it
#         differs by the rounding of the products alone, some 1e-3.
# Seen:   the hidden state is rounded to 8 bits between the steps as well, which no node of the graph asks for: the rows
#         differ by almost 0.1 (they lie between -1 and 1). With the same weights as numbers they differ by 1e-7.
. "$(dirname "$0")/venv.sh"
venv env openvino==2026.4.1 onnxruntime==1.27.0 onnx==1.20.0 numpy==2.2.6

"$work/env/bin/python" - <<'PYTHON'
import io
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
weights = {"w": rng.normal(0, 0.3, (1, 96, 32)).astype(np.float32), "r": rng.normal(0, 0.3, (1, 96, 24)).astype(np.float32)}
x = np.random.default_rng(1).normal(size=(40, 1, 32)).astype(np.float32)

def model(as_codes):
    stored = {"step": np.array(1 / 32, np.float32), "zero": np.array(0, np.int8)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
             helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["rounded"])]
    for name, value in weights.items():
        step = np.array(np.abs(value).max() / 127, np.float32)
        codes = np.rint(value / step).astype(np.int8)
        if as_codes:
            stored |= {f"{name}.codes": codes, f"{name}.step": step}
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}.codes", f"{name}.step"], [name]))
        else:
            stored[name] = codes * step
    nodes.append(helper.make_node("LSTM", ["rounded", "w", "r"], ["y"], hidden_size=24))
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [40, 1, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [40, 1, 1, 24])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return proto.SerializeToString()

def apart(content):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(io.BytesIO(content)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return float(np.abs(compiled(x)[0] - expected).max())

codes, numbers = apart(model(True)), apart(model(False))
print(f"weights as codes: {codes:.3f} apart; as numbers: {numbers:.1e}")
assert numbers < 1e-5
assert codes > 0.03
PYTHON
