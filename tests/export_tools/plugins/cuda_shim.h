// What the kernels use of CUDA, on one CPU thread: a block's threads are fibers that meet at barriers.
//
// Collective instructions follow the PTX manual's fragment layouts element by element, so that a wrong layout in a
// kernel is a wrong result here. Tensor cores cut sums off instead of rounding them; so does `cut_off`.
#pragma once
#define EDGESER_PTX_CUH  // stands in for ptx.cuh
#define __device__
#define __global__
#define __shared__ static  // blocks run one after another
#define __launch_bounds__(...)

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

using std::max;
using std::min;

struct float2 {
    float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

struct Dim3 {
    int x = 0, y = 0, z = 0;
};
inline Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

struct Lane {  // what a thread shows the others of its warp, for the even and the odd collective instruction
    float a[2][16], b[2][16];
    const void *row[2];
    std::uint32_t word[2];
};

struct Barrier {
    int size = 0, arrived = 0, generation = 0, sum = 0, last_sum = 0;
};

struct Fiber {
    ucontext_t context;
    jmp_buf resume;
    std::unique_ptr<char[]> stack;
    bool is_started, is_done, is_at_block_barrier;
    int parity;
};

constexpr int STACK_BYTES = 128 * 1024;
inline std::vector<Fiber> fibers;
inline std::vector<Lane> lanes;
inline std::vector<Barrier> warps;
inline Barrier block;
inline jmp_buf scheduler;
inline ucontext_t scheduler_context;
inline std::function<void()> body;

// Copies are done as late as they may be: when their thread waits for them, so that reading too early shows.
struct Copy {
    void *shared;
    const void *global;
};
inline std::vector<std::vector<std::vector<Copy>>> copies;  // by thread, by group

inline std::vector<std::vector<Copy>> &copy_groups()
{
    auto &found = copies[threadIdx.x];
    if (found.empty())
        found.emplace_back();
    return found;
}

inline Fiber &self() { return fibers[threadIdx.x]; }

inline void wait(Barrier &barrier, int value = 0)
{
    barrier.sum += value;
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        barrier.last_sum = barrier.sum;
        barrier.sum = 0;
        ++barrier.generation;
        return;
    }
    self().is_at_block_barrier = &barrier == &block;
    for (const int generation = barrier.generation; barrier.generation == generation;)
        if (!_setjmp(self().resume))
            _longjmp(scheduler, 1);
    self().is_at_block_barrier = false;
}

inline void start()
{
    body();
    self().is_done = true;
    _longjmp(scheduler, 1);
}

// Let a thread run until it has to wait for others.
inline void advance(int thread)
{
    threadIdx.x = thread;
    if (self().is_done || _setjmp(scheduler))
        return;
    if (self().is_started)
        _longjmp(self().resume, 1);
    self().is_started = true;
    if (!self().stack)
        self().stack.reset(new char[STACK_BYTES]);
    getcontext(&self().context);
    self().context.uc_stack.ss_sp = self().stack.get();
    self().context.uc_stack.ss_size = STACK_BYTES;
    self().context.uc_link = nullptr;
    makecontext(&self().context, start, 0);
    setcontext(&self().context);
}

inline bool can_run(int thread) { return !fibers[thread].is_done && !fibers[thread].is_at_block_barrier; }

// The orders in which threads run: in turn, in turn from the last one, or each warp as far as it gets alone, which
// shows what one warp overwrites while another still reads it.
enum Order { IN_TURN, REVERSED, WARP_BY_WARP };

inline void run_block(int order)
{
    const int count = blockDim.x;
    if (static_cast<int>(fibers.size()) < count)
        fibers.resize(count);
    lanes.resize(count);
    warps.assign((count + 31) / 32, Barrier{});
    for (auto &warp : warps)
        warp.size = 32;
    block = Barrier{};
    block.size = count;
    for (auto &fiber : fibers)
        fiber.is_started = fiber.is_done = fiber.is_at_block_barrier = false, fiber.parity = 0;
    copies.assign(count, {});
    const auto is_done = [](const Fiber &fiber) { return fiber.is_done; };
    while (!std::all_of(fibers.begin(), fibers.begin() + count, is_done))
        for (int i = 0; i < count; ++i) {
            advance(order == REVERSED ? count - 1 - i : i);
            if (order != WARP_BY_WARP || i % 32 != 31)
                continue;
            for (int lane = i - 31; lane <= i; ++lane)
                if (can_run(lane)) {
                    i -= 32;  // this warp again
                    break;
                }
        }
}

