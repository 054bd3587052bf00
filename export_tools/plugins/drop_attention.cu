// edgeser::DropAttention in four kernels that run one after another: those of attention.cuh, then
//
//   context        weights times values, where the mask lets them    (N, H, T, D)
//
// The DropFormer paper's equations 2 and 3: a weight stays between two kept rows, or where its rows lie one of a few
// distances apart. So a block needs the kept keys, and those around its own queries.

#include "attention.cuh"

// Distances up to 63, one bit each.
struct Offsets {
    unsigned long long bits;
    int largest;  // -1 without any

    __device__ bool have(int distance) const { return distance < 64 && bits >> distance & 1u; }
};

// The keys that a block goes through: those that are kept, then those within reach of its queries. A key that is both
// comes twice, and counts once: where the offsets have it, the second time.
struct BlockKeys {
    const int *kept;
    int kept_count, first_near, count;

    __device__ BlockKeys(const Place &place, const int *kept, int kept_count, int reach)
        : kept(kept), kept_count(kept_count), first_near(max(0, place.block_row - reach)), count(0)
    {
        if (place.block_row >= place.length)
            return;
        const int end = min(place.length, place.block_row + place.block_rows + reach);
        count = kept_count + (reach < 0 ? 0 : end - first_near);
    }

    __device__ int operator[](int i) const { return i < kept_count ? kept[i] : first_near + i - kept_count; }
};

template <typename T>
__device__ void context(const T *q, const T *k, const T *v, const int *length, const float *log_sums,
                        const float *sums, const int *kept, const int *kept_count, const float *thresholds,
                        const Offsets &offsets, T *result, const Shape &shape)
{
    constexpr int ROWS = Tiles<T>::ROWS;
    __shared__ Tiles<T> tiles;
    const Place place(shape, length, shape.queries);
    const BlockKeys keys(
        place, place.rows_of(kept, shape.keys, 1), kept_count[place.head], offsets.largest);
    const float *row_sums = place.rows_of(sums, shape.keys, 1);
    int rows[2];
    bool is_valid[2], is_kept[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        rows[half] = place.first_row + group_id() + 8 * half;
        is_valid[half] = rows[half] < place.length;
        is_kept[half] = is_valid[half] && row_sums[rows[half]] >= thresholds[place.head];
    }
    weigh_values(
        q, k, v, log_sums, result, shape, place, tiles, keys.count, [&](int i) { return keys[i]; },
        [&](auto &weights, int first) {
#pragma unroll
            for (int i = 0; i < ROWS / 4; ++i) {
                const int number = first + i / 2 * 8 + pair_column() + i % 2;
                const int key = number < keys.count ? keys[number] : 0;
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const bool is_near = offsets.have(abs(rows[half] - key));
                    const bool stays = number < keys.kept_count ? is_kept[half] && !is_near
                                                                : number < keys.count && is_valid[half] && is_near;
                    float &weight = weights[i / 2][2 * half + i % 2];
                    weight = stays ? weight : 0.0f;
                }
            }
        });
}

#define KERNELS(T, SUFFIX)                                                                                             \
    SELECTION_KERNELS(T, SUFFIX, true)                                                                                 \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) context_##SUFFIX(                                        \
        const T *q, const T *k, const T *v, const int *length, const float *log_sums, const float *sums,               \
        const int *kept, const int *kept_count, const float *thresholds, unsigned long long offsets,                   \
        int largest_offset, T *result, int heads, int queries, int keys, int dim, float scale)                         \
    {                                                                                                                  \
        context(q, k, v, length, log_sums, sums, kept, kept_count, thresholds, Offsets{offsets, largest_offset},       \
                result, Shape(heads, queries, keys, dim, scale, true));                                                \
    }

KERNELS(float, f32)
KERNELS(Half, f16)
