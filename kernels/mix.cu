// Depth mixing of Attention Residuals (arXiv 2603.15031) and what sources contribute to a residual stream. CPU twin of
// depth_shares: src/probe/depth.rs; the mixes are compared with their definition in tests/cuda/mix.rs.
//
// For each row r by itself, over sources v_i [rows, width], i < count:
//   s_i = key · v_i / √(mean v_i² + eps), key = w ⊙ γ [width]; the last one + bias (0, or a dialect's recency bias)
//   α = softmax(s);  h = Σ α_i v_i;  out = keep · stream + by · h, or h where there is no stream
// `sources` are addresses, numbers of row r begin strides[i] · r further on: width, or 0 for a source that is the same for
// all rows. Block: 256 everywhere; bound by memory: sources are read twice, the second time from the caches.
//
// mix(sources, strides, count, key, eps, bias, stream, keep, by, width, out, weights)
//   stream, out [rows, width]; they may be the same; weights: null, or α [count, rows]. Grid: rows; shared: 4 · count bytes
//
// The same in two phases, for blocks of sublayers that share their finished sources:
// mix_finished(sources, strides, count, keys, targets, eps, width, mixed, tops, sums, weights, across)
//   keys [targets, width]: of all sublayers of the block. mixed [targets, rows, width] = Σ e^(s_i − top) v_i, tops and sums
//   [targets, rows] = max s_i and Σ e^(s_i − top); weights: null, or [targets, across, rows], the first `count` of the
//   `across` get s. Grid: (rows, ⌈targets / 8⌉); shared: 32 · count bytes
// mix_partial(mixed, top, sum, partial, key, eps, bias, count, stream, keep, by, width, out, weights)
//   of one sublayer: merges `partial` [rows, width], the last source, or nothing where it is null (then bias is left out).
//   weights: null, or [count + 1, rows] as mix_finished left them, which become α. Grid: rows; shared: 0
//
// blend(out, keep, x, by, count): out = keep · out + by · x, elementwise; what out held does not matter where keep is 0.
// Grid: ⌈count / 256⌉; shared: 0
//
// depth_shares(sources, strides, counts, targets, differences, width, out, across): c_i = ⟨v_i, h⟩ / ‖h‖², signed
//   targets: addresses of h [rows, width], one per blockIdx.y, which the first counts[y] sources belong to. differences 1:
//   sources are points of a stream, v_i = p_i − p_(i−1), the last one is h itself; 0: they are the v_i. out [targets, across,
//   rows]; sources from counts[y] on, and all of an h of length 0, get 0. Sums in f64. Grid: (rows, targets); shared: 8 ·
//   across bytes
#include "scope.cuh"

#ifdef SCOPE_EMULATED
#define UNROLL
#else
#define UNROLL _Pragma("unroll")
#endif

#define TARGETS 8

DEVICE const float *row_of(const float *const *sources, const int *strides, int i) {
    return sources[i] + (u64)blockIdx.x * strides[i];
}

// logits[t][i] of N keys and all sources, in shared memory; the warps take sources in turn. Keys from `targets` on read the
// last one.
template <int N>
DEVICE void find_logits(const float *const *sources, const int *strides, int count, const float *keys, int targets,
                        float eps, int width, float *logits) {
    int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (int i = threadIdx.x / 32; i < count; i += warps) {
        const float *v = row_of(sources, strides, i);
        float squares = 0.0f, dots[N];
        UNROLL for (int t = 0; t < N; t++) dots[t] = 0.0f;
        for (int c = lane; c < width; c += 32) {
            float x = v[c];
            squares = fmaf(x, x, squares);
            UNROLL for (int t = 0; t < N; t++) dots[t] = fmaf(x, __ldg(keys + (u64)min(t, targets - 1) * width + c), dots[t]);
        }
        float rms = sqrtf(warp_sum(squares) / (float)width + eps);
        UNROLL for (int t = 0; t < N; t++) {
            float dot = warp_sum(dots[t]);
            if (lane == 0) logits[t * count + i] = dot / rms;
        }
    }
    __syncthreads();
}

DEVICE float largest(const float *x, int count) {
    float top = -INFINITE;
    for (int i = 0; i < count; i++) top = fmaxf(top, x[i]);
    return top;
}

// For one row of logits: x becomes e^(x − top); returns the sum, in the order of the sources.
DEVICE float exponentials(float *x, int count, float top) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) x[i] = expf(x[i] - top);
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < count; i++) sum += x[i];
    return sum;
}

DEVICE void put(float *out, const float *stream, float keep, float by, u64 at, float mixed) {
    out[at] = stream ? fmaf(by, mixed, keep * stream[at]) : mixed;
}

