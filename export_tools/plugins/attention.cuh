// Attention whose mask needs every key's weights, summed over all queries, before the first value is read.
//
// The weights would be Tq x Tk per head in global memory; instead their products are computed again where they are
// used, from a logarithm per query:
//
//   row_log_sums   log2 of each query's sum of exponentials          (N * H, Tq)
//   column_sums    each key's weights, summed over all queries       (N * H, Tk)
//   select_keys    the keep-th largest sum, the keys that reach it   (N * H, Tk), (N * H)
//
// No sum depends on the order in which threads run, so equal keys have equal sums, in every run.
// Tensors are dense, in the order of their axes: q (N, H, Tq, D), k and v (N, H, Tk, D), key_length (N).
#ifndef EDGESER_ATTENTION_CUH
#define EDGESER_ATTENTION_CUH

#include "selection.cuh"
#include "tiles.cuh"

struct Shape {
    int heads, queries, keys, dim;
    float exponent_scale;  // from a product of q and k to an exponent of 2
    bool is_self;          // queries and keys are the same rows: where keys are padding, queries are too

    __device__ Shape(int heads, int queries, int keys, int dim, float scale, bool is_self)
        : heads(heads), queries(queries), keys(keys), dim(dim), exponent_scale(scale * LOG2_E), is_self(is_self)
    {
    }
};

// What a block works on: a head of a sample, and in it the 16 rows of each of its warps.
struct Place {
    int head, first_row, block_row, block_rows;
    int length, queries;  // how many keys are valid, and how many queries count

    __device__ Place(const Shape &shape, const int *key_length, int rows)
    {
        block_rows = blockDim.x / 32 * WARP_ROWS;
        const int blocks = (rows + block_rows - 1) / block_rows;
        head = blockIdx.x / blocks;
        block_row = blockIdx.x % blocks * block_rows;
        first_row = block_row + threadIdx.x / 32 * WARP_ROWS;
        length = max(0, min(key_length[head / shape.heads], shape.keys));
        queries = shape.is_self ? length : shape.queries;
    }

    template <typename T>
    __device__ T *rows_of(T *tensor, int rows, int width) const
    {
        return tensor + static_cast<long long>(head) * rows * width;
    }
};

__device__ inline float sum_of_quad(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// A lane's share of a row's sum of powers of 2, kept relative to the largest exponent that it met.
struct PowerSum {
    float largest = -1e30f;  // below any exponent, and far above -FAR
    float sum = 0.0f;

    __device__ void rescale(float exponent)
    {
        sum *= power_of_2(largest - exponent);
        largest = exponent;
    }

    __device__ float log_of_quad()
    {
        const float paired = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
        rescale(fmaxf(paired, __shfl_xor_sync(0xffffffffu, paired, 2)));
        return largest + log2f(sum_of_quad(sum));
    }
};

template <typename T>
__device__ void row_log_sums(const T *q, const T *k, const int *key_length, float *log_sums, const Shape &shape)
{
    constexpr int ROWS = STREAMED_ROWS<T, 2>;
    alignas(16) __shared__ T tiles[2][ROWS * STRIDE];
    const Place place(shape, key_length, shape.queries);
    if (place.length == 0 || place.block_row >= place.queries)
        return;  // nothing reads these sums
    const T *keys = place.rows_of(k, shape.keys, shape.dim);
    const StationaryRows<T> a(
        place.rows_of(q, shape.queries, shape.dim), place.first_row, place.queries, shape.dim);
    PowerSum power_sums[2];

    stream_rows<ROWS>(
        place.length,
        [&](int stage, int first) {
            load_tile<ROWS>(
                tiles[stage], keys, shape.dim, [&](int i) { return first + i < place.length ? first + i : -1; });
        },
        [&](int stage, int first) {
            float scores[ROWS / 8][4];
            multiply_rows<ROWS>(scores, a, tiles[stage]);
#pragma unroll
            for (int i = 0; i < ROWS / 2; ++i)
                scores[i / 4][i % 4] *= shape.exponent_scale;
            fill_columns_from<ROWS>(scores, place.length - first, -FAR);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                PowerSum &row = power_sums[half];
                float largest = row.largest;
#pragma unroll
                for (int i = 0; i < ROWS / 4; ++i)
                    largest = fmaxf(largest, scores[i / 2][2 * half + i % 2]);
                row.rescale(largest);
#pragma unroll
                for (int i = 0; i < ROWS / 4; ++i)
                    row.sum += power_of_2(scores[i / 2][2 * half + i % 2] - largest);
            }
        });

    float *target = place.rows_of(log_sums, shape.queries, 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = place.first_row + group_id() + 8 * half;
        const float log_sum = power_sums[half].log_of_quad();
        if (pair_column() == 0 && row < shape.queries)
            target[row] = log_sum;
    }
}