template <typename... Arguments, std::size_t... Places>
void launch(void (*kernel)(Arguments...), const int *grid, int threads, int order, void **arguments,
            std::index_sequence<Places...>)
{
    body = [=] { kernel(*static_cast<Arguments *>(arguments[Places])...); };
    blockDim = {threads, 1, 1};
    gridDim = {grid[0], grid[1], grid[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
                run_block(order);
}

template <typename... Arguments>
void launch(void (*kernel)(Arguments...), const int *grid, int threads, int order, void **arguments)
{
    launch(kernel, grid, threads, order, arguments, std::index_sequence_for<Arguments...>{});
}

// A warp's collective instruction: every lane shows something, then all read. Two sets of places, used in turn, make
// one barrier enough.
inline int show()
{
    self().parity ^= 1;
    return self().parity;
}
inline Lane &mine() { return lanes[threadIdx.x]; }
inline Lane &of_warp(int lane) { return lanes[threadIdx.x / 32 * 32 + lane]; }
inline void meet() { wait(warps[threadIdx.x / 32]); }

inline float cut_off(double x)
{
    const float rounded = static_cast<float>(x);
    return std::abs(static_cast<double>(rounded)) > std::abs(x) ? std::nextafter(rounded, 0.0f) : rounded;
}

// c (16 x 8) += a (16 x K) * b (K x 8). Per lane (g, t) the manual gives a's registers as rows g, g + 8, g, g + 8, the
// last two K / 2 further on the inner axis, b's two registers alike, and the inner index inside a half from t.
template <int K>
void multiply(float (&c)[4], int parity)
{
    constexpr int PER_REGISTER = K / 8;
    const int lane = threadIdx.x % 32, group = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
        double sum = c[i];
        for (int k = 0; k < K; ++k) {
            const int half = k / (K / 2), t = k % (K / 2) / PER_REGISTER, element = k % PER_REGISTER;
            const Lane &row = of_warp(group * 4 + t), &col = of_warp((column + i % 2) * 4 + t);
            const int in_a = (half * 2 + i / 2) * PER_REGISTER + element, in_b = half * PER_REGISTER + element;
            sum += static_cast<double>(row.a[parity][in_a]) * col.b[parity][in_b];
        }
        c[i] = cut_off(sum);
    }
}

}  // namespace emulation

inline void __syncthreads() { emulation::wait(emulation::block); }

inline int __syncthreads_count(int predicate)
{
    emulation::wait(emulation::block, predicate != 0);
    return emulation::block.last_sum;
}

