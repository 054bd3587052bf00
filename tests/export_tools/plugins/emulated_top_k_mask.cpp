// The mask kernels' own source, as functions that ctypes can call.
#include "cuda_shim.h"

#include "top_k_mask.cu"

EMULATE(sum_columns_f32)
EMULATE(find_threshold_f32)
EMULATE(mask_columns_f32)
EMULATE(sum_columns_f16)
EMULATE(find_threshold_f16)
EMULATE(mask_columns_f16)
