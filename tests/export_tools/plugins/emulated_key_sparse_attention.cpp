// The attention kernels' own source, as functions that ctypes can call.
#include "cuda_shim.h"

#include "key_sparse_attention.cu"

#define EMULATE(NAME)                                                                                                  \
    extern "C" void emulate_##NAME(const int *grid, int threads, int order, void **arguments)                          \
    {                                                                                                                  \
        emulation::launch(NAME, grid, threads, order, arguments);                                                      \
    }

EMULATE(row_log_sums_f32)
EMULATE(column_sums_f32)
EMULATE(select_keys_f32)
EMULATE(context_f32)
EMULATE(row_log_sums_f16)
EMULATE(column_sums_f16)
EMULATE(select_keys_f16)
EMULATE(context_f16)