KERNEL(mix)(const float *const *sources, const int *strides, int count, const float *key, float eps, float bias,
            const float *stream, float keep, float by, int width, float *out, float *weights) {
    DYNAMIC_SHARED(float, logits);
    find_logits<1>(sources, strides, count, key, 1, eps, width, logits);
    if (threadIdx.x == 0) logits[count - 1] += bias;
    __syncthreads();
    float top = largest(logits, count);
    __syncthreads();
    float sum = exponentials(logits, count, top);
    if (weights)
        for (int i = threadIdx.x; i < count; i += blockDim.x) weights[(u64)i * gridDim.x + blockIdx.x] = logits[i] / sum;
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        float mixed = 0.0f;
        for (int i = 0; i < count; i++) mixed = fmaf(logits[i], row_of(sources, strides, i)[c], mixed);
        put(out, stream, keep, by, (u64)blockIdx.x * width + c, mixed / sum);
    }
}
EXPORT(mix)

KERNEL(mix_finished)(const float *const *sources, const int *strides, int count, const float *keys, int targets, float eps,
                     int width, float *mixed, float *tops, float *sums, float *weights, int across) {
    DYNAMIC_SHARED(float, logits);
    int first = blockIdx.y * TARGETS, here = min(TARGETS, targets - first), rows = gridDim.x;
    find_logits<TARGETS>(sources, strides, count, keys + (u64)first * width, here, eps, width, logits);
    for (int t = 0; t < here; t++) {
        float *own = logits + t * count;
        u64 target = first + t;
        if (weights)
            for (int i = threadIdx.x; i < count; i += blockDim.x)
                weights[(target * across + i) * rows + blockIdx.x] = own[i];
        float top = largest(own, count);
        __syncthreads();
        float sum = exponentials(own, count, top);
        if (threadIdx.x == 0) {
            tops[target * rows + blockIdx.x] = top;
            sums[target * rows + blockIdx.x] = sum;
        }
    }
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        float found[TARGETS];
        UNROLL for (int t = 0; t < TARGETS; t++) found[t] = 0.0f;
        for (int i = 0; i < count; i++) {
            float x = row_of(sources, strides, i)[c];
            UNROLL for (int t = 0; t < TARGETS; t++) found[t] = fmaf(logits[min(t, here - 1) * count + i], x, found[t]);
        }
        UNROLL for (int t = 0; t < TARGETS; t++)
            if (t < here) mixed[((u64)(first + t) * rows + blockIdx.x) * width + c] = found[t];
    }
}
EXPORT(mix_finished)

KERNEL(mix_partial)(const float *mixed, const float *tops, const float *sums, const float *partial, const float *key,
                    float eps, float bias, int count, const float *stream, float keep, float by, int width, float *out,
                    float *weights) {
    __shared__ float scratch[32];
    u64 row = (u64)blockIdx.x * width;
    float top = tops[blockIdx.x], before = 1.0f, now = 0.0f;
    if (partial) {
        float squares = 0.0f, dot = 0.0f;
        for (int c = threadIdx.x; c < width; c += blockDim.x) {
            float x = partial[row + c];
            squares = fmaf(x, x, squares);
            dot = fmaf(x, __ldg(key + c), dot);
        }
        squares = block_sum(squares, scratch);
        float logit = block_sum(dot, scratch) / sqrtf(squares / (float)width + eps) + bias, old = top;
        top = fmaxf(old, logit);
        before = expf(old - top);
        now = expf(logit - top);
    }
    float sum = fmaf(before, sums[blockIdx.x], now);
    if (weights)
        for (int i = threadIdx.x; i <= count; i += blockDim.x) {
            float *at = weights + (u64)i * gridDim.x + blockIdx.x;
            *at = i < count ? expf(*at - top) / sum : now / sum;
        }
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        float all = before * mixed[row + c];
        if (partial) all = fmaf(now, partial[row + c], all);
        put(out, stream, keep, by, row + c, all / sum);
    }
}
EXPORT(mix_partial)

KERNEL(blend)(float *out, float keep, const float *x, float by, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    float kept = keep == 0.0f ? 0.0f : keep * out[i];
    out[i] = fmaf(by, x[i], kept);
}
EXPORT(blend)

KERNEL(depth_shares)(const float *const *sources, const int *strides, const int *counts, const float *const *targets,
                     int differences, int width, float *out, int across) {
    DYNAMIC_SHARED(double, dots);
    __shared__ double length;
    const float *h = targets[blockIdx.y] + (u64)blockIdx.x * width;
    int count = counts[blockIdx.y], lane = threadIdx.x % 32, warps = blockDim.x / 32;
    // source `count` is h itself
    for (int i = threadIdx.x / 32; i <= count; i += warps) {
        const float *v = i < count ? row_of(sources, strides, i) : h;
        double dot = 0.0;
        for (int c = lane; c < width; c += 32) dot += (double)v[c] * (double)h[c];
        for (int far = 16; far > 0; far /= 2) dot += __shfl_xor_sync(ALL, dot, far);
        if (lane == 0) *(i < count ? dots + i : &length) = dot;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < across; i += blockDim.x) {
        double along = i < count && length != 0.0 ? dots[i] - (differences && i > 0 ? dots[i - 1] : 0.0) : 0.0;
        out[((u64)blockIdx.y * across + i) * gridDim.x + blockIdx.x] = length != 0.0 ? (float)(along / length) : 0.0f;
    }
}
EXPORT(depth_shares)
