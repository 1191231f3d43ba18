// Inner products of few rows of activations with weights that stay quantised, shared by product*.cu and sampling.cu.
//
// A warp takes 256 numbers of a row of weights at a time, a step; a lane takes eight of them, four and four GAP further
// on, so that what it reads of the weights is one or two words and what it reads of the activations two vectors of four,
// whichever the format. A block of WARPS warps works on OUTS rows of weights at once: its warps take the steps in turn.
// What lanes and warps found is added in an order that neither the number of rows nor the format's alignment changes.
#pragma once
#include "scope.cuh"

#ifdef SCOPE_EMULATED
#define UNROLL
#else
#define UNROLL _Pragma("unroll")
#endif

#define WARPS 4
#define OUTS 4
#define STEP 256

struct alignas(16) Floats4 {
    float at[4];
};
struct alignas(16) Words4 {
    u32 at[4];
};
struct alignas(8) Halves4 {
    u16 at[4];
};

// 1 + n / 2^WIDTH, n the WIDTH bits from bit `at`: a shift and a logical operation where a conversion would be slow.
template <int WIDTH>
DEVICE float one_and(u32 bits, int at) {
    int up = 23 - WIDTH - at;
    return __uint_as_float(((up > 0 ? bits << up : bits >> -up) & (((1u << WIDTH) - 1) << (23 - WIDTH))) | 0x3f800000u);
}

DEVICE u16 half_at(const u8 *at) { return *(const u16 *)at; }

// Four bytes that are aligned to two.
DEVICE u32 word_at(const u8 *at) { return half_at(at) | (u32)half_at(at + 2) << 16; }

// --- what a lane holds of a step: `low` its first number, then load, then decode ---

// Plain numbers; `get` reads one at any alignment.
template <int FORMAT>
struct Part {
    static const int GAP = 128;
    static const int BYTES = FORMAT == F32 ? 4 : 2, NUMBERS = 1;
    static const bool PLAIN = true;
    Floats4 f[2];
    Halves4 h[2];

    DEVICE static int low(int step, int lane) { return step * STEP + lane * 4; }

    DEVICE static float of(u16 bits) { return FORMAT == F16 ? f16_to_f32(bits) : bf16_to_f32(bits); }

    DEVICE static float get(const u8 *row, int i) {
        if constexpr (FORMAT == F32) return ((const float *)row)[i];
        return of(((const u16 *)row)[i]);
    }

    DEVICE void load(const u8 *row, int step, int lane) {
        const u8 *at = row + (u64)low(step, lane) * BYTES;
        UNROLL for (int half = 0; half < 2; half++) {
            if constexpr (FORMAT == F32)
                f[half] = *(const Floats4 *)(at + half * GAP * BYTES);
            else
                h[half] = *(const Halves4 *)(at + half * GAP * BYTES);
        }
    }

    DEVICE void decode(int, float *w) const {
        UNROLL for (int i = 0; i < 8; i++) {
            if constexpr (FORMAT == F32)
                w[i] = f[i / 4].at[i % 4];
            else
                w[i] = of(h[i / 4].at[i % 4]);
        }
    }
};

// Blocks of 32: four lanes each, numbers 4j and 16 + 4j onwards.
template <int SIZE>
struct Block32 {
    static const int GAP = 16;
    static const int BYTES = SIZE, NUMBERS = 32;
    static const bool PLAIN = false;

    DEVICE static int low(int step, int lane) { return step * STEP + lane / 4 * 32 + lane % 4 * 4; }

    DEVICE static const u8 *block(const u8 *row, int step, int lane) {
        return row + (u64)(step * (STEP / 32) + lane / 4) * SIZE;
    }
};

// w = d (q − 8), q the low and then the high halves of 16 bytes. Exact: 16d (1 + q/16) − 24d.
template <>
struct Part<Q4_0> : Block32<18> {
    u32 q;
    u16 d;

    DEVICE void load(const u8 *row, int step, int lane) {
        const u8 *at = block(row, step, lane);
        d = half_at(at);
        q = word_at(at + 2 + lane % 4 * 4);
    }

