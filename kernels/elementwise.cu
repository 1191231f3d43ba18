// Sums, biases, the softcap of logits, numbers as sums of bf16 ones. CPU twins: `matmul` with `add` and `bias` in
// src/backend/cpu/matmul_op.rs, `softcap` in src/backend/cpu/elementwise.rs; the last is for cuBLAS alone. One number a thread, neighbours side by side; bound by memory where there
// are many, by the launch where there are few. Any block; 256 does.
#include "scope.cuh"

// out += x; both [count], count < 2³¹ − block. Grid: ⌈count / block⌉.
KERNEL(add)(float *out, const float *x, int count) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < (u32)count) out[i] += x[i];
}
EXPORT(add)

// out[r] += bias; out [rows, width], bias [width]. Grid: (⌈width / block⌉, rows ≤ 65535).
KERNEL(add_bias)(float *out, const float *bias, int width) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < width) out[(u64)blockIdx.y * width + i] += bias[i];
}
EXPORT(add_bias)

// x = cap · tanh(x / cap); x [count], count < 2³¹ − block, cap > 0. Grid: ⌈count / block⌉.
KERNEL(softcap)(float *x, float cap, int count) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < (u32)count) x[i] = cap * tanhf(x[i] / cap);
}
EXPORT(softcap)

// x = out[0] + out[1] + out[2], exactly where |x| is 2^-102 or more; below, the last are rounded. x [count], out [3, count]
// in bf16, count < 2³¹ − block. Grid: ⌈count / block⌉.
KERNEL(split_bf16)(const float *x, u16 *out, int count) {
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (u32)count) return;
    float rest = x[i];
    for (int term = 0; term < 3; term++) {
        u16 bits = f32_to_bf16(rest);
        out[(u64)term * count + i] = bits;
        rest -= bf16_to_f32(bits);
    }
}
EXPORT(split_bf16)
