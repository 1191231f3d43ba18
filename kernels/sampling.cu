// FlashSampling (arXiv 2603.15854): head and exact sampling in one, the logits never in global memory. The winner of
// softmax(x) is argmax x + g, g = −ln(−ln u) Gumbel noise, and a maximum over all is one over the maxima of tiles.
// CPU twin: src/engine/sampler.rs (the same filters in the same order; another source of randomness, so other draws).
//
// Of a row: z = softcap · tanh(w · h / softcap) + bias, NaN counts as −∞; x = z / temperature, or z where that is 0.
// Noise of token id: words of Philox4x32-10, key = seed, counter = (id / 4, step, row, stream), word id % 4. It depends on
// nothing else: not on the tile, nor on what runs beside it. Equal scores: the smaller id.
// A key is (score, id) in 64 bits that are ordered as wanted: larger is better, 0 is none.
//
// sample_tiles_1, _2, _4, _8, _16(x, rows, in, weights, format, vocab, softcap, bias, bias_width, temperature, draws, tile,
//   k, keys, sums): up to so many rows
//   x, in, weights [vocab], format as in product.cu; softcap 0: none; bias [rows or 1, vocab], −∞ masks, or null;
//   bias_width: vocab, or 0 for one row of bias for all; temperature [rows], 0: greedy; draws u32 [rows, 5]: seed (low,
//   high), step, row, stream; k: best candidates that are kept, 0 … 32, by z and without noise.
//   keys u64 [rows, tiles, 2 + k]: winner, runner-up (of x + g), the best (of z), in order;
//   sums f32 [rows, tiles, 3]: m = max x, Σ e^(x − m), Σ e^(x − m) (x − m).
//   Grid: tiles = ⌈vocab / tile⌉; block: 128; dynamic shared memory: 4 · tile · ROWS bytes (ROWS as in the kernel's name).
//   Tiles of 128 to 256 are meant. Bound by memory, by the one read of the weights.
// sample_merge(tiles, k, keys, sums, ids, numbers)
//   ids i32 [rows, 2 + k]: winner, runner-up, best candidates; −1: none, as when all is masked.
//   numbers f32 [rows, 6 + k]: scores of winner and runner-up, margin, max x, ln Σ e^x, entropy of softmax(x) in nats, z of
//   the candidates; scores are −∞ where the id is −1, and the entropy is NaN where all is masked.
//   Grid: rows; block: 256; dynamic shared memory: `tiles` bytes. Bound by latency.
// sample_survivors(k, ids, numbers, temperature, draws, top_k, limits, chosen, scores)
//   What sample_merge found, cut by top-k, then top-p, then min-p, and drawn from with the same noise. top_k u32 [rows], 0:
//   none; limits f32 [rows, 2]: top-p (1: none), min-p (0: none).
//   chosen i32 [rows, 4]: winner, runner-up, how many survive, 1 if tokens beyond the k candidates would too (then the draw
//   is not exact, and the logits have to be made); scores f32 [rows, 3 + k]: scores, margin, probabilities of candidates.
//   Grid: rows; block: 32. Bound by latency.
#include "dot.cuh"

// --- noise ---

struct Random4 {
    u32 at[4];
};

DEVICE Random4 philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
    UNROLL for (int round = 0; round < 10; round++) {
        u32 b0 = __umulhi(0xcd9e8d57u, c2) ^ c1 ^ k0, b1 = 0xcd9e8d57u * c2;
        u32 b2 = __umulhi(0xd2511f53u, c0) ^ c3 ^ k1, b3 = 0xd2511f53u * c0;
        c0 = b0, c1 = b1, c2 = b2, c3 = b3;
        k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
    }
    return {{c0, c1, c2, c3}};
}

// Noise of the four tokens from 4 · group on.
DEVICE Random4 words(const u32 *draw, int group) { return philox(group, draw[2], draw[3], draw[4], draw[0], draw[1]); }

// From −2.81 to 22.87; fine-grained at the upper end, where winners are.
DEVICE float gumbel(u32 word) {
    float t = fminf(((float)word + 0.5f) * 2.3283064365386963e-10f, 0.999999940395355f);
    return -logf(-log1pf(-t));
}

// --- keys ---

DEVICE u64 key_of(float score, int id) {
    // −0 and 0 are equal
    u32 bits = __float_as_uint(score + 0.0f);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (u64)bits << 32 | ~(u32)id;
}

DEVICE int id_of(u64 key) { return key ? (int)~(u32)key : -1; }

DEVICE float score_of(u64 key) {
    u32 bits = (u32)(key >> 32);
    return key ? __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits) : -INFINITE;
}

struct Best {
    u64 first, second;

    // Keys that differ, but for 0.
    DEVICE void add(u64 one, u64 other) {
        second = max(min(first, one), max(second, other));
        first = max(first, one);
    }

    DEVICE void over_warp() {
        for (int far = 16; far > 0; far /= 2) {
            u64 one = __shfl_xor_sync(ALL, first, far), other = __shfl_xor_sync(ALL, second, far);
            add(one, other);
        }
    }
};

