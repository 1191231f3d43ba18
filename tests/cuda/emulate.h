// Lets g++ build the kernels and run them on the CPU: the threads of a block are coroutines on one thread of the CPU,
// woken in an order drawn anew at every barrier, so that a barrier that is missing shows. Blocks run one after another.
// Left out: warps in step, memory order between blocks, how tensor cores round (kernels/mma.cuh has their products for the
// CPU, fragments and all). Included before every kernel; the calls below are CUDA's own.
#pragma once
#define SCOPE_EMULATED 1

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
    unsigned x, y, z;
};

namespace emu {

enum Wait { Ready, Barrier, Warp, Done };

struct Thread {
    dim3 index;
    void *stack;
    void *sp;
    Wait wait;
    uint32_t mask;
    uint64_t put;
    const uint64_t *got;
};

struct Block {
    dim3 index, threads, grid;
    std::vector<Thread> all;
    // [warp][lowest lane of a mask][lane]: what was put
    uint64_t exchanged[32][32][32];
    std::vector<unsigned char> dynamic;
    std::function<void()> body;
    void *main;
    uint64_t random;
};

static Block block;
static Thread *now;
static constexpr size_t STACK = 128 << 10;

// Saves what a call must save, changes the stack, and goes on where that one was left.
#if defined(__x86_64__)
__attribute__((naked, noinline)) static void change(void ** /*rdi*/, void * /*rsi*/) {
    __asm__(
        "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#else
#error "kernels are emulated on x86-64 only"
#endif

inline void leave(Wait wait) {
    now->wait = wait;
    change(&now->sp, block.main);
}

static void enter() {
    block.body();
    leave(Done);
    std::abort();
}

inline void prepare(Thread &t) {
    if (!t.stack) t.stack = std::aligned_alloc(64, STACK);
    void **top = (void **)((char *)t.stack + STACK) - 1;
    // aligned as after a call
    *--top = (void *)enter;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    t.sp = top;
    t.wait = Ready;
}

inline uint64_t draw() {
    block.random ^= block.random << 13;
    block.random ^= block.random >> 7;
    block.random ^= block.random << 17;
    return block.random;
}

// Wakes the threads of a warp that wait for each other and have all come; whether there were any.
inline bool wake_warp(size_t first, size_t end) {
    uint32_t waiting = 0, seen = 0;
    for (size_t i = first; i < end; i++) waiting |= (uint32_t)(block.all[i].wait == Warp) << (i - first);
    bool any = false;
    for (uint32_t rest = waiting; rest; rest = waiting & ~seen) {
        uint32_t mask = block.all[first + __builtin_ctz(rest)].mask, here = 0;
        for (size_t i = first; i < end; i++)
            here |= (uint32_t)(block.all[i].wait == Warp && block.all[i].mask == mask) << (i - first);
        seen |= here;
        if ((here & mask) != mask) continue;
        // The next exchange of these threads comes after all of them have read this one.
        uint64_t *put = block.exchanged[first / 32][__builtin_ctz(mask)];
        for (size_t i = first; i < end; i++) {
            if (!(mask >> (i - first) & 1)) continue;
            put[i - first] = block.all[i].put;
            block.all[i].got = put;
            block.all[i].wait = Ready;
        }
        any = true;
    }
    return any;
}

inline bool wake_warps() {
    bool any = false;
    for (size_t first = 0; first < block.all.size(); first += 32)
        any |= wake_warp(first, std::min(first + 32, block.all.size()));
    return any;
}

// 0: all threads came to their end; 1: some wait for others that never come.
inline int run_block() {
    std::vector<size_t> order(block.all.size());
    std::iota(order.begin(), order.end(), 0);
    for (Thread &t : block.all) prepare(t);
    for (;;) {
        for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[draw() % i]);
        bool ran = false;
        for (size_t i : order) {
            if (block.all[i].wait != Ready) continue;
            now = &block.all[i];
            change(&block.main, now->sp);
            ran = true;
        }
        size_t waiting = 0, done = 0;
        for (Thread &t : block.all) {
            waiting += t.wait == Barrier;
            done += t.wait == Done;
        }
        if (done == block.all.size()) return 0;
        if (waiting && waiting + done == block.all.size()) {
            for (Thread &t : block.all)
                if (t.wait == Barrier) t.wait = Ready;
            continue;
        }
        if (!wake_warps() && !ran) return 1;
    }
}

inline int launch(const unsigned *grid, const unsigned *threads, size_t shared, uint64_t seed, std::function<void()> body) {
    static std::mutex one;
    std::lock_guard<std::mutex> guard(one);
    size_t count = (size_t)threads[0] * threads[1] * threads[2];
    if (count == 0 || count > 1024 || shared > (227u << 10)) return 2;
    block.grid = {grid[0], grid[1], grid[2]};
    block.threads = {threads[0], threads[1], threads[2]};
    block.body = std::move(body);
    block.random = seed * 0x9e3779b97f4a7c15ull + 1;
    for (size_t i = count; i < block.all.size(); i++) std::free(block.all[i].stack);
    block.all.resize(count);
    for (unsigned i = 0; i < count; i++)
        block.all[i].index = {i % threads[0], i / threads[0] % threads[1], i / threads[0] / threads[1]};
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++) {
                block.index = {x, y, z};
                // as on the card, shared memory begins with anything
                block.dynamic.assign(shared + 16, 0xff);
                if (int code = run_block()) return code;
            }
    return 0;
}

// --- warp intrinsics ---

template <class T>
inline uint64_t bits_of(T x) {
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &x, sizeof x);
    return bits;
}

