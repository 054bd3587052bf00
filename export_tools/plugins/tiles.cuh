// Products of tiles on tensor cores: 16 rows per warp in registers against rows that stream through shared memory.
//
// A lane with g = lane / 4 and t = lane % 4 holds rows g and g + 8 of its warp's 16, and of every 8 columns the
// columns 2t and 2t + 1. TF32's own layout has columns t and t + 4 instead: over the inner dimension of a product the
// order is free, so both types use the first one.
#ifndef EDGESER_TILES_CUH
#define EDGESER_TILES_CUH

#include "ptx.cuh"

#ifndef HEAD_DIM
#define HEAD_DIM 64  // D, rounded up to a multiple of 32
#endif
static_assert(HEAD_DIM % 32 == 0 && HEAD_DIM <= 128, "HEAD_DIM is 32, 64, 96 or 128");

constexpr int WARP_ROWS = 16;
constexpr int MAX_THREADS = 128;
constexpr int STATIC_SHARED_BYTES = 48 * 1024;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float FAR = 1e38f;  // 2 to the minus FAR is 0; no infinity, whose differences are no numbers

// Rows of 8 more values than they need: no two lanes of a product's loads meet in a bank.
constexpr int STRIDE = HEAD_DIM + 8;

template <typename T>
struct Pair;
template <>
struct Pair<Half> {
    using Type = unsigned;
};
template <>
struct Pair<float> {
    using Type = float2;
};

// How many rows of a streamed tile fit into BUFFERS buffers.
template <typename T, int BUFFERS>
constexpr int FITTING_ROWS = STATIC_SHARED_BYTES / (BUFFERS * STRIDE * static_cast<int>(sizeof(T)));
template <typename T, int BUFFERS>
constexpr int STREAMED_ROWS = FITTING_ROWS<T, BUFFERS> >= 64 ? 64 : FITTING_ROWS<T, BUFFERS> >= 32 ? 32 : 16;

__device__ inline int lane_id() { return threadIdx.x % 32; }
__device__ inline int group_id() { return lane_id() / 4; }
__device__ inline int pair_column() { return lane_id() % 4 * 2; }

__device__ inline unsigned load_pair(const Half *row, int column, int dim)
{
    if (column + 1 < dim && dim % 2 == 0)
        return *reinterpret_cast<const unsigned *>(row + column);
    const unsigned low = column < dim ? row[column].bits : 0u;
    const unsigned high = column + 1 < dim ? row[column + 1].bits : 0u;
    return high << 16 | low;
}

__device__ inline float2 load_pair(const float *row, int column, int dim)
{
    if (column + 1 < dim && dim % 2 == 0)
        return *reinterpret_cast<const float2 *>(row + column);
    return make_float2(column < dim ? row[column] : 0.0f, column + 1 < dim ? row[column + 1] : 0.0f);
}

__device__ inline void store_pair(Half *row, int column, int dim, float first, float second)
{
    const unsigned pair = pack_halves(first, second);
    if (column < dim)
        row[column].bits = static_cast<unsigned short>(pair & 0xffffu);
    if (column + 1 < dim)
        row[column + 1].bits = static_cast<unsigned short>(pair >> 16);
}

__device__ inline void store_pair(float *row, int column, int dim, float first, float second)
{
    if (column < dim)
        row[column] = first;
    if (column + 1 < dim)
        row[column + 1] = second;
}

// Rows that stay in registers: rows g and g + 8 of the warp's 16, zeros past `row_count` and `dim`.
template <typename T>
struct StationaryRows {
    typename Pair<T>::Type pairs[HEAD_DIM / 8][2];

    __device__ StationaryRows(const T *source, int first_row, int row_count, int dim)
    {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = first_row + group_id() + 8 * half;
            const T *values = source + static_cast<long long>(row < row_count ? row : 0) * dim;
#pragma unroll
            for (int block = 0; block < HEAD_DIM / 8; ++block)
                pairs[block][half] = load_pair(values, block * 8 + pair_column(), row < row_count ? dim : 0);
        }
    }
};

// Start to copy ROWS rows into a tile; `row_of(i)` is the source row of tile row i, or negative for zeros.
template <int ROWS, typename T, typename RowOf>
__device__ inline void load_tile(T *tile, const T *source, int dim, RowOf row_of)
{
    constexpr int WIDTH = 16 / sizeof(T);
    constexpr int CHUNKS = HEAD_DIM / WIDTH;
    const bool is_aligned = dim % WIDTH == 0;
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += blockDim.x) {
        const int row = row_of(i / CHUNKS);
        const int column = i % CHUNKS * WIDTH;
        T *target = tile + i / CHUNKS * STRIDE + column;
        const T *values = source + static_cast<long long>(row < 0 ? 0 : row) * dim;
        if (is_aligned) {
            const bool is_there = row >= 0 && column < dim;
            copy_async(target, is_there ? values + column : source, is_there);
        } else {
            for (int j = 0; j < WIDTH; ++j)
                target[j] = row >= 0 && column + j < dim ? values[column + j] : T{};
        }
    }
}

// Go through `count` rows, ROWS at a time: `load(stage, first)` starts a copy into one of two buffers,
// `use(stage, first)` works on it while the next one arrives.
template <int ROWS, typename Load, typename Use>
__device__ inline void stream_rows(int count, Load load, Use use)
{
    load(0, 0);
    commit_copies();
    int stage = 0;
    for (int first = 0; first < count; first += ROWS, stage ^= 1) {
        if (first + ROWS < count)
            load(stage ^ 1, first + ROWS);
        commit_copies();
        wait_for_copies();
        __syncthreads();
        use(stage, first);
        __syncthreads();
    }
}

