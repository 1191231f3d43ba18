// What interventions do to rows of activations. CPU twin: `alter` in src/backend/cpu/alter.rs. One number a thread,
// neighbours side by side; bound by the launch. Any block; 256 does.
#include "scope.cuh"

// x[first + r, from + c] = value; x [rows of the pass, width]. Grid: (⌈count / block⌉, rows ≤ 65535).
KERNEL(alter_set)(float *x, int width, int first, int from, int count, float value) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c < count) x[(u64)(first + blockIdx.y) * width + from + c] = value;
}
EXPORT(alter_set)

// x[first + r] = the nearest f16 (half != 0) or bf16, as f32. Grid: (⌈width / block⌉, rows ≤ 65535).
KERNEL(alter_round)(float *x, int width, int first, int half) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= width) return;
    float *at = x + (u64)(first + blockIdx.y) * width + c;
    *at = half ? f16_to_f32(f32_to_f16(*at)) : bf16_to_f32(f32_to_bf16(*at));
}
EXPORT(alter_round)

// to[first + r] = x[first + r]; both [rows of the pass, width]. Grid: (⌈width / block⌉, rows ≤ 65535).
KERNEL(alter_copy)(const float *x, float *to, int width, int first) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    u64 at = (u64)(first + blockIdx.y) * width + c;
    if (c < width) to[at] = x[at];
}
EXPORT(alter_copy)

// x[first + r] = from + by · (x − from), from itself where by is 0. Grid: (⌈width / block⌉, rows ≤ 65535).
KERNEL(alter_between)(float *x, const float *from, int width, int first, float by) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    u64 at = (u64)(first + blockIdx.y) * width + c;
    if (c < width) x[at] = by == 0.0f ? from[at] : fmaf(by, x[at] - from[at], from[at]);
}
EXPORT(alter_between)
