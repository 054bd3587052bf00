#!/usr/bin/env bash
# OpenVINO 2026.4.1 and ONNX Runtime 1.27.0: TopK of equal values.
#
# Guess:  of equal values the lower index comes first in both, as ONNX's definition of TopK says.
# Seen:   ONNX Runtime does so. OpenVINO does for short rows; of 460 values it keeps others of the equal ones at the
#         threshold, so that a graph which uses TopK's indices answers otherwise.
. "$(dirname "$0")/venv.sh"
venv env openvino==2026.4.1 onnxruntime==1.27.0 onnx==1.20.0 numpy==2.2.6

"$work/env/bin/python" - <<'PYTHON'
import io
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

SIZE, KEPT = 460, 414
graph = helper.make_graph(
    [helper.make_node("TopK", ["x", "k"], ["values", "places"], axis=1)], "graph",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])],
    [helper.make_tensor_value_info("values", TensorProto.FLOAT, [1, KEPT]),
     helper.make_tensor_value_info("places", TensorProto.INT64, [1, KEPT])],
    [numpy_helper.from_array(np.array([KEPT]), "k")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
x = np.tile([1.0, 2.0], SIZE // 2)[None].astype(np.float32)
rule = set(np.argsort(-x[0], kind="stable")[:KEPT].tolist())
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
ort = set(session.run(["places"], {"x": x})[0][0].tolist())
core = openvino.Core()
compiled = core.compile_model(core.read_model(io.BytesIO(model)), "CPU")
ov = set(compiled(x)[1][0].tolist())
print("kept otherwise than ONNX says: ONNX Runtime", len(ort - rule), "OpenVINO", len(ov - rule), "of", KEPT)
assert ort == rule
assert ov != rule and len(ov) == KEPT
PYTHON
