// Products of many rows of activations with weights that stay quantised, on tensor cores: out[r, first + o] (+)=
// x[r] · w[o] (+ bias[o]). CPU twin: src/backend/cpu/matmul/, as of product.cu.
//
// product_tensor_32, product_tensor_128(x, rows, in, weights, format, outs, bias, out, width, first, add): as product_many
//   _32: tiles of 32 rows × 64 outs. Grid: (⌈outs / 64⌉, ⌈rows / 32⌉); block: 128; shared: 24576 bytes
//   _128: tiles of 128 rows × 128 outs. Grid: (⌈outs / 128⌉, ⌈rows / 128⌉); block: 256; shared: 65536 bytes
//   Both give the same bits for a row, whatever the other rows are. Bound by arithmetic (the tensor cores) from some 200
//   rows on, below by the reads of the weights; _32 is for passes whose tiles of 128 would leave multiprocessors idle.
//
// Numbers go into TF32 as high + low. Weights in F16 and BF16 are exact in one: two products, high and low of x; others
// take three, without low · low. |error| <= (2^-21 + in · 2^-27 + r) Σ|x · w|, r what the tensor cores cut off when they
// add 24 products: each such sum starts at 0 and is added to the rest in f32, so that their rounding does not pile up.
#include "dot.cuh"
#include "mma.cuh"

#define DEPTH 32

// ROWS × OUTS of a block; WARP_ROWS × WARP_OUTS of each of its warps.
template <int ROWS_, int OUTS_, int WARP_ROWS_, int WARP_OUTS_>
struct Tile {
    static const int ROWS = ROWS_, COLUMNS = OUTS_, WARP_ROWS = WARP_ROWS_, WARP_COLUMNS = WARP_OUTS_;
    static const int ACROSS = COLUMNS / WARP_COLUMNS, THREADS = ROWS / WARP_ROWS * ACROSS * 32;
    // Lines that the threads bring at a time, four threads each.
    static const int LINES = THREADS / 4;
    // Products of 16 × 8 in a warp's part.
    static const int M = WARP_ROWS / 16, N = WARP_COLUMNS / 8;
    // Floats of a chunk: x and then w.
    static const int CHUNK = (ROWS + COLUMNS) * DEPTH;
};

// A line of a chunk is 32 numbers in any order, the same for x and w: four lanes of a step (dot.cuh) with eight numbers
// each, their first four in one half of the line, the others in the other. In odd lines the halves change places: then
// eight threads that store or load 16 bytes each, in two lines, meet in no bank.
DEVICE int place(int line, int half, int part) { return line * DEPTH + (half ^ (line & 1)) * 16 + part * 4; }

DEVICE void store_line(float *to, int line, int part, const float *x) {
    UNROLL for (int half = 0; half < 2; half++) {
        Floats4 four;
        UNROLL for (int i = 0; i < 4; i++) four.at[i] = x[half * 4 + i];
        *(Floats4 *)(to + place(line, half, part)) = four;
    }
}

// sum[m][n] += a warp's part of one chunk. Of four numbers that a lane loads, two belong to a product of depth 8.
template <class T, bool EXACT>
DEVICE void add_chunk(const float *x, const float *w, float (*sum)[T::N][4]) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
// one half after the other: 192 products at once would not fit into the registers
#ifndef SCOPE_EMULATED
#pragma unroll 1
#endif
    for (int half = 0; half < 2; half++) {
        u32 high[T::N][4], low[T::N][4];
        UNROLL for (int n = 0; n < T::N; n++) {
            Floats4 b = *(const Floats4 *)(w + place(n * 8 + g, half, t));
            UNROLL for (int k = 0; k < 4; k++) {
                if constexpr (EXACT) {
                    high[n][k] = __float_as_uint(b.at[k]);
                } else {
                    Halves halves = split(b.at[k]);
                    high[n][k] = halves.high;
                    low[n][k] = halves.low;
                }
            }
        }
        UNROLL for (int m = 0; m < T::M; m++) {
            Floats4 a[2];
            UNROLL for (int i = 0; i < 2; i++) a[i] = *(const Floats4 *)(x + place(m * 16 + i * 8 + g, half, t));
            UNROLL for (int pair = 0; pair < 4; pair += 2) {
                u32 upper[4], lower[4];
                UNROLL for (int i = 0; i < 4; i++) {
                    Halves halves = split(a[i % 2].at[pair + i / 2]);
                    upper[i] = halves.high;
                    lower[i] = halves.low;
                }
                UNROLL for (int n = 0; n < T::N; n++) {
                    float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                    mma_16x8x8(c, lower, high[n] + pair);
                    if constexpr (!EXACT) mma_16x8x8(c, upper, low[n] + pair);
                    mma_16x8x8(c, upper, high[n] + pair);
                    UNROLL for (int i = 0; i < 4; i++) sum[m][n][i] += c[i];
                }
            }
        }
    }
}

// What a thread brings of a chunk: loaded before the chunk before it is worked on, decoded after.
template <class T, int FORMAT>
struct Brought {
    static const int X = T::ROWS / T::LINES, W = T::COLUMNS / T::LINES;
    typedef Part<FORMAT> P;
    float x[X][8];
    P w[W];
    int step, lane;
    bool whole;

