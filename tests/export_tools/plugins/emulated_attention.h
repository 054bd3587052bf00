// The kernels that every attention has, by the names that launches give them.
#pragma once

EMULATE(row_log_sums_f32)
EMULATE(column_sums_f32)
EMULATE(select_keys_f32)
EMULATE(context_f32)
EMULATE(row_log_sums_f16)
EMULATE(column_sums_f16)
EMULATE(select_keys_f16)
EMULATE(context_f16)
