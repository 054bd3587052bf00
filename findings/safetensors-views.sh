#!/usr/bin/env bash
# safetensors 0.8.0 with NumPy: an array that is a view of another.
#
# Guess:  `save` writes the values, whatever their memory order, or refuses what is not contiguous as it does for PyTorch.
# Seen:   it writes the memory as it lies, under the view's shape: a transposed matrix comes back scrambled, without a
#         word. (Of views with gaps it writes other bytes than the array's.)
. "$(dirname "$0")/venv.sh"
venv env safetensors==0.8.0 numpy==2.2.6

"$work/env/bin/python" - <<'PYTHON'
import numpy as np
from safetensors.numpy import load, save

matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
back = load(save({"x": matrix.T}))["x"]
print("saved ", matrix.T.tolist())
print("loaded", back.tolist())
assert back.shape == (3, 2) and back.tolist() == [[0, 1], [2, 3], [4, 5]]
assert np.array_equal(load(save({"x": np.ascontiguousarray(matrix.T)}))["x"], matrix.T)
PYTHON
