// RMS norms of rows and statistics of the residual stream. CPU twins: `rms_norm`, `add_rms_norm` and `residual_point` in
// src/backend/cpu/elementwise.rs, `row_stats` in src/backend/cpu/stats.rs.
//
// Grid: rows; block: a multiple of 32, at most 1024 (1024 where rows are few, 256 where they fill the card). One block has
// one row, each thread the channels i ≡ thread (mod block), so that out may be x. A few rows are bound by latency (some
// 20 barriers with statistics, 3 without), many by memory: what is read again comes from L1.
//
// Where `stats` [rows, 5] is not null it gets l2, rms, absmax, median of |x| and the channel of absmax (first of equals; the
// bits of a u32) of x as read (rms_norm, row_stats) or as written (add_rms_norm). Where `copy`
// [rows − first_copied, width] is not null it gets that x of the rows from `first_copied` on. width ≥ 1.
#include "scope.cuh"

#define BINS 2048

// Loads of four steps at once.
#ifdef SCOPE_EMULATED
#define UNROLL
#else
#define UNROLL _Pragma("unroll 4")
#endif

// Sum over the threads before this one; `scratch` holds 32 numbers.
DEVICE u32 sum_before(u32 own, u32 *scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 sum = own;
    for (int far = 1; far < 32; far *= 2) {
        u32 other = __shfl_up_sync(ALL, sum, far);
        if (lane >= far) sum += other;
    }
    __syncthreads();
    if (lane == 31) scratch[warp] = sum;
    __syncthreads();
    u32 before = lane < warp ? scratch[lane] : 0;
    for (int far = 16; far > 0; far /= 2) before += __shfl_xor_sync(ALL, before, far);
    return before + sum - own;
}

// Largest of a block; `scratch` holds 32 numbers.
DEVICE u64 largest(u64 x, u64 *scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (int far = 16; far > 0; far /= 2) x = max(x, __shfl_xor_sync(ALL, x, far));
    __syncthreads();
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = lane < warps ? scratch[lane] : 0;
    for (int far = 16; far > 0; far /= 2) x = max(x, __shfl_xor_sync(ALL, x, far));
    return x;
}

DEVICE u32 magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

// Median of |x|, the mean of the middle two where width is even: radix selection on bit patterns, which order as the
// numbers do, by digits of 11, 10 and 10 bits. Counts are whole numbers, so the order of the atomics does not show.
DEVICE float median(const float *x, int width, float *scratch) {
    __shared__ u32 bins[BINS];
    __shared__ u32 sums[32];
    __shared__ u32 found[3];
    int thread = threadIdx.x, threads = blockDim.x;
    u32 rank = (u32)(width - 1) / 2, prefix = 0, equal = 0;
    for (int bits = 11, shift = 20; shift >= 0; bits = 10, shift -= 10) {
        int count = 1 << bits, each = (count + threads - 1) / threads;
        for (int i = thread; i < count; i += threads) bins[i] = 0;
        __syncthreads();
        UNROLL for (int i = thread; i < width; i += threads) {
            u32 a = magnitude(x[i]);
            if (a >> (shift + bits) == prefix) atomicAdd(&bins[a >> shift & (count - 1)], 1u);
        }
        __syncthreads();
        int first = min(thread * each, count), end = min(first + each, count);
        u32 own = 0;
        for (int i = first; i < end; i++) own += bins[i];
        u32 before = sum_before(own, sums);
        // one thread has the bin with this rank
        if (rank >= before && rank - before < own) {
            u32 left = rank - before;
            int i = first;
            while (left >= bins[i]) left -= bins[i++];
            found[0] = (u32)i;
            found[1] = left;
            found[2] = bins[i];
        }
        __syncthreads();
        prefix = prefix << bits | found[0];
        rank = found[1];
        equal = found[2];
    }
    float lower = __uint_as_float(prefix);
    if (width % 2 == 1 || rank + 1 < equal) return lower;
    float negative = -INFINITE;
    for (int i = thread; i < width; i += threads) {
        float a = fabsf(x[i]);
        if (a > lower) negative = fmaxf(negative, -a);
    }
    return (lower - block_max(negative, scratch)) / 2.0f;
}

