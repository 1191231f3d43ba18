// Products of activations with weights that stay quantised: out[r, first + o] (+)= x[r] · w[o] (+ bias[o]).
// CPU twin: src/backend/cpu/matmul/ (there activations are rounded to 8 bits for quantised weights; here they stay f32).
//
// product_1, _2, _4, _8, _16(x, rows, in, weights, format, outs, bias, out, width, first, add): up to so many rows at once
//   x [rows, in], aligned to 16 bytes; weights [outs][in / block] in `format`, blocks of the K formats need in % 256 = 0,
//   the others in % 32 = 0, plain numbers any `in`; bias [outs] or null; out [rows, width], columns first … first + outs;
//   add 0: written, 1: added to what is there. Grid: ⌈outs / 4⌉; block: 128.
//   The numbers of a row are the same bits in all five, whatever the other rows are. Bound by memory: a weight is read once
//   for all rows and decoded in registers; from 8 rows on, by the reads of x, which four rows of weights share.
// product_many(x, rows, in, weights, format, outs, bias, out, width, first, add): the same for many rows
//   Grid: (⌈outs / 64⌉, ⌈rows / 64⌉); block: 256. Tiles of 64 × 64 × 32 in shared memory, decoded on the way in. Bound by
//   arithmetic in f32. A row's numbers do not depend on other rows, but their last bits differ from product_*'s.
#include "dot.cuh"

template <int ROWS>
DEVICE void product(const float *x, int rows, int in, const void *weights, int format, int outs, const float *bias,
                    float *out, int width, int first, int add) {
    __shared__ float scratch[DOTS_SCRATCH(ROWS)];
    int t = threadIdx.x, r = t / OUTS, o = blockIdx.x * OUTS + t % OUTS;
    float value = block_dots<ROWS>(x, rows, in, weights, format, blockIdx.x * OUTS, outs, scratch);
    if (r < min(rows, ROWS) && o < outs) put(out, width, r, first + o, value, bias, o, add);
}

// Arguments and body of a kernel for so many rows.
#define PRODUCT(ROWS)                                                                                             \
    (const float *x, int rows, int in, const void *weights, int format, int outs, const float *bias, float *out,  \
     int width, int first, int add) {                                                                             \
        product<ROWS>(x, rows, in, weights, format, outs, bias, out, width, first, add);                          \
    }

KERNEL(product_1) PRODUCT(1)
EXPORT(product_1)
KERNEL(product_2) PRODUCT(2)
EXPORT(product_2)
KERNEL(product_4) PRODUCT(4)
EXPORT(product_4)
KERNEL(product_8) PRODUCT(8)
EXPORT(product_8)
KERNEL(product_16) PRODUCT(16)
EXPORT(product_16)

#define TILE 64
#define DEPTH 32

// One chunk in shared memory [depth][row], the rows turned so that neither filling nor reading meets in a bank.
struct alignas(16) Chunk {
    float x[DEPTH * TILE];
    float w[DEPTH * TILE];
};

// A chunk is the numbers of four lanes of a step, so that decoding is the same as for few rows. Thread t brings those of
// lane t % 4 for row t / 4 of both tiles.
template <int FORMAT>
DEVICE void many(const float *x, int rows, int in, const u8 *weights, int outs, Chunk *chunks, float (*sum)[4]) {
    int t = threadIdx.x, part = t % 4, line = t / 4;
    const float *from_x = x + (u64)min(blockIdx.y * TILE + line, (u32)rows - 1) * in;
    const u8 *from_w = weights + (u64)min(blockIdx.x * TILE + line, (u32)outs - 1) * row_bytes<FORMAT>(in);
    float bring_x[8], bring_w[8];
    auto bring = [&](int chunk) {
        int step = chunk / 8, lane = chunk % 8 * 4 + part;
        bool whole = is_whole<FORMAT>(in, step, lane);
        weights8<FORMAT>(from_w, in, whole, step, lane, bring_w);
        inputs8<FORMAT>(from_x, in, whole, step, lane, bring_x);
    };
    // A chunk that begins beyond the end is empty, and so are those after it in its step.
    auto next = [&](int chunk) {
        while (chunk < (in + STEP - 1) / STEP * 8 && Part<FORMAT>::low(chunk / 8, chunk % 8 * 4) >= in) chunk++;
        return chunk;
    };
    int end = (in + STEP - 1) / STEP * 8;
    bring(0);
    for (int chunk = 0, turn = 0; chunk < end; turn ^= 1) {
        Chunk &now = chunks[turn];
        UNROLL for (int i = 0; i < 8; i++) {
            int at = (part * 8 + i) * TILE + (line ^ part * 8);
            now.x[at] = bring_x[i];
            now.w[at] = bring_w[i];
        }
        __syncthreads();
        chunk = next(chunk + 1);
        if (chunk < end) bring(chunk);
        UNROLL for (int k = 0; k < DEPTH; k++) {
            Floats4 a = *(const Floats4 *)&now.x[k * TILE + (t / 16 * 4 ^ k / 8 * 8)];
            Floats4 b = *(const Floats4 *)&now.w[k * TILE + (t % 16 * 4 ^ k / 8 * 8)];
            UNROLL for (int r = 0; r < 4; r++)
                UNROLL for (int o = 0; o < 4; o++) sum[r][o] = fmaf(a.at[r], b.at[o], sum[r][o]);
        }
    }
}

KERNEL(product_many)
(const float *x, int rows, int in, const void *weights, int format, int outs, const float *bias, float *out, int width,
 int first, int add) {
    __shared__ Chunk chunks[2];
    const u8 *w = (const u8 *)weights;
    float sum[4][4];
    UNROLL for (int i = 0; i < 16; i++) sum[i / 4][i % 4] = 0.0f;
    switch (format) {
        case F32: many<F32>(x, rows, in, w, outs, chunks, sum); break;
        case F16: many<F16>(x, rows, in, w, outs, chunks, sum); break;
        case BF16: many<BF16>(x, rows, in, w, outs, chunks, sum); break;
        case Q4_0: many<Q4_0>(x, rows, in, w, outs, chunks, sum); break;
        case Q4_1: many<Q4_1>(x, rows, in, w, outs, chunks, sum); break;
        case Q8_0: many<Q8_0>(x, rows, in, w, outs, chunks, sum); break;
        case Q4_K: many<Q4_K>(x, rows, in, w, outs, chunks, sum); break;
        case Q6_K: many<Q6_K>(x, rows, in, w, outs, chunks, sum); break;
    }
    UNROLL for (int i = 0; i < 16; i++) {
        int r = blockIdx.y * TILE + threadIdx.x / 16 * 4 + i / 4, o = blockIdx.x * TILE + threadIdx.x % 16 * 4 + i % 4;
        if (r < rows && o < outs) put(out, width, r, first + o, sum[i / 4][i % 4], bias, o, add);
    }
}
EXPORT(product_many)
