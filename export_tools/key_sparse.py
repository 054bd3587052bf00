"""`edgeser::KeySparseAttention` as an ONNX function: the one definition of what every plugin must compute.

`edgeser.nn.attention.key_sparse_attention` states the semantics; a test holds the two together.
"""

from __future__ import annotations

import onnx
import onnx.parser

DOMAIN = "edgeser"
VERSION = 1
NAME = "KeySparseAttention"

# The mask goes onto the values instead of the weights: the same product, with one Tq-th of the work.
_BODY = """
<opset_import: ["" : 18], domain: "edgeser">
KeySparseAttention <keep, scale> (q, k, v, key_length) => (context, importance)
{
    axis_0 = Constant <value_ints = [0]> ()
    axis_1 = Constant <value_ints = [1]> ()
    axis_2 = Constant <value_ints = [2]> ()
    axis_3 = Constant <value_ints = [3]> ()
    axes_1_2 = Constant <value_ints = [1, 2]> ()
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()

    key_count = Shape <start = 2, end = 3> (k)
    key_count_scalar = Squeeze (key_count)
    position = Range (zero, key_count_scalar, one)
    length = Cast <to = 7> (key_length)
    length_column = Unsqueeze (length, axis_1)
    valid_keys = Less (position, length_column)
    valid = Unsqueeze (valid_keys, axes_1_2)
    valid_weight = CastLike (valid, q)

    k_transposed = Transpose <perm = [0, 1, 3, 2]> (k)
    products = MatMul (q, k_transposed)
    scale_constant = Constant <value_float: float = @scale> ()
    scale_like = CastLike (scale_constant, q)
    scores = Mul (products, scale_like)
    masked_score = Constant <value_float = -10000.0> ()
    masked_like = CastLike (masked_score, q)
    masked_scores = Where (valid, scores, masked_like)
    all_weights = Softmax <axis = -1> (masked_scores)
    weights = Mul (all_weights, valid_weight)

    importance = ReduceSum <keepdims = 0> (weights, axis_2)
    keep_scalar = Constant <value_int: int = @keep> ()
    keep_vector = Unsqueeze (keep_scalar, axis_0)
    largest, places = TopK <axis = -1> (importance, keep_vector)
    last = Sub (keep_vector, axis_1)
    threshold = Gather <axis = -1> (largest, last)
    is_kept = GreaterOrEqual (importance, threshold)
    kept = CastLike (is_kept, v)
    kept_column = Unsqueeze (kept, axis_3)
    kept_values = Mul (v, kept_column)
    context = MatMul (weights, kept_values)
}
"""


def key_sparse_function() -> onnx.FunctionProto:
    """Return the function, to be put into a model that uses the operator."""
    return onnx.parser.parse_function(_BODY)