DEVICE u64 warp_best(u64 key) {
    for (int far = 16; far > 0; far /= 2) key = max(key, __shfl_xor_sync(ALL, key, far));
    return key;
}

// --- tiles ---

DEVICE float shaped(float y, float softcap, const float *bias) {
    if (softcap > 0.0f) y = softcap * tanhf(y / softcap);
    if (bias) y += *bias;
    return y == y ? y : -INFINITE;
}

// A warp on z [count], the logits of tokens start … start + count.
DEVICE void summarise(const float *z, int start, int count, float temperature, const u32 *draw, int k, u64 *keys,
                      float *sums) {
    int lane = threadIdx.x % 32;
    float heat = temperature > 0.0f ? temperature : 1.0f, most = -INFINITE, mass = 0.0f, moment = 0.0f;
    for (int i = lane; i < count; i += 32) most = fmaxf(most, z[i] / heat);
    most = warp_max(most);
    Best best = {0, 0};
    for (int group = start / 4 + lane; group * 4 < start + count; group += 32) {
        Random4 random = {};
        if (temperature > 0.0f) random = words(draw, group);
        UNROLL for (int j = 0; j < 4; j++) {
            int i = group * 4 + j - start;
            if (i < 0 || i >= count || z[i] == -INFINITE) continue;
            float x = z[i] / heat, part = expf(x - most);
            mass += part;
            if (part > 0.0f) moment = fmaf(part, x - most, moment);
            best.add(key_of(temperature > 0.0f ? x + gumbel(random.at[j]) : x, start + i), 0);
        }
    }
    best.over_warp();
    mass = warp_sum(mass), moment = warp_sum(moment);
    // The place of a candidate is how many are before it.
    int there = 0;
    if (k > 0) {
        for (int i = lane; i < count; i += 32) {
            if (z[i] == -INFINITE) continue;
            there++;
            int before = 0;
            for (int j = 0; j < count; j++) before += z[j] > z[i] || (z[j] == z[i] && j < i);
            if (before < k) keys[2 + before] = key_of(z[i], start + i);
        }
        for (int far = 16; far > 0; far /= 2) there += __shfl_xor_sync(ALL, there, far);
        if (lane < k && lane >= there) keys[2 + lane] = 0;
    }
    if (lane == 0) {
        keys[0] = best.first, keys[1] = best.second;
        sums[0] = most, sums[1] = mass, sums[2] = moment;
    }
}

template <int ROWS>
DEVICE void sample_tiles(const float *x, int rows, int in, const void *weights, int format, int vocab, float softcap,
                         const float *bias, int bias_width, const float *temperature, const u32 *draws, int tile, int k,
                         u64 *keys, float *sums) {
    DYNAMIC_SHARED(float, logits);
    __shared__ float scratch[DOTS_SCRATCH(ROWS)];
    int t = threadIdx.x, start = blockIdx.x * tile, count = min(tile, vocab - start), here = min(rows, ROWS);
    for (int o = 0; o < count; o += OUTS) {
        float y = block_dots<ROWS>(x, rows, in, weights, format, start + o, vocab, scratch);
        int r = t / OUTS, i = o + t % OUTS;
        if (r >= here || i >= count) continue;
        logits[r * tile + i] = shaped(y, softcap, bias ? bias + (u64)r * bias_width + start + i : nullptr);
    }
    __syncthreads();
    for (int r = t / 32; r < here; r += WARPS) {
        u64 at = (u64)r * gridDim.x + blockIdx.x;
        summarise(logits + r * tile, start, count, temperature[r], draws + r * 5, k, keys + at * (2 + k), sums + at * 3);
    }
}

// Arguments and body of a kernel for so many rows.
#define SAMPLE_TILES(ROWS)                                                                                           \
    (const float *x, int rows, int in, const void *weights, int format, int vocab, float softcap, const float *bias, \
     int bias_width, const float *temperature, const u32 *draws, int tile, int k, u64 *keys, float *sums) {          \
        sample_tiles<ROWS>(x, rows, in, weights, format, vocab, softcap, bias, bias_width, temperature, draws, tile, \
                           k, keys, sums);                                                                           \
    }

KERNEL(sample_tiles_1) SAMPLE_TILES(1)
EXPORT(sample_tiles_1)
KERNEL(sample_tiles_2) SAMPLE_TILES(2)
EXPORT(sample_tiles_2)
KERNEL(sample_tiles_4) SAMPLE_TILES(4)
EXPORT(sample_tiles_4)
KERNEL(sample_tiles_8) SAMPLE_TILES(8)
EXPORT(sample_tiles_8)
KERNEL(sample_tiles_16) SAMPLE_TILES(16)
EXPORT(sample_tiles_16)

// --- merging ---

