// Norms (where the model has them) and rotates queries and keys of one layer, appends keys and values to the caches. CPU
// twin: `rope` in src/backend/cpu/rope.rs. One warp has one head of one row: a query, or a key with its value; its lanes
// have the channel pairs (i, i + D/2). Some kilobytes a row: bound by latency, for a long prompt by memory.
#include "scope.cuh"

struct Turns {
    const float *frequencies;
    float position;
};

// x [D] is turned by the angles position · frequency, after it is scaled by scale · weight where there is a weight; it is
// stored in `copy` as well (row `at` of rows of D numbers of type `kind`) unless that is null. Squares of the numbers
// before and after the turn are summed over this lane's channels.
DEVICE void turn(float *x, int dim, const float *weight, float scale, Turns turns, void *copy, u64 at, int kind,
                 float &before, float &after) {
    int half = dim / 2;
    before = after = 0.0f;
    for (int i = threadIdx.x % 32; i < half; i += 32) {
        float a = x[i], b = x[i + half], sine, cosine;
        if (weight) {
            a = a * scale * weight[i];
            b = b * scale * weight[i + half];
        }
        before = fmaf(a, a, fmaf(b, b, before));
        sincosf(turns.position * turns.frequencies[i], &sine, &cosine);
        float to_a = a * cosine - b * sine, to_b = b * cosine + a * sine;
        after = fmaf(to_a, to_a, fmaf(to_b, to_b, after));
        x[i] = to_a;
        x[i + half] = to_b;
        if (copy) {
            kv_put(copy, at * dim + i, kind, to_a);
            kv_put(copy, at * dim + i + half, kind, to_b);
        }
    }
}

DEVICE float norm_scale(const float *x, int dim, float eps) {
    float squares = 0.0f;
    for (int i = threadIdx.x % 32; i < dim; i += 32) squares = fmaf(x[i], x[i], squares);
    return 1.0f / sqrtf(warp_sum(squares) / (float)dim + eps);
}

// Grid: (⌈(H + G) / warps⌉, longest count ≤ 65535, runs); block: 32 · warps, 128 does. D even, any size.
//
// qkv [rows, (H + 2G)·D]: queries, keys, values; queries and keys are turned in place.
// frequencies [D/2]; angles are the f32 products of these and `turned`.
// q_weight, k_weight [D], eps: norms of queries and of keys; null for none.
// positions, turned [rows]; runs [runs]; slots: the layer's first record, of run i and kv head g at i · slot_stride + g.
// Row r of a run goes to slot len − count + r − first: key, value (as `kv`), position; received, row and offset there
// become 0. Where `keys` is null (the layer reads those of another one) the key is left alone and not held; where `values`
// is null no value is.
// kept: the address of the kept queries [position, H, D] of run i at i · kept_stride, used where the run keeps its
// queries; null for none.
// norms [G, rows, 4] of the layer: L2 of the key before and after the turn, L1 and L2 of the value; NaN for what is not
// held; null for none.
KERNEL(rope)(float *qkv, int rows, int heads, int kv_heads, int dim, const float *frequencies, const float *q_weight,
             const float *k_weight, float eps, const u32 *positions, const u32 *turned, const Run *runs,
             const Slots *slots, int slot_stride, int kv, float *const *kept, int kept_stride, float *norms) {
    int head = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    Run run = runs[blockIdx.z];
    if (head >= heads + kv_heads || blockIdx.y >= (u32)run.count) return;
    int r = run.first + blockIdx.y;
    float *x = qkv + ((u64)r * (heads + 2 * kv_heads) + head) * dim;
    Turns turns = {frequencies, (float)turned[r]};
    float before, after;
    if (head < heads) {
        float *copy = kept && run.queries ? kept[(u64)blockIdx.z * kept_stride] : nullptr;
        float scale = q_weight ? norm_scale(x, dim, eps) : 1.0f;
        turn(x, dim, q_weight, scale, turns, copy, (u64)positions[r] * heads + head, KV_F32, before, after);
        return;
    }
    int g = head - heads, group = heads / kv_heads;
    const Slots &held = slots[(u64)blockIdx.z * slot_stride + g];
    int slot = held.len - run.count + (int)blockIdx.y;
    float nan = __int_as_float(0x7fc00000), key_before = nan, key_after = nan, value_sum = nan, value_squares = nan;
    if (held.keys) {
        float scale = k_weight ? norm_scale(x, dim, eps) : 1.0f;
        turn(x, dim, k_weight, scale, turns, held.keys, (u64)slot, kv, before, after);
        key_before = sqrtf(warp_sum(before));
        key_after = sqrtf(warp_sum(after));
    }
    if (held.values) {
        const float *value = x + (u64)kv_heads * dim;
        float sum = 0.0f, squares = 0.0f;
        for (int i = lane; i < dim; i += 32) {
            float v = value[i];
            kv_put(held.values, (u64)slot * dim + i, kv, v);
            sum += fabsf(v);
            squares = fmaf(v, v, squares);
        }
        value_sum = warp_sum(sum);
        value_squares = sqrtf(warp_sum(squares));
    }
    for (int h = lane; h < group; h += 32) {
        held.received[(u64)h * held.capacity + slot] = 0.0f;
        held.row[(u64)h * held.capacity + slot] = 0.0f;
    }
    if (lane > 0) return;
    held.positions[slot] = positions[r];
    if (held.offsets) held.offsets[slot] = 0.0f;
    if (norms) {
        float *to = norms + ((u64)g * rows + r) * 4;
        to[0] = key_before;
        to[1] = key_after;
        to[2] = value_sum;
        to[3] = value_squares;
    }
}
EXPORT(rope)
