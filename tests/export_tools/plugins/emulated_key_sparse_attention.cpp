// Key-sparse attention's own source, as functions that ctypes can call.
#include "cuda_shim.h"

#include "key_sparse_attention.cu"

#include "emulated_attention.h"
