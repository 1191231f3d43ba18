// Weights as numbers: rows of the token table, and whole matrices for products in floats. CPU twins: `embed` in
// src/backend/cpu/elementwise.rs, `dequantize` in src/backend/cpu/linear.rs. Bound by memory: each thread reads a block's
// scales and the codes of eight numbers, and writes these side by side.
#include "blocks.cuh"

// Stores the first `count` (at most 8) of x at `out`, in 16-byte pieces where its address allows.
DEVICE void store_eight(float *out, const float *x, int count) {
    if (count == 8 && (u64)out % 16 == 0) {
        Words *to = (Words *)out;
        to[0] = {__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3])};
        to[1] = {__float_as_uint(x[4]), __float_as_uint(x[5]), __float_as_uint(x[6]), __float_as_uint(x[7])};
        return;
    }
    for (int j = 0; j < 8; j++)
        if (j < count) out[j] = x[j];
}

DEVICE void store_eight(u16 *out, const u16 *x, int count) {
    if (count == 8 && (u64)out % 16 == 0) {
        *(Words *)out = {x[0] | (u32)x[1] << 16, x[2] | (u32)x[3] << 16, x[4] | (u32)x[5] << 16, x[6] | (u32)x[7] << 16};
        return;
    }
    for (int j = 0; j < 8; j++)
        if (j < count) out[j] = x[j];
}

// out[r] = table[tokens[r]] · scale. table [vocab][width] of `format`, tokens [rows], out [rows, width]; a token that the
// table does not have gives zeros. Grid: (⌈width / (8 · block)⌉, rows ≤ 65535); any block, 128 does.
KERNEL(embed)(const u8 *table, int format, int vocab, int width, const u32 *tokens, float scale, float *out) {
    int first = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (first >= width) return;
    u32 token = tokens[blockIdx.y];
    float x[8] = {};
    if (token < (u32)vocab) read_eight(table + token * row_bytes(format, width), format, width, first, x);
    for (int j = 0; j < 8; j++) x[j] *= scale;
    store_eight(out + (u64)blockIdx.y * width + first, x, min(8, width - first));
}
EXPORT(embed)

// out = weights, both [rows][width] row-major; `kind` of out as for caches: 0 f32, 1 f16 (beyond 65504: infinite), 2 bf16.
// `weights` is where the first wanted row begins. Grid: ⌈rows · ⌈width / 8⌉ / block⌉, which must be below 2³¹ threads;
// any block, 256 does.
KERNEL(dequantize)(const u8 *weights, int format, int rows, int width, int kind, void *out) {
    u32 each = (u32)(width + 7) / 8, i = blockIdx.x * blockDim.x + threadIdx.x, row = i / each;
    if (row >= (u32)rows) return;
    int first = (int)(i % each) * 8, count = min(8, width - first);
    float x[8];
    read_eight(weights + row * row_bytes(format, width), format, width, first, x);
    u64 at = (u64)row * width + first;
    if (kind == KV_F32) {
        store_eight((float *)out + at, x, count);
        return;
    }
    u16 bits[8];
    for (int j = 0; j < 8; j++) bits[j] = kind == KV_F16 ? f32_to_f16(x[j]) : f32_to_bf16(x[j]);
    store_eight((u16 *)out + at, bits, count);
}
EXPORT(dequantize)