inline std::uint32_t __float_as_uint(float x)
{
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

inline float __uint_as_float(std::uint32_t bits)
{
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }

inline float __shfl_xor_sync(unsigned, float x, int mask)
{
    const int parity = emulation::show();
    emulation::mine().word[parity] = __float_as_uint(x);
    emulation::meet();
    return __uint_as_float(emulation::of_warp((threadIdx.x % 32) ^ mask).word[parity]);
}

inline unsigned __ballot_sync(unsigned, int predicate)
{
    const int parity = emulation::show();
    emulation::mine().word[parity] = predicate != 0;
    emulation::meet();
    unsigned result = 0;
    for (int lane = 0; lane < 32; ++lane)
        result |= emulation::of_warp(lane).word[parity] << lane;
    return result;
}

struct Half {
    unsigned short bits;
};

inline float to_float(float x) { return x; }

inline float to_float(Half x)
{
    _Float16 half;
    std::memcpy(&half, &x.bits, 2);
    return static_cast<float>(half);
}

inline unsigned pack_halves(float low, float high)
{
    const _Float16 pair[2] = {static_cast<_Float16>(low), static_cast<_Float16>(high)};
    unsigned result;
    std::memcpy(&result, pair, 4);
    return result;
}

inline float power_of_2(float x)
{
    const float power = std::exp2(x);
    return power < 1.17549435e-38f ? 0.0f : power;
}

inline void multiply_f16(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    const int parity = emulation::show();
    auto &mine = emulation::mine();
    for (int i = 0; i < 8; ++i) {
        const auto bits = static_cast<unsigned short>(a[i / 2] >> (16 * (i % 2)));
        mine.a[parity][i] = to_float(Half{bits});
    }
    for (int i = 0; i < 4; ++i) {
        const auto bits = static_cast<unsigned short>((i < 2 ? b0 : b1) >> (16 * (i % 2)));
        mine.b[parity][i] = to_float(Half{bits});
    }
    emulation::meet();
    emulation::multiply<16>(c, parity);
}

inline void multiply_tf32(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    const int parity = emulation::show();
    auto &mine = emulation::mine();
    for (int i = 0; i < 4; ++i)
        mine.a[parity][i] = __uint_as_float(a[i] & 0xffffe000u);
    mine.b[parity][0] = __uint_as_float(b0 & 0xffffe000u);
    mine.b[parity][1] = __uint_as_float(b1 & 0xffffe000u);
    emulation::meet();
    emulation::multiply<8>(c, parity);
}

inline void load_matrices(unsigned (&r)[4], const Half *row)
{
    if (reinterpret_cast<std::uintptr_t>(row) % 16)
        std::abort();  // as the hardware would
    const int parity = emulation::show();
    emulation::mine().row[parity] = row;
    emulation::meet();
    const int lane = threadIdx.x % 32;
    for (int matrix = 0; matrix < 4; ++matrix) {
        const auto *values = static_cast<const Half *>(emulation::of_warp(matrix * 8 + lane / 4).row[parity]);
        std::memcpy(&r[matrix], values + lane % 4 * 2, 4);
    }
}

inline void load_matrices_transposed(unsigned (&r)[4], const Half *row)
{
    if (reinterpret_cast<std::uintptr_t>(row) % 16)
        std::abort();
    const int parity = emulation::show();
    emulation::mine().row[parity] = row;
    emulation::meet();
    const int lane = threadIdx.x % 32;
    for (int matrix = 0; matrix < 4; ++matrix) {
        unsigned pair = 0;
        for (int e = 0; e < 2; ++e) {
            const auto &source = emulation::of_warp(matrix * 8 + lane % 4 * 2 + e);
            pair |= static_cast<unsigned>(static_cast<const Half *>(source.row[parity])[lane / 4].bits) << (16 * e);
        }
        r[matrix] = pair;
    }
}

inline void copy_async(void *shared, const void *global, bool is_there)
{
    if (reinterpret_cast<std::uintptr_t>(shared) % 16 || reinterpret_cast<std::uintptr_t>(global) % 16)
        std::abort();
    std::memset(shared, 0xff, 16);  // no number, until it arrives
    emulation::copy_groups().back().push_back({shared, is_there ? global : nullptr});
}

inline void commit_copies() { emulation::copy_groups().emplace_back(); }

inline void wait_for_copies()
{
    auto &groups = emulation::copy_groups();
    while (groups.size() > 2) {  // the latest group that was committed, and the open one, may be on their way
        for (const auto &copy : groups.front()) {
            if (copy.global)
                std::memcpy(copy.shared, copy.global, 16);
            else
                std::memset(copy.shared, 0, 16);
        }
        groups.erase(groups.begin());
    }
}

// A kernel as a function that ctypes can call.
#define EMULATE(NAME)                                                                                                  \
    extern "C" void emulate_##NAME(const int *grid, int threads, int order, void **arguments)                          \
    {                                                                                                                  \
        emulation::launch(NAME, grid, threads, order, arguments);                                                      \
    }
