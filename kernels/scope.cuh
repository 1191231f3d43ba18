// What all kernel families share: number types without headers of a toolkit, reductions in a fixed order, records that
// the host fills. Compiled by NVRTC, and by g++ for the tests (tests/cuda/emulate.h comes first there).
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char i8;

#ifndef SCOPE_EMULATED
#define KERNEL(name) extern "C" __global__ void name
#define EXPORT(name)
#define DYNAMIC_SHARED(type, name)                               \
    extern __shared__ __align__(16) unsigned char scope_shared[]; \
    type *name = (type *)scope_shared
#endif

#define DEVICE __device__ __forceinline__
#define ALL 0xffffffffu
#define INFINITE __int_as_float(0x7f800000)

// --- numbers ---

DEVICE float f16_to_f32(u16 x) {
#ifndef SCOPE_EMULATED
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
#else
    return emu::f16_to_f32(x);
#endif
}

// Rounds to nearest, ties to even.
DEVICE u16 f32_to_f16(float x) {
#ifndef SCOPE_EMULATED
    u16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#else
    return emu::f32_to_f16(x);
#endif
}

DEVICE float bf16_to_f32(u16 x) { return __uint_as_float((u32)x << 16); }

// Rounds to nearest, ties to even; NaN stays NaN.
DEVICE u16 f32_to_bf16(float x) {
    u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)((bits >> 16) | 0x40u);
    return (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Number types of KV caches.
enum Kv { KV_F32 = 0, KV_F16 = 1, KV_BF16 = 2 };

DEVICE float kv_get(const void *cells, u64 i, int kv) {
    if (kv == KV_F32) return ((const float *)cells)[i];
    u16 bits = ((const u16 *)cells)[i];
    return kv == KV_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

DEVICE void kv_put(void *cells, u64 i, int kv, float x) {
    if (kv == KV_F32)
        ((float *)cells)[i] = x;
    else
        ((u16 *)cells)[i] = kv == KV_F16 ? f32_to_f16(x) : f32_to_bf16(x);
}

// Storage formats of weights; blocks as in GGUF.
enum Format { F32 = 0, F16 = 1, BF16 = 2, Q4_0 = 3, Q4_1 = 4, Q8_0 = 5, Q4_K = 6, Q6_K = 7 };

// --- reductions, in an order that the number of threads fixes ---

// All 32 threads of a warp get the sum.
DEVICE float warp_sum(float x) {
    for (int far = 16; far > 0; far /= 2) x += __shfl_xor_sync(ALL, x, far);
    return x;
}

DEVICE float warp_max(float x) {
    for (int far = 16; far > 0; far /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, far));
    return x;
}

// All threads of a block (a multiple of 32, at most 1024) get the sum; `scratch` holds 32 numbers.
DEVICE float block_sum(float x, float *scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? scratch[lane] : 0.0f);
}

DEVICE float block_max(float x, float *scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    x = warp_max(x);
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    return warp_max(lane < warps ? scratch[lane] : -INFINITE);
}

// --- records that the host fills ---

// Rows of a pass that follow each other in one cache.
struct Run {
    int first;
    int count;
    int cache;
    // 1: their queries are kept.
    int queries;
};

// What one kv head of a cache holds; the rows of the pass count in `len`.
struct Slots {
    // [capacity, D] each
    void *keys;
    void *values;
    // Original positions, ascending [capacity].
    u32 *positions;
    // Column sums and newest rows of the group's query heads [group, capacity].
    float *received;
    float *row;
    // Added to logits, nats [capacity]; null for none.
    float *offsets;
    int len;
    int capacity;
};

// Of one row and head: columns of the attention probe.
enum Reduction { LSE = 0, ENTROPY = 1, FIRST = 2, RECENT = 3, DISTANCE = 4, MOST = 5, REDUCTIONS = 6 };