// Sum of squares of a row, the same in all threads.
DEVICE float squares_of(const float *x, int width, float *scratch) {
    float sum = 0.0f;
    UNROLL for (int i = threadIdx.x; i < width; i += blockDim.x) sum = fmaf(x[i], x[i], sum);
    return block_sum(sum, scratch);
}

DEVICE void put_stats(const float *x, int width, float squares, float *scratch, float *stats) {
    __shared__ u64 keys[32];
    // the larger key of equals is that of the first channel
    u64 key = 0;
    UNROLL for (int i = threadIdx.x; i < width; i += blockDim.x) key = max(key, (u64)magnitude(x[i]) << 32 | ~(u32)i);
    key = largest(key, keys);
    float middle = median(x, width, scratch);
    if (threadIdx.x == 0) {
        stats[0] = sqrtf(squares);
        stats[1] = sqrtf(squares / (float)width);
        stats[2] = __uint_as_float((u32)(key >> 32));
        stats[3] = middle;
        stats[4] = __uint_as_float(~(u32)key);
    }
}

DEVICE void put_copy(const float *x, int width, float *copy, int first_copied) {
    int row = (int)blockIdx.x - first_copied;
    if (row < 0) return;
    UNROLL for (int i = threadIdx.x; i < width; i += blockDim.x) copy[(u64)row * width + i] = x[i];
}

DEVICE float scale_of(float squares, int width, float eps) { return 1.0f / sqrtf(squares / (float)width + eps); }

// out = x / √(mean x² + eps) · weight; x, out [rows, width], weight [width].
KERNEL(rms_norm)(const float *x, const float *weight, float eps, int width, float *out, float *stats, float *copy,
                 int first_copied) {
    __shared__ float scratch[32];
    const float *row = x + (u64)blockIdx.x * width;
    float squares = squares_of(row, width, scratch);
    // before out, which may be x, is written; each thread reads its own channels only
    if (stats) put_stats(row, width, squares, scratch, stats + (u64)blockIdx.x * 5);
    if (copy) put_copy(row, width, copy, first_copied);
    float scale = scale_of(squares, width, eps);
    float *to = out + (u64)blockIdx.x * width;
    UNROLL for (int i = threadIdx.x; i < width; i += blockDim.x) to[i] = row[i] * scale * __ldg(weight + i);
}
EXPORT(rms_norm)

// x += y / √(mean y² + eps) · weight; x, y [rows, width], weight [width].
KERNEL(add_rms_norm)(float *x, const float *y, const float *weight, float eps, int width, float *stats, float *copy,
                     int first_copied) {
    __shared__ float scratch[32];
    float *row = x + (u64)blockIdx.x * width;
    const float *from = y + (u64)blockIdx.x * width;
    float scale = scale_of(squares_of(from, width, scratch), width, eps), squares = 0.0f;
    UNROLL for (int i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = row[i] + from[i] * scale * __ldg(weight + i);
        row[i] = sum;
        squares = fmaf(sum, sum, squares);
    }
    if (stats) put_stats(row, width, block_sum(squares, scratch), scratch, stats + (u64)blockIdx.x * 5);
    if (copy) put_copy(row, width, copy, first_copied);
}
EXPORT(add_rms_norm)

// Statistics and copy alone; x [rows, width].
KERNEL(row_stats)(const float *x, int width, float *stats, float *copy, int first_copied) {
    __shared__ float scratch[32];
    const float *row = x + (u64)blockIdx.x * width;
    if (stats) put_stats(row, width, squares_of(row, width, scratch), scratch, stats + (u64)blockIdx.x * 5);
    if (copy) put_copy(row, width, copy, first_copied);
}
EXPORT(row_stats)
