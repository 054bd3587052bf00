// Drop attention's own source, as functions that ctypes can call.
#include "cuda_shim.h"

#include "drop_attention.cu"

#include "emulated_attention.h"