template <class T>
inline T of_bits(uint64_t bits) {
    T x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline unsigned lane() {
    dim3 i = now->index, n = block.threads;
    return (i.x + n.x * (i.y + n.y * i.z)) % 32;
}

template <class T>
inline void exchange(uint32_t mask, T x) {
    now->put = bits_of(x);
    now->mask = mask;
    leave(Warp);
}

inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31) return of_bits<float>(sign | 0x7f800000u | m << 13);
    if (e == 0) return (sign ? -1.0f : 1.0f) * std::ldexp((float)m, -24);
    return of_bits<float>(sign | (e + 112) << 23 | m << 13);
}

inline uint16_t f32_to_f16(float x) {
    uint32_t bits = (uint32_t)bits_of(x), sign = bits >> 16 & 0x8000;
    float a = std::fabs(x);
    if (std::isnan(x)) return (uint16_t)(sign | 0x7e00);
    if (a >= 65520.0f) return (uint16_t)(sign | 0x7c00);
    if (a < 6.103515625e-5f) return (uint16_t)(sign | (uint32_t)std::nearbyint(std::ldexp(a, 24)));
    uint32_t rounded = (bits & 0x7fffffffu) + 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | ((rounded >> 13) - (112 << 10)));
}

// --- calling a kernel with arguments behind pointers ---

template <class T>
constexpr char letter() {
    if (std::is_pointer<T>::value) return 'p';
    return std::is_same<T, float>::value ? 'f' : std::is_same<T, int>::value ? 'i' : '?';
}

template <class F>
struct Call;

template <class... A>
struct Call<void (*)(A...)> {
    template <size_t... I>
    static void with(void (*f)(A...), void **args, std::index_sequence<I...>) {
        f(*(A *)args[I]...);
    }
    static void with(void (*f)(A...), void **args) { with(f, args, std::index_sequence_for<A...>()); }
    static const char *signature() {
        static const char letters[] = {letter<A>()..., 0};
        return letters;
    }
};

}  // namespace emu

#define KERNEL(name) extern "C" void name
#define EXPORT(name)                                                                                          \
    extern "C" __attribute__((visibility("default"))) int launch_##name(const unsigned *grid,                 \
                                                                        const unsigned *threads, size_t shared, \
                                                                        void **args, uint64_t seed) {         \
        return emu::launch(grid, threads, shared, seed, [=] { emu::Call<decltype(&name)>::with(&name, args); }); \
    }                                                                                                         \
    extern "C" __attribute__((visibility("default"))) const char *signature_##name() {                        \
        return emu::Call<decltype(&name)>::signature();                                                       \
    }
#define DYNAMIC_SHARED(type, name) \
    type *name = (type *)(((uintptr_t)emu::block.dynamic.data() + 15) / 16 * 16)

#define threadIdx (emu::now->index)
#define blockIdx (emu::block.index)
#define blockDim (emu::block.threads)
#define gridDim (emu::block.grid)

inline void __syncthreads() { emu::leave(emu::Barrier); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emu::exchange(mask, 0); }

template <class T>
T __shfl_sync(unsigned mask, T x, int from) {
    emu::exchange(mask, x);
    return emu::of_bits<T>(emu::now->got[from & 31]);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T x, int far) {
    unsigned from = emu::lane() ^ far;
    emu::exchange(mask, x);
    return from < 32 ? emu::of_bits<T>(emu::now->got[from]) : x;
}

template <class T>
T __shfl_down_sync(unsigned mask, T x, unsigned far) {
    unsigned from = emu::lane() + far;
    emu::exchange(mask, x);
    return from < 32 ? emu::of_bits<T>(emu::now->got[from]) : x;
}

template <class T>
T __shfl_up_sync(unsigned mask, T x, unsigned far) {
    unsigned lane = emu::lane();
    emu::exchange(mask, x);
    return far <= lane ? emu::of_bits<T>(emu::now->got[lane - far]) : x;
}

inline unsigned __ballot_sync(unsigned mask, int yes) {
    emu::exchange(mask, yes);
    unsigned all = 0;
    for (int i = 0; i < 32; i++) all |= (mask >> i & 1 && emu::now->got[i]) ? 1u << i : 0;
    return all;
}

inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) == mask; }

template <class T, class U>
T atomicAdd(T *at, U x) {
    T old = *at;
    *at = old + (T)x;
    return old;
}

template <class T, class U>
T atomicMax(T *at, U x) {
    T old = *at;
    if ((T)x > old) *at = (T)x;
    return old;
}

template <class T>
T atomicCAS(T *at, T expected, T x) {
    T old = *at;
    if (old == expected) *at = x;
    return old;
}

template <class T>
T __ldg(const T *at) {
    return *at;
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline int __float_as_int(float x) { return emu::of_bits<int>(emu::bits_of(x)); }
inline unsigned __float_as_uint(float x) { return emu::of_bits<unsigned>(emu::bits_of(x)); }
inline float __int_as_float(int x) { return emu::of_bits<float>(emu::bits_of(x)); }
inline float __uint_as_float(unsigned x) { return emu::of_bits<float>(emu::bits_of(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}

template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
