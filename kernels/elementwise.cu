// Sums, biases and the softcap of logits. CPU twins: `matmul` with `add` and `bias` in src/backend/cpu/matmul_op.rs,
// `softcap` in src/backend/cpu/elementwise.rs. One number a thread, neighbours side by side; bound by memory where there
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