KERNEL(sample_merge)(int tiles, int k, const u64 *keys, const float *sums, int *ids, float *numbers) {
    // Of each tile, how many candidates are taken; a tile belongs to one thread.
    DYNAMIC_SHARED(u8, taken);
    __shared__ float scratch[32];
    __shared__ Best found[8];
    __shared__ u64 heads[2][8];
    int t = threadIdx.x, warp = t / 32, threads = blockDim.x, wide = 2 + k;
    keys += (u64)blockIdx.x * tiles * wide, sums += (u64)blockIdx.x * tiles * 3;
    ids += blockIdx.x * wide, numbers += blockIdx.x * (6 + k);

    Best best = {0, 0};
    float most = -INFINITE, mass = 0.0f, moment = 0.0f;
    for (int i = t; i < tiles; i += threads) {
        best.add(keys[(u64)i * wide], keys[(u64)i * wide + 1]);
        most = fmaxf(most, sums[i * 3]);
        taken[i] = 0;
    }
    most = block_max(most, scratch);
    for (int i = t; i < tiles; i += threads) {
        float less = sums[i * 3] - most, part = sums[i * 3 + 1];
        if (part == 0.0f) continue;
        float share = expf(less);
        mass = fmaf(share, part, mass);
        moment = fmaf(share, fmaf(less, part, sums[i * 3 + 2]), moment);
    }
    mass = block_sum(mass, scratch);
    moment = block_sum(moment, scratch);
    best.over_warp();
    if (t % 32 == 0) found[warp] = best;
    __syncthreads();
    if (t == 0) {
        for (int i = 1; i < threads / 32; i++) best.add(found[i].first, found[i].second);
        float first = score_of(best.first), second = score_of(best.second);
        ids[0] = id_of(best.first), ids[1] = id_of(best.second);
        numbers[0] = first, numbers[1] = second, numbers[2] = first - second;
        numbers[3] = most, numbers[4] = most + logf(mass), numbers[5] = logf(mass) - moment / mass;
    }

    // The candidates of a tile are in order: the best of all is one of the tiles' next.
    u64 head = 0;
    int from = -1;
    auto look = [&] {
        head = 0;
        for (int i = t; i < tiles; i += threads) {
            u64 next = taken[i] < k ? keys[(u64)i * wide + 2 + taken[i]] : 0;
            if (next > head) head = next, from = i;
        }
    };
    look();
    for (int place = 0; place < k; place++) {
        u64 top = warp_best(head);
        if (t % 32 == 0) heads[place % 2][warp] = top;
        __syncthreads();
        for (int i = 0; i < threads / 32; i++) top = max(top, heads[place % 2][i]);
        if (t == 0) ids[2 + place] = id_of(top), numbers[6 + place] = score_of(top);
        if (top == 0 || top != head) continue;
        taken[from]++;
        look();
    }
}
EXPORT(sample_merge)

KERNEL(sample_survivors)
(int k, const int *ids, const float *numbers, const float *temperature, const u32 *draws, const u32 *top_k,
 const float *limits, int *chosen, float *scores) {
    int lane = threadIdx.x, row = blockIdx.x, limit = (int)min(top_k[row], (u32)k);
    ids += row * (2 + k) + 2, numbers += row * (6 + k), limits += row * 2, chosen += row * 4, scores += row * (3 + k);
    const float *z = numbers + 6;
    bool greedy = !(temperature[row] > 0.0f);
    float heat = greedy ? 1.0f : temperature[row];
    int id = lane < k ? ids[lane] : -1, there = __popc(__ballot_sync(ALL, id >= 0));
    // Weights relative to the best, in order; of all tokens where no top-k says otherwise.
    float p = id >= 0 && (limit == 0 || lane < limit) ? expf(z[lane] / heat - z[0] / heat) : 0.0f;
    float listed = warp_sum(p), before = 0.0f;
    float total = limit == 0 ? expf(numbers[4] - z[0] / heat) : listed;
    for (int i = 0; i < 31; i++) {
        float of = __shfl_sync(ALL, p, i);
        if (i < lane) before += of;
    }
    bool stays = p > 0.0f && (limits[0] >= 1.0f || before < limits[0] * total) && p >= limits[1];
    stays = id >= 0 && (lane == 0 || (stays && !greedy));
    int kept = __popc(__ballot_sync(ALL, stays));
    // A full list that all survives may go on beyond it; the mass of a top-k beyond it is not known.
    bool wider = top_k[row] > (u32)k, beyond = there == k && (limit == 0 || wider);
    bool open = !greedy && beyond && (kept == k || (wider && limits[0] < 1.0f));

    Best best = {0, 0};
    if (stays) {
        float x = z[lane] / heat;
        best.first = key_of(greedy ? x : x + gumbel(words(draws + row * 5, id / 4).at[id % 4]), id);
    }
    best.over_warp();
    float mass = warp_sum(stays ? p : 0.0f);
    if (lane < k) scores[3 + lane] = stays ? p / mass : 0.0f;
    if (lane == 0) {
        float first = score_of(best.first), second = score_of(best.second);
        chosen[0] = id_of(best.first), chosen[1] = id_of(best.second), chosen[2] = kept, chosen[3] = open;
        scores[0] = first, scores[1] = second, scores[2] = first - second;
    }
}
EXPORT(sample_survivors)