    DEVICE void decode(int, float *w) const {
        float scale = f16_to_f32(d) * 16.0f, least = f16_to_f32(d) * -24.0f;
        UNROLL for (int i = 0; i < 8; i++) w[i] = fmaf(one_and<4>(q, i % 4 * 8 + i / 4 * 4), scale, least);
    }
};

// w = d q + m. Blocks are aligned to four bytes.
template <>
struct Part<Q4_1> : Block32<20> {
    u32 q, dm;

    DEVICE void load(const u8 *row, int step, int lane) {
        const u32 *at = (const u32 *)block(row, step, lane);
        dm = at[0];
        q = at[1 + lane % 4];
    }

    DEVICE void decode(int, float *w) const {
        float scale = f16_to_f32((u16)dm) * 16.0f, least = f16_to_f32((u16)(dm >> 16)) - scale;
        UNROLL for (int i = 0; i < 8; i++) w[i] = fmaf(one_and<4>(q, i % 4 * 8 + i / 4 * 4), scale, least);
    }
};

// w = d q, q signed bytes. Exact, b = q + 128: 256d (1 + b/256) − 384d.
template <>
struct Part<Q8_0> : Block32<34> {
    u32 q[2];
    u16 d;

    DEVICE void load(const u8 *row, int step, int lane) {
        const u8 *at = block(row, step, lane);
        d = half_at(at);
        UNROLL for (int half = 0; half < 2; half++) q[half] = word_at(at + 2 + lane % 4 * 4 + half * 16);
    }

    DEVICE void decode(int, float *w) const {
        float scale = f16_to_f32(d) * 256.0f, least = f16_to_f32(d) * -384.0f;
        UNROLL for (int i = 0; i < 8; i++)
            w[i] = fmaf(one_and<8>(q[i / 4] ^ 0x80808080u, i % 4 * 8), scale, least);
    }
};

// w = d sc q − dmin m, sc and m of 6 bits per 32 numbers; the halves of 32 bytes are two runs of 32 numbers. Blocks are
// aligned to 16 bytes: the head is one load, the same for the whole warp.
template <>
struct Part<Q4_K> {
    static const int GAP = 32;
    static const int BYTES = 144, NUMBERS = 256;
    static const bool PLAIN = false;
    Words4 head;
    u32 q;

    DEVICE static int low(int step, int lane) { return step * STEP + lane / 8 * 64 + lane % 8 * 4; }

    DEVICE void load(const u8 *row, int step, int lane) {
        const u8 *at = row + (u64)step * BYTES;
        head = *(const Words4 *)at;
        q = ((const u32 *)at)[4 + lane];
    }

    DEVICE void decode(int lane, float *w) const {
        float d = f16_to_f32((u16)head.at[0]), dmin = f16_to_f32((u16)(head.at[0] >> 16));
        // The scales and mins of runs 2g and 2g + 1. The first four lie in the low six bits of their bytes; the others
        // have their low four bits in the last word and their top two in the spare bits of the first two.
        int g = lane / 8, shift = g % 2 * 16;
        u32 a = head.at[1] >> shift, b = head.at[2] >> shift, c = head.at[3] >> shift;
        u32 scales = g < 2 ? a & 0x3f3fu : (c & 0x0f0fu) | (a >> 2 & 0x3030u);
        u32 mins = g < 2 ? b & 0x3f3fu : (c >> 4 & 0x0f0fu) | (b >> 2 & 0x3030u);
        UNROLL for (int half = 0; half < 2; half++) {
            float scale = d * 16.0f * (float)(scales >> half * 8 & 63);
            float least = fmaf(-dmin, (float)(mins >> half * 8 & 63), -scale);
            UNROLL for (int i = 0; i < 4; i++) w[half * 4 + i] = fmaf(one_and<4>(q, i * 8 + half * 4), scale, least);
        }
    }
};

// w = d sc (q − 32), q of 4 + 2 bits, sc a signed byte per 16 numbers. Exact: 256 s (1 + q/256) − 288 s, s = d sc.
template <>
struct Part<Q6_K> {
    static const int GAP = 64;
    static const int BYTES = 210, NUMBERS = 256;
    static const bool PLAIN = false;
    u32 lower, upper;
    i8 scales[2];
    u16 d;

    DEVICE static int low(int step, int lane) { return step * STEP + lane / 16 * 128 + lane % 16 * 4; }

