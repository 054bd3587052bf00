#!/usr/bin/env bash
# OpenVINO 2026.4.1: a matrix product of 8-bit codes on x86 without VNNI (AVX2 alone, as AMD's before Zen 4, or AVX-512
# without it). On a processor with VNNI or AMX, and on Arm, there is nothing to see and the script says so.
#
# Guess:  an INT8 graph gives the same integers on every processor, only slower; ONNX Runtime documents that its fastest
#         products overflow there, and has a setting against it, so OpenVINO will take care of it by itself.
# Seen:   64 products of 255 and 127 add up to 1,048,544 instead of 2,072,640: pairs of products are added in 16 bits, which
#         overflow, and nothing is said. What changes it, LP_TRANSFORMS_MODE, is not among the SUPPORTED_PROPERTIES. (Seen
#         on an AMD EPYC with AVX2.)
. "$(dirname "$0")/venv.sh"
if [ "$(uname -m)" != x86_64 ] || grep -qE 'avx512_vnni|avx_vnni|amx_int8' /proc/cpuinfo; then
    echo "this processor adds products of 8 bits in 32 bits: nothing to see"
    exit 0
fi
venv env openvino==2026.4.1 onnx==1.20.0 numpy==2.2.6

"$work/env/bin/python" - <<'PYTHON'
import io
import numpy as np
import openvino
from onnx import TensorProto, helper, numpy_helper

SIZE = 64
stored = {"one": np.array(1, np.float32), "zero": np.array(0, np.uint8), "codes": np.full((SIZE, 4), 127, np.int8),
          "scales": np.ones(4, np.float32), "zeros": np.zeros(4, np.int8)}
nodes = [helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
         helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["rounded"]),
         helper.make_node("DequantizeLinear", ["codes", "scales", "zeros"], ["weights"], axis=1),
         helper.make_node("MatMul", ["rounded", "weights"], ["y"])]
graph = helper.make_graph(
    nodes, "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, SIZE])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    [numpy_helper.from_array(value, name) for name, value in stored.items()])
content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
core = openvino.Core()
compiled = core.compile_model(core.read_model(io.BytesIO(content)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
found, right = float(compiled(np.full((1, SIZE), 255, np.float32))[0][0, 0]), SIZE * 255 * 127
print(f"OpenVINO {found:,.0f}, right {right:,}")
assert found < 0.6 * right
PYTHON