// scores[n][..] = the warp's 16 rows times rows 8n to 8n + 7 of the tile.
template <int ROWS>
__device__ inline void multiply_rows(float (&scores)[ROWS / 8][4], const StationaryRows<Half> &a, const Half *tile)
{
    const Half *first = tile + lane_id() % 8 * STRIDE + lane_id() / 8 * 8;
#pragma unroll
    for (int n = 0; n < ROWS / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            scores[n][i] = 0.0f;
#pragma unroll
        for (int block = 0; block < HEAD_DIM / 8; block += 4) {
            unsigned b[4];
            load_matrices(b, first + n * 8 * STRIDE + block * 8);
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                const auto &low = a.pairs[block + i], &high = a.pairs[block + i + 1];
                const unsigned fragment[4] = {low[0], low[1], high[0], high[1]};
                multiply_f16(scores[n], fragment, b[i], b[i + 1]);
            }
        }
    }
}

// Overwrite the columns from `first` on, in the last tile of a row; before it there are none.
template <int ROWS>
__device__ inline void fill_columns_from(float (&values)[ROWS / 8][4], int first, float value)
{
    if (first >= ROWS)
        return;
#pragma unroll
    for (int i = 0; i < ROWS / 2; ++i)
        if (i / 4 * 8 + pair_column() + i % 2 >= first)
            values[i / 4][i % 4] = value;
}

// A float as two TF32 numbers, the first rounded, which together have 22 of its 24 bits. Plain arithmetic: conversions
// run at a fraction of its rate.
struct Split {
    static constexpr unsigned TF32_BITS = 0xffffe000u, HALF_STEP = 0x1000u;
    unsigned big, small;

    __device__ explicit Split(float x)
        : big((__float_as_uint(x) + HALF_STEP) & TF32_BITS),
          small(__float_as_uint(x - __uint_as_float(big)) & TF32_BITS)
    {
    }
};

// A product of floats in three of TF32. The small terms have a sum of their own: tensor cores cut off, they do not
// round, and every addition to the large sum would cost it up to a bit.
__device__ inline void multiply_split(
    float (&sum)[4], float (&small_sum)[4], const Split (&a)[4], const Split &b0, const Split &b1)
{
    const unsigned big[4] = {a[0].big, a[1].big, a[2].big, a[3].big};
    const unsigned small[4] = {a[0].small, a[1].small, a[2].small, a[3].small};
    multiply_tf32(small_sum, small, b0.big, b1.big);
    multiply_tf32(small_sum, big, b0.small, b1.small);
    multiply_tf32(sum, big, b0.big, b1.big);
}

template <int ROWS>
__device__ inline void multiply_rows(float (&scores)[ROWS / 8][4], const StationaryRows<float> &a, const float *tile)
{
    float small_scores[ROWS / 8][4];
#pragma unroll
    for (int n = 0; n < ROWS / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            scores[n][i] = small_scores[n][i] = 0.0f;
#pragma unroll
    for (int block = 0; block < HEAD_DIM / 8; ++block) {
        const float2 low = a.pairs[block][0], high = a.pairs[block][1];
        const Split fragment[4] = {Split(low.x), Split(high.x), Split(low.y), Split(high.y)};
#pragma unroll
        for (int n = 0; n < ROWS / 8; ++n) {
            const float *values = tile + (n * 8 + group_id()) * STRIDE + block * 8 + pair_column();
            const float2 b = *reinterpret_cast<const float2 *>(values);
            multiply_split(scores[n], small_scores[n], fragment, Split(b.x), Split(b.y));
        }
    }
#pragma unroll
    for (int n = 0; n < ROWS / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            scores[n][i] += small_scores[n][i];
}

// sums (16 x HEAD_DIM) += weights (16 x ROWS) times the tile (ROWS x HEAD_DIM).
template <int ROWS>
__device__ inline void add_weighted_rows(
    float (&sums)[HEAD_DIM / 8][4], const float (&weights)[ROWS / 8][4], const Half *tile)
{
    const Half *first = tile + lane_id() % 16 * STRIDE + lane_id() / 16 * 8;
#pragma unroll
    for (int block = 0; block < ROWS / 8; block += 2) {
        const float(&low)[4] = weights[block], (&high)[4] = weights[block + 1];
        const unsigned fragment[4] = {pack_halves(low[0], low[1]), pack_halves(low[2], low[3]),
                                      pack_halves(high[0], high[1]), pack_halves(high[2], high[3])};
#pragma unroll
        for (int n = 0; n < HEAD_DIM / 8; n += 2) {
            unsigned b[4];
            load_matrices_transposed(b, first + block * 8 * STRIDE + n * 8);
            multiply_f16(sums[n], fragment, b[0], b[1]);
            multiply_f16(sums[n + 1], fragment, b[2], b[3]);
        }
    }
}

template <int ROWS>
__device__ inline void add_weighted_rows(
    float (&sums)[HEAD_DIM / 8][4], const float (&weights)[ROWS / 8][4], const float *tile)
{
    const float *first = tile + pair_column() * STRIDE + group_id();
#pragma unroll
    for (int n = 0; n < HEAD_DIM / 8; ++n) {
        float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f}, small_sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int block = 0; block < ROWS / 8; ++block) {
            const float(&w)[4] = weights[block];
            const Split fragment[4] = {Split(w[0]), Split(w[2]), Split(w[1]), Split(w[3])};
            const float *values = first + block * 8 * STRIDE + n * 8;
            multiply_split(sum, small_sum, fragment, Split(values[0]), Split(values[STRIDE]));
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
            sums[n][i] += sum[i] + small_sum[i];
    }
}

#endif