    DEVICE void load(const u8 *row, int step, int lane) {
        const u8 *at = row + (u64)step * BYTES;
        int half = lane / 16, p = lane % 16;
        lower = word_at(at + half * 64 + p * 4);
        upper = word_at(at + 128 + half * 32 + p % 8 * 4);
        UNROLL for (int i = 0; i < 2; i++) scales[i] = (i8)at[192 + half * 8 + p / 4 + i * 4];
        d = half_at(at + 208);
    }

    DEVICE void decode(int lane, float *w) const {
        // of each byte of `upper`: bits 0, 1 and 4, 5 are of lanes 0 to 7 of a half, the others of lanes 8 to 15
        u32 top = upper >> lane % 16 / 8 * 2;
        u32 q[2] = {(lower & 0x0f0f0f0fu) | (top & 0x03030303u) << 4, (lower >> 4 & 0x0f0f0f0fu) | (top & 0x30303030u)};
        UNROLL for (int half = 0; half < 2; half++) {
            float scale = f16_to_f32(d) * (float)scales[half];
            UNROLL for (int i = 0; i < 4; i++)
                w[half * 4 + i] = fmaf(one_and<8>(q[half], i * 8), scale * 256.0f, scale * -288.0f);
        }
    }
};

// --- steps ---

template <int FORMAT>
DEVICE u64 row_bytes(int in) {
    return (u64)(in / Part<FORMAT>::NUMBERS) * Part<FORMAT>::BYTES;
}

// That a lane's eight numbers are there and aligned.
template <int FORMAT>
DEVICE bool is_whole(int in, int step, int lane) {
    int low = Part<FORMAT>::low(step, lane);
    return Part<FORMAT>::PLAIN ? in % 4 == 0 && low + Part<FORMAT>::GAP < in : low < in;
}

// A lane's eight weights; 0 beyond the end. `whole`: as `is_whole` says.
template <int FORMAT>
DEVICE void weights8(const u8 *row, int in, bool whole, int step, int lane, float *w) {
    typedef Part<FORMAT> P;
    if (whole) {
        P part;
        part.load(row, step, lane);
        part.decode(lane, w);
        return;
    }
    UNROLL for (int i = 0; i < 8; i++) {
        w[i] = 0.0f;
        int at = P::low(step, lane) + i / 4 * P::GAP + i % 4;
        if constexpr (P::PLAIN)
            if (at < in) w[i] = P::get(row, at);
    }
}

// The activations that belong to them.
template <int FORMAT>
DEVICE void inputs8(const float *x, int in, bool whole, int step, int lane, float *y) {
    typedef Part<FORMAT> P;
    UNROLL for (int half = 0; half < 2; half++) {
        int low = P::low(step, lane) + half * P::GAP;
        if (whole) {
            Floats4 four = *(const Floats4 *)(x + low);
            UNROLL for (int i = 0; i < 4; i++) y[half * 4 + i] = four.at[i];
        } else {
            UNROLL for (int i = 0; i < 4; i++) y[half * 4 + i] = P::PLAIN && low + i < in ? x[low + i] : 0.0f;
        }
    }
}

// sum[r][o] += this lane's part of x[r] · row[o] in one step.
template <int FORMAT, int ROWS>
DEVICE void add_step(const float *x, int rows, int in, const u8 *const *row, bool whole, int step, int lane, float *sum) {
    float w[OUTS][8];
    UNROLL for (int o = 0; o < OUTS; o++) weights8<FORMAT>(row[o], in, whole, step, lane, w[o]);
    UNROLL for (int r = 0; r < ROWS; r++) {
        float y[8];
        inputs8<FORMAT>(x + min(r, rows - 1) * in, in, whole, step, lane, y);
        UNROLL for (int o = 0; o < OUTS; o++)
            UNROLL for (int i = 0; i < 8; i++) sum[r * OUTS + o] = fmaf(w[o][i], y[i], sum[r * OUTS + o]);
    }
}

// The warp's part of x[r] · weights[first + o], each lane its own; rows of weights from `outs` on read the last one.
template <int FORMAT, int ROWS>
DEVICE void add_dots(const float *x, int rows, int in, const u8 *weights, int first, int outs, float *sum) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u8 *row[OUTS];
    UNROLL for (int o = 0; o < OUTS; o++) row[o] = weights + (u64)min(first + o, outs - 1) * row_bytes<FORMAT>(in);
    int steps = (in + STEP - 1) / STEP, full = Part<FORMAT>::PLAIN && in % 4 != 0 ? 0 : in / STEP, step = warp;
