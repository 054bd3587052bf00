"""`edgeser::DropAttention` as an ONNX function: the one definition of what every plugin must compute.

`edgeser.nn.attention.drop_attention` states the semantics; a test holds the two together. No static mask at all is
`offsets = [-1]`, a distance that no two rows have: ONNX cannot tell an empty list from a missing one.
"""

from __future__ import annotations

import onnx
import onnx.parser

NAME = "DropAttention"

# The static mask depends on T alone, which is fixed in a model: simplifying folds it into a constant.
_BODY = """
<opset_import: ["" : 18], domain: "edgeser">
DropAttention <keep, offsets, scale> (q, k, v, length) => (context, importance)
{
    axis_0 = Constant <value_ints = [0]> ()
    axis_1 = Constant <value_ints = [1]> ()
    axis_2 = Constant <value_ints = [2]> ()
    axis_3 = Constant <value_ints = [3]> ()
    axes_1_2 = Constant <value_ints = [1, 2]> ()
    axes_1_3 = Constant <value_ints = [1, 3]> ()
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()

    row_count = Shape <start = 2, end = 3> (k)
    row_count_scalar = Squeeze (row_count)
    position = Range (zero, row_count_scalar, one)
    length_long = Cast <to = 7> (length)
    length_column = Unsqueeze (length_long, axis_1)
    valid_rows = Less (position, length_column)
    valid_keys = Unsqueeze (valid_rows, axes_1_2)
    valid_queries = Unsqueeze (valid_rows, axes_1_3)
    valid = And (valid_keys, valid_queries)

    k_transposed = Transpose <perm = [0, 1, 3, 2]> (k)
    products = MatMul (q, k_transposed)
    scale_constant = Constant <value_float: float = @scale> ()
    scale_like = CastLike (scale_constant, q)
    scores = Mul (products, scale_like)
    masked_score = Constant <value_float = -10000.0> ()
    masked_like = CastLike (masked_score, q)
    masked_scores = Where (valid_keys, scores, masked_like)
    all_weights = Softmax <axis = -1> (masked_scores)
    no_weight = Constant <value_float = 0.0> ()
    no_weight_like = CastLike (no_weight, q)
    weights = Where (valid, all_weights, no_weight_like)

    importance = ReduceSum <keepdims = 0> (weights, axis_2)
    keep_scalar = Constant <value_int: int = @keep> ()
    keep_vector = Unsqueeze (keep_scalar, axis_0)
    keep_some = Max (keep_vector, axis_1)
    keep_count = Min (keep_some, row_count)
    largest, places = TopK <axis = -1> (importance, keep_count)
    last = Sub (keep_count, axis_1)
    threshold = Gather <axis = -1> (largest, last)
    is_reached = GreaterOrEqual (importance, threshold)
    is_dynamic = Greater (keep_scalar, zero)
    is_kept = And (is_reached, is_dynamic)
    kept_keys = Unsqueeze (is_kept, axis_2)
    kept_queries = Unsqueeze (is_kept, axis_3)
    dynamic_mask = And (kept_keys, kept_queries)

    position_column = Unsqueeze (position, axis_1)
    difference = Sub (position_column, position)
    distance = Abs (difference)
    distance_column = Unsqueeze (distance, axis_2)
    offset_vector = Constant <value_ints: ints = @offsets> ()
    is_offset = Equal (distance_column, offset_vector)
    offset_number = Cast <to = 1> (is_offset)
    any_offset = ReduceMax <keepdims = 0> (offset_number, axis_2)
    static_mask = Cast <to = 9> (any_offset)

    stays = Or (dynamic_mask, static_mask)
    kept_weights = Where (stays, weights, no_weight_like)
    context = MatMul (kept_weights, v)
}
"""


def drop_attention_function() -> onnx.FunctionProto:
    """Return the function, to be put into a model that uses the operator."""
    return onnx.parser.parse_function(_BODY)