// Keys stay in registers and queries stream: each lane sums over the queries it sees, and four lanes share a key.
template <typename T>
__device__ void column_sums(
    const T *q, const T *k, const int *key_length, const float *log_sums, float *sums, const Shape &shape)
{
    constexpr int ROWS = STREAMED_ROWS<T, 2>;
    alignas(16) __shared__ T tiles[2][ROWS * STRIDE];
    const Place place(shape, key_length, shape.keys);
    float key_sums[2] = {0.0f, 0.0f};

    if (place.block_row < place.length) {
        const T *queries = place.rows_of(q, shape.queries, shape.dim);
        const float *logs = place.rows_of(log_sums, shape.queries, 1);
        const StationaryRows<T> a(place.rows_of(k, shape.keys, shape.dim), place.first_row, place.length, shape.dim);
        stream_rows<ROWS>(
            place.queries,
            [&](int stage, int first) {
                load_tile<ROWS>(tiles[stage], queries, shape.dim,
                                [&](int i) { return first + i < place.queries ? first + i : -1; });
            },
            [&](int stage, int first) {
                float scores[ROWS / 8][4];
                multiply_rows<ROWS>(scores, a, tiles[stage]);
#pragma unroll
                for (int i = 0; i < ROWS / 4; ++i) {
                    const int query = first + i / 2 * 8 + pair_column() + i % 2;
                    const float log_sum = query < place.queries ? logs[query] : FAR;
#pragma unroll
                    for (int half = 0; half < 2; ++half)
                        key_sums[half] += power_of_2(scores[i / 2][2 * half + i % 2] * shape.exponent_scale - log_sum);
                }
            });
    }

    float *target = place.rows_of(sums, shape.keys, 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int key = place.first_row + group_id() + 8 * half;
        const float sum = sum_of_quad(key_sums[half]);
        if (pair_column() == 0 && key < shape.keys)
            target[key] = key < place.length ? sum : 0.0f;
    }
}

// One block per head of a sample. Padded keys count as sums of 0 for the threshold, and are never listed. With `keep` 0
// the threshold is no number, which nothing reaches.
template <typename T>
__device__ void select_keys(const float *sums, const int *key_length, T *importance, int *kept, int *kept_count,
                            float *thresholds, int heads, int keys, int keep)
{
    const int head = blockIdx.x;
    const long long first = static_cast<long long>(head) * keys;
    const int length = max(0, min(key_length[head / heads], keys));
    for (int i = threadIdx.x; i < keys; i += SELECT_THREADS)
        store(importance + first + i, sums[first + i]);
    const float threshold = keep_largest(sums + first, keys, keep);
    const int count = list_reaching(sums + first, length, threshold, kept + first);
    if (threadIdx.x == 0) {
        kept_count[head] = count;
        thresholds[head] = threshold;
    }
}

// Keys and values of up to ROWS places, each in two buffers.
template <typename T>
struct Tiles {
    static constexpr int ROWS = STREAMED_ROWS<T, 4>;
    alignas(16) T keys[2][ROWS * STRIDE];
    alignas(16) T values[2][ROWS * STRIDE];
};