#ifndef SCOPE_EMULATED
#pragma unroll(ROWS <= 4 ? 2 : 1)
#endif
    for (; step < full; step += WARPS) add_step<FORMAT, ROWS>(x, rows, in, row, true, step, lane, sum);
    // Of the last step only some lanes have numbers; plain ones may end anywhere.
    if constexpr (Part<FORMAT>::NUMBERS < STEP)
        for (; step < steps; step += WARPS)
            if (Part<FORMAT>::low(step, lane) < in)
                add_step<FORMAT, ROWS>(x, rows, in, row, !Part<FORMAT>::PLAIN, step, lane, sum);
}

// Sums over the lanes of a warp of N numbers, halving what a lane holds as long as it holds more than one: N = 64 takes 62
// exchanges, not 320. A lane ends with max(1, N / 32) sums; returns which is the first.
template <int N, int FAR>
DEVICE int fold(float *v, int lane) {
    if constexpr (FAR == 0) {
        return 0;
    } else if constexpr (N == 1) {
        v[0] += __shfl_xor_sync(ALL, v[0], FAR);
        return fold<1, FAR / 2>(v, lane);
    } else {
        bool upper = lane & FAR;
        UNROLL for (int i = 0; i < N / 2; i++) {
            float other = __shfl_xor_sync(ALL, upper ? v[i] : v[i + N / 2], FAR);
            v[i] = (upper ? v[i + N / 2] : v[i]) + other;
        }
        return (upper ? N / 2 : 0) + fold<N / 2, FAR / 2>(v, lane);
    }
}

// Floats of shared memory that `block_dots` needs.
#define DOTS_SCRATCH(ROWS) (WARPS * (ROWS) * OUTS)

// For a block of WARPS · 32 threads, all of it: thread t < ROWS · OUTS gets x[t / OUTS] · weights[first + t % OUTS].
// x [rows, in] with rows <= ROWS, aligned to 16 bytes where in % 4 = 0.
template <int ROWS>
DEVICE float block_dots(const float *x, int rows, int in, const void *weights, int format, int first, int outs,
                        float *scratch) {
    const int N = ROWS * OUTS, t = threadIdx.x;
    const u8 *w = (const u8 *)weights;
    float sum[N];
    UNROLL for (int i = 0; i < N; i++) sum[i] = 0.0f;
    switch (format) {
        case F32: add_dots<F32, ROWS>(x, rows, in, w, first, outs, sum); break;
        case F16: add_dots<F16, ROWS>(x, rows, in, w, first, outs, sum); break;
        case BF16: add_dots<BF16, ROWS>(x, rows, in, w, first, outs, sum); break;
        case Q4_0: add_dots<Q4_0, ROWS>(x, rows, in, w, first, outs, sum); break;
        case Q4_1: add_dots<Q4_1, ROWS>(x, rows, in, w, first, outs, sum); break;
        case Q8_0: add_dots<Q8_0, ROWS>(x, rows, in, w, first, outs, sum); break;
        case Q4_K: add_dots<Q4_K, ROWS>(x, rows, in, w, first, outs, sum); break;
        case Q6_K: add_dots<Q6_K, ROWS>(x, rows, in, w, first, outs, sum); break;
    }
    int lane = t % 32, held = fold<N, 16>(sum, lane);
    __syncthreads();
    if (lane % (N < 32 ? 32 / N : 1) == 0)
        UNROLL for (int i = 0; i < (N > 32 ? N / 32 : 1); i++) scratch[t / 32 * N + held + i] = sum[i];
    __syncthreads();
    float total = 0.0f;
    if (t < N) UNROLL for (int warp = 0; warp < WARPS; warp++) total += scratch[warp * N + t];
    return total;
}

// out[r, column] (+)= value (+ bias[o]).
DEVICE void put(float *out, int width, int r, int column, float value, const float *bias, int o, int add) {
    float *to = out + (u64)r * width + column;
    if (bias) value += bias[o];
    *to = add ? *to + value : value;
}
