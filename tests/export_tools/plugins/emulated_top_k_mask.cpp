// The mask kernels' own source, as functions that ctypes can call.
#include "cuda_shim.h"

#include "top_k_mask.cu"

#define EMULATE(NAME)                                                                                                  \
    extern "C" void emulate_##NAME(const int *grid, int threads, int order, void **arguments)                          \
    {                                                                                                                  \
        emulation::launch(NAME, grid, threads, order, arguments);                                                      \
    }

EMULATE(sum_columns_f32)
EMULATE(find_threshold_f32)
EMULATE(mask_columns_f32)
EMULATE(sum_columns_f16)
EMULATE(find_threshold_f16)
EMULATE(mask_columns_f16)
