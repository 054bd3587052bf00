// edgeser::KeySparseAttention in four kernels that run one after another: those of attention.cuh, then
//
//   context        weights times values, of the kept keys alone      (N, H, Tq, D)
//
// The KS-Transformer paper's equation 3 zeroes the keys whose attention, summed over all queries, is below the
// keep-th largest.

#include "attention.cuh"

template <typename T>
__device__ void context(const T *q, const T *k, const T *v, const int *key_length, const float *log_sums,
                        const int *kept, const int *kept_count, T *result, const Shape &shape)
{
    __shared__ Tiles<T> tiles;
    const Place place(shape, key_length, shape.queries);
    const int count = kept_count[place.head];
    const int *places = place.rows_of(kept, shape.keys, 1);
    weigh_values(
        q, k, v, log_sums, result, shape, place, tiles, count, [&](int i) { return places[i]; },
        [&](auto &weights, int first) { fill_columns_from<Tiles<T>::ROWS>(weights, count - first, 0.0f); });
}

#define KERNELS(T, SUFFIX)                                                                                             \
    SELECTION_KERNELS(T, SUFFIX, false)                                                                                \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) context_##SUFFIX(                                        \
        const T *q, const T *k, const T *v, const int *key_length, const float *log_sums, const int *kept,             \
        const int *kept_count, T *result, int heads, int queries, int keys, int dim, float scale)                      \
    {                                                                                                                  \
        context(q, k, v, key_length, log_sums, kept, kept_count, result,                                               \
                Shape(heads, queries, keys, dim, scale, false));                                                       \
    }

KERNELS(float, f32)
KERNELS(Half, f16)