    DEVICE void load(const float *from_x, int rows, int in, const u8 *from_w, int outs, int chunk) {
        int line = threadIdx.x / 4;
        step = chunk / 8;
        lane = chunk % 8 * 4 + threadIdx.x % 4;
        whole = is_whole<FORMAT>(in, step, lane);
        UNROLL for (int i = 0; i < X; i++) {
            int r = min((int)blockIdx.y * T::ROWS + i * T::LINES + line, rows - 1);
            inputs8<FORMAT>(from_x + (u64)r * in, in, whole, step, lane, x[i]);
        }
        if (whole) UNROLL for (int i = 0; i < W; i++) w[i].load(row(from_w, in, outs, i), step, lane);
    }

    DEVICE void store(float *to, int in, const u8 *from_w, int outs) const {
        int line = threadIdx.x / 4, part = threadIdx.x % 4;
        UNROLL for (int i = 0; i < X; i++) store_line(to, i * T::LINES + line, part, x[i]);
        UNROLL for (int i = 0; i < W; i++) {
            float numbers[8];
            if (whole)
                w[i].decode(lane, numbers);
            else
                weights8<FORMAT>(row(from_w, in, outs, i), in, false, step, lane, numbers);
            store_line(to + T::ROWS * DEPTH, i * T::LINES + line, part, numbers);
        }
    }

    // Rows of weights from `outs` on read the last one.
    DEVICE static const u8 *row(const u8 *w, int in, int outs, int i) {
        int o = min((int)blockIdx.x * T::COLUMNS + i * T::LINES + (int)threadIdx.x / 4, outs - 1);
        return w + (u64)o * row_bytes<FORMAT>(in);
    }
};

template <class T, int FORMAT>
DEVICE void add_all(const float *x, int rows, int in, const u8 *w, int outs, float *shared, float (*sum)[T::N][4]) {
    const bool EXACT = FORMAT == F16 || FORMAT == BF16;
    int warp = threadIdx.x / 32, first_x = warp / T::ACROSS * T::WARP_ROWS, first_w = warp % T::ACROSS * T::WARP_COLUMNS;
    int end = (in + STEP - 1) / STEP * 8;
    Brought<T, FORMAT> next;
    next.load(x, rows, in, w, outs, 0);
    for (int chunk = 0, turn = 0; chunk < end; turn ^= 1) {
        float *now = shared + turn * T::CHUNK;
        next.store(now, in, w, outs);
        __syncthreads();
        // A chunk that begins beyond the end is empty, and so are those after it in its step.
        do chunk++;
        while (chunk < end && Part<FORMAT>::low(chunk / 8, chunk % 8 * 4) >= in);
        if (chunk < end) next.load(x, rows, in, w, outs, chunk);
        add_chunk<T, EXACT>(now + first_x * DEPTH, now + (T::ROWS + first_w) * DEPTH, sum);
    }
}

template <class T>
DEVICE void product_tensor(const float *x, int rows, int in, const void *weights, int format, int outs, const float *bias,
                           float *out, int width, int first, int add, float *shared) {
    const u8 *w = (const u8 *)weights;
    float sum[T::M][T::N][4];
    UNROLL for (int i = 0; i < T::M * T::N * 4; i++) sum[i / 4 / T::N][i / 4 % T::N][i % 4] = 0.0f;
    switch (format) {
        case F32: add_all<T, F32>(x, rows, in, w, outs, shared, sum); break;
        case F16: add_all<T, F16>(x, rows, in, w, outs, shared, sum); break;
        case BF16: add_all<T, BF16>(x, rows, in, w, outs, shared, sum); break;
        case Q4_0: add_all<T, Q4_0>(x, rows, in, w, outs, shared, sum); break;
        case Q4_1: add_all<T, Q4_1>(x, rows, in, w, outs, shared, sum); break;
        case Q8_0: add_all<T, Q8_0>(x, rows, in, w, outs, shared, sum); break;
        case Q4_K: add_all<T, Q4_K>(x, rows, in, w, outs, shared, sum); break;
        case Q6_K: add_all<T, Q6_K>(x, rows, in, w, outs, shared, sum); break;
    }
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int row = blockIdx.y * T::ROWS + warp / T::ACROSS * T::WARP_ROWS + lane / 4;
    int column = blockIdx.x * T::COLUMNS + warp % T::ACROSS * T::WARP_COLUMNS + lane % 4 * 2;
    UNROLL for (int m = 0; m < T::M; m++)
        UNROLL for (int n = 0; n < T::N; n++)
            UNROLL for (int i = 0; i < 4; i++) {
                int r = row + m * 16 + i / 2 * 8, o = column + n * 8 + i % 2;
                if (r < rows && o < outs) put(out, width, r, first + o, sum[m][n][i], bias, o, add);
            }
}

#define PRODUCT_TENSOR(TILE)                                                                                            \
    (const float *x, int rows, int in, const void *weights, int format, int outs, const float *bias, float *out,        \
     int width, int first, int add) {                                                                                   \
        DYNAMIC_SHARED(float, shared);                                                                                  \
        product_tensor<TILE>(x, rows, in, weights, format, outs, bias, out, width, first, add, shared);                 \
    }

typedef Tile<32, 64, 32, 16> Small;
typedef Tile<128, 128, 64, 32> Large;

KERNEL(product_tensor_32) PRODUCT_TENSOR(Small)
EXPORT(product_tensor_32)
KERNEL(product_tensor_128) PRODUCT_TENSOR(Large)
EXPORT(product_tensor_128)