// Weights times values of `count` keys: `key_of(i)` says which, `clear(weights, first)` overwrites the weights that are
// not to count, in a tile that starts with key number `first`.
template <typename T, typename KeyOf, typename Clear>
__device__ void weigh_values(const T *q, const T *k, const T *v, const float *log_sums, T *result, const Shape &shape,
                             const Place &place, Tiles<T> &tiles, int count, KeyOf key_of, Clear clear)
{
    constexpr int ROWS = Tiles<T>::ROWS;
    float sums[HEAD_DIM / 8][4] = {};

    if (count > 0) {
        const T *keys = place.rows_of(k, shape.keys, shape.dim);
        const T *values = place.rows_of(v, shape.keys, shape.dim);
        const float *logs = place.rows_of(log_sums, shape.queries, 1);
        const StationaryRows<T> a(
            place.rows_of(q, shape.queries, shape.dim), place.first_row, place.queries, shape.dim);
        float row_logs[2];
#pragma unroll
        for (int half = 0; half < 2; ++half)
            row_logs[half] = logs[min(place.first_row + group_id() + 8 * half, place.queries - 1)];
        stream_rows<ROWS>(
            count,
            [&](int stage, int first) {
                const auto row_of = [&](int i) { return first + i < count ? key_of(first + i) : -1; };
                load_tile<ROWS>(tiles.keys[stage], keys, shape.dim, row_of);
                load_tile<ROWS>(tiles.values[stage], values, shape.dim, row_of);
            },
            [&](int stage, int first) {
                float weights[ROWS / 8][4];
                multiply_rows<ROWS>(weights, a, tiles.keys[stage]);
#pragma unroll
                for (int i = 0; i < ROWS / 2; ++i) {
                    float &weight = weights[i / 4][i % 4];
                    weight = power_of_2(weight * shape.exponent_scale - row_logs[i % 4 / 2]);
                }
                clear(weights, first);
                add_weighted_rows<ROWS>(sums, weights, tiles.values[stage]);
            });
    }

    T *target = place.rows_of(result, shape.queries, shape.dim);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = place.first_row + group_id() + 8 * half;
        if (row < shape.queries)
#pragma unroll
            for (int n = 0; n < HEAD_DIM / 8; ++n)
                store_pair(target + static_cast<long long>(row) * shape.dim, n * 8 + pair_column(), shape.dim,
                           sums[n][2 * half], sums[n][2 * half + 1]);
    }
}

// Grids: one block for every `threads / 2` rows (queries, or keys for column_sums) of every head of every sample;
// `threads` is 32, 64, 96 or 128. select_keys: one block of SELECT_THREADS for every head of every sample.
#define SELECTION_KERNELS(T, SUFFIX, IS_SELF)                                                                          \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) row_log_sums_##SUFFIX(                                   \
        const T *q, const T *k, const int *key_length, float *log_sums, int heads, int queries, int keys, int dim,     \
        float scale)                                                                                                   \
    {                                                                                                                  \
        row_log_sums(q, k, key_length, log_sums, Shape(heads, queries, keys, dim, scale, IS_SELF));                    \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) column_sums_##SUFFIX(                                    \
        const T *q, const T *k, const int *key_length, const float *log_sums, float *sums, int heads, int queries,     \
        int keys, int dim, float scale)                                                                                \
    {                                                                                                                  \
        column_sums(q, k, key_length, log_sums, sums, Shape(heads, queries, keys, dim, scale, IS_SELF));               \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(SELECT_THREADS) select_keys_##SUFFIX(                                 \
        const float *sums, const int *key_length, T *importance, int *kept, int *kept_count, float *thresholds,        \
        int heads, int keys, int keep)                                                                                 \
    {                                                                                                                  \
        select_keys(sums, key_length, importance, kept, kept_count, thresholds, heads, keys, keep);                    \
    }

#endif
