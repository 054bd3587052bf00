// The top-k mask of key-sparse attention alone, on weights (N, H, Tq, Tk) that are already there.
//
//   sum_columns    each key's weights, summed over all queries, in their order   (N * H, Tk)
//   find_threshold the keep-th largest sum                                       (N * H)
//   mask_columns   the weights, 0 for the keys whose sum is below it             (N, H, Tq, Tk)

#include "selection.cuh"

constexpr int MASK_THREADS = 128;

__device__ inline int column() { return blockIdx.y * MASK_THREADS + threadIdx.x; }

template <typename T>
__device__ void sum_columns(const T *weights, float *sums, int queries, int keys)
{
    if (column() >= keys)
        return;
    const T *values = weights + static_cast<long long>(blockIdx.x) * queries * keys + column();
    float sum = 0.0f;
#pragma unroll 8
    for (int row = 0; row < queries; ++row)
        sum += to_float(values[static_cast<long long>(row) * keys]);
    sums[static_cast<long long>(blockIdx.x) * keys + column()] = sum;
}

template <typename T>
__device__ void mask_columns(
    const T *weights, const float *sums, const float *thresholds, T *masked, int queries, int keys)
{
    if (column() >= keys)
        return;
    const bool is_kept = sums[static_cast<long long>(blockIdx.x) * keys + column()] >= thresholds[blockIdx.x];
    const long long first = static_cast<long long>(blockIdx.x) * queries * keys + column();
    for (int row = blockIdx.z; row < queries; row += gridDim.z) {
        const long long place = first + static_cast<long long>(row) * keys;
        masked[place] = is_kept ? weights[place] : T{};
    }
}

template <typename T>
__device__ void find_threshold(const float *sums, T *importance, float *thresholds, int keys, int keep)
{
    const long long first = static_cast<long long>(blockIdx.x) * keys;
    for (int i = threadIdx.x; i < keys; i += SELECT_THREADS)
        store(importance + first + i, sums[first + i]);
    const float threshold = keep_largest(sums + first, keys, keep);
    if (threadIdx.x == 0)
        thresholds[blockIdx.x] = threshold;
}

// Grids: (N * H, blocks of MASK_THREADS keys, parts of the rows); find_threshold: (N * H) of SELECT_THREADS.
#define KERNELS(T, SUFFIX)                                                                                             \
    extern "C" __global__ void __launch_bounds__(MASK_THREADS) sum_columns_##SUFFIX(                                   \
        const T *weights, float *sums, int queries, int keys)                                                          \
    {                                                                                                                  \
        sum_columns(weights, sums, queries, keys);                                                                     \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(SELECT_THREADS) find_threshold_##SUFFIX(                              \
        const float *sums, T *importance, float *thresholds, int keys, int keep)                                       \
    {                                                                                                                  \
        find_threshold(sums, importance, thresholds, keys, keep);                                                      \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(MASK_THREADS) mask_columns_##SUFFIX(                                  \
        const T *weights, const float *sums, const float *thresholds, T *masked, int queries, int keys)                \
    {                                                                                                                  \
        mask_columns(weights, sums, thresholds, masked, queries, keys);                                                \
    }

KERNELS(float, f32)
KERNELS(Half, f16)
