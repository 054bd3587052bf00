// The exact k-th largest of a row of sums, and what lies at or above it.
#ifndef EDGESER_SELECTION_CUH
#define EDGESER_SELECTION_CUH

#include "ptx.cuh"

constexpr int SELECT_THREADS = 512;

// The keep-th largest of `count` values >= 0, or 0 where there are fewer. The bits of such floats are in the floats'
// order, so the answer is found bit by bit: the largest number that at least `keep` values reach.
__device__ inline float keep_largest(const float *values, int count, int keep)
{
    unsigned found = 0;
    for (int bit = 30; bit >= 0; --bit) {
        const unsigned candidate = found | 1u << bit;
        int reached = 0;
        for (int first = 0; first < count; first += SELECT_THREADS) {
            const int i = first + static_cast<int>(threadIdx.x);
            reached += __syncthreads_count(i < count && __float_as_uint(values[i]) >= candidate);
        }
        if (reached >= keep)
            found = candidate;
    }
    return __uint_as_float(found);
}

// Write the places, in order, of the first `count` values that reach the threshold; return how many there are.
__device__ inline int list_reaching(const float *values, int count, float threshold, int *places)
{
    __shared__ int warp_counts[SELECT_THREADS / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int listed = 0;
    for (int first = 0; first < count; first += SELECT_THREADS) {
        const int i = first + static_cast<int>(threadIdx.x);
        const bool is_kept = i < count && values[i] >= threshold;
        const unsigned kept_lanes = __ballot_sync(0xffffffffu, is_kept);
        if (lane == 0)
            warp_counts[warp] = __popc(kept_lanes);
        __syncthreads();
        int place = listed + __popc(kept_lanes & ((1u << lane) - 1u));
        for (int other = 0; other < SELECT_THREADS / 32; ++other) {
            place += other < warp ? warp_counts[other] : 0;
            listed += warp_counts[other];
        }
        if (is_kept)
            places[place] = i;
        __syncthreads();
    }
    return listed;
}

__device__ inline void store(float *target, float value) { *target = value; }

__device__ inline void store(Half *target, float value)
{
    target->bits = static_cast<unsigned short>(pack_halves(value, 0.0f) & 0xffffu);
}

#endif
