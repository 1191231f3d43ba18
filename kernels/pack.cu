// Keys or values of a cache as codes of 2, 4 or 8 bits, and back: x ≈ code · scale + zero, scale and zero in f16. CPU twins:
// `encode` and `read` in src/cache/stratum.rs, the same bits.
//
// A row is one token's [dim]. The codes of 32 channels lie together, and those of the last, fewer ones: in such a block of
// w bytes, byte j holds the codes of channels j, j + w, j + 2w, … from the lowest bits on.
// rows: which rows of x [.., dim], null for the first `count`; kind of numbers as for caches.
// Bound by memory: x is read twice, the second time from the caches.
//
// pack_tokens(x, kind, rows, count, dim, bits, group, codes, scales, zeros): so many channels of a token share a scale
//   codes [count, bytes of a row]; scales, zeros [count, ⌈dim / group⌉]; group ≤ dim. Grid: ⌈count / 4⌉; block: 128; shared:
//   16 · ⌈dim / group⌉ bytes
// pack_channels(x, kind, rows, count, dim, bits, group, codes, scales, zeros): a channel of so many tokens does
//   scales, zeros [⌈count / group⌉, dim]. Grid: ⌈count / group⌉; any block, 128 does; shared: 4 · dim bytes
// unpack(codes, scales, zeros, bits, group, ends, groups, rows, count, dim, kind, out): rows of codes as numbers
//   rows: which rows of codes, null for the first `count`; out [count, dim] of `kind`. ends: null for groups of channels;
//   else one past the last row of each of the `groups` groups of tokens, ascending. Grid: ⌈count · dim / block⌉, which must
//   be below 2³¹ threads; any block, 256 does
#include "scope.cuh"

#define BLOCK 32

DEVICE int block_of(int channels, int bits) { return (channels * bits + 7) / 8; }

DEVICE int bytes_of(int dim, int bits) { return dim / BLOCK * block_of(BLOCK, bits) + block_of(dim % BLOCK, bits); }

// What a group of codes means, both in f16.
struct Affine {
    u16 scale, zero;
};

DEVICE u16 near_half(float x) { return f32_to_f16(fminf(fmaxf(x, -65504.0f), 65504.0f)); }

// The largest half that is no larger; nothing finite is lower than the lowest.
DEVICE u16 floor_half(float x) {
    u16 half = near_half(x);
    if (!(f16_to_f32(half) > x) || half == 0xfbff) return half;
    if (half == 0) return 0x8001;
    return half & 0x8000 ? half + 1 : half - 1;
}

DEVICE Affine affine_of(float least, float most, int bits) {
    // of no numbers
    if (least > most) return {0, 0};
    // −0 as 0
    u16 zero = floor_half(least + 0.0f);
    return {near_half((most + 0.0f - f16_to_f32(zero)) / (float)((1 << bits) - 1)), zero};
}

DEVICE u32 code_of(float x, Affine by, int bits) {
    float scale = f16_to_f32(by.scale);
    if (!(scale > 0.0f)) return 0;
    // NaN becomes 0
    return (u32)fminf(fmaxf(rintf((x - f16_to_f32(by.zero)) / scale), 0.0f), (float)((1 << bits) - 1));
}

// Byte `at` of a row's codes; channel c belongs to by[c / group].
DEVICE u8 codes_at(const void *x, int kind, u64 row, int dim, int bits, int at, const Affine *by, int group) {
    int whole = block_of(BLOCK, bits), first = at / whole * BLOCK, channels = min(BLOCK, dim - first);
    int width = block_of(channels, bits);
    u32 codes = 0;
    for (int part = 0, c = at % whole; c < channels; part++, c += width)
        codes |= code_of(kv_get(x, row * dim + first + c, kind), by[(first + c) / group], bits) << part * bits;
    return (u8)codes;
}

DEVICE u64 row_at(const u32 *rows, int i) { return rows ? rows[i] : (u32)i; }

KERNEL(pack_tokens)(const void *x, int kind, const u32 *rows, int count, int dim, int bits, int group, u8 *codes, u16 *scales,
                    u16 *zeros) {
    DYNAMIC_SHARED(Affine, all);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, i = blockIdx.x * 4 + warp, groups = (dim + group - 1) / group;
    if (i >= count) return;
    u64 row = row_at(rows, i);
    Affine *own = all + warp * groups;
    for (int g = 0; g < groups; g++) {
        float least = INFINITE, most = -INFINITE;
        for (int c = g * group + lane; c < min((g + 1) * group, dim); c += 32) {
            float number = kv_get(x, row * dim + c, kind);
            least = fminf(least, number);
            most = fmaxf(most, number);
        }
        Affine by = affine_of(-warp_max(-least), warp_max(most), bits);
        if (lane == 0) {
            own[g] = by;
            scales[(u64)i * groups + g] = by.scale;
            zeros[(u64)i * groups + g] = by.zero;
        }
    }
    __syncwarp();
    int bytes = bytes_of(dim, bits);
    for (int at = lane; at < bytes; at += 32) codes[(u64)i * bytes + at] = codes_at(x, kind, row, dim, bits, at, own, group);
}
EXPORT(pack_tokens)

KERNEL(pack_channels)(const void *x, int kind, const u32 *rows, int count, int dim, int bits, int group, u8 *codes,
                      u16 *scales, u16 *zeros) {
    DYNAMIC_SHARED(Affine, all);
    int first = blockIdx.x * group, tokens = min(group, count - first), bytes = bytes_of(dim, bits);
    for (int c = threadIdx.x; c < dim; c += blockDim.x) {
        float least = INFINITE, most = -INFINITE;
        for (int i = 0; i < tokens; i++) {
            float number = kv_get(x, row_at(rows, first + i) * dim + c, kind);
            least = fminf(least, number);
            most = fmaxf(most, number);
        }
        Affine by = affine_of(least, most, bits);
        all[c] = by;
        scales[(u64)blockIdx.x * dim + c] = by.scale;
        zeros[(u64)blockIdx.x * dim + c] = by.zero;
    }
    __syncthreads();
    for (u32 n = threadIdx.x; n < (u32)tokens * bytes; n += blockDim.x) {
        int i = first + n / bytes, at = n % bytes;
        codes[(u64)i * bytes + at] = codes_at(x, kind, row_at(rows, i), dim, bits, at, all, 1);
    }
}
EXPORT(pack_channels)

// The first group that ends behind `row`.
DEVICE int group_of(const u32 *ends, int groups, u32 row) {
    int from = 0;
    while (from < groups) {
        int middle = (from + groups) / 2;
        if (ends[middle] <= row)
            from = middle + 1;
        else
            groups = middle;
    }
    return from;
}

KERNEL(unpack)(const u8 *codes, const u16 *scales, const u16 *zeros, int bits, int group, const u32 *ends, int groups,
               const u32 *rows, int count, int dim, int kind, void *out) {
    u32 n = blockIdx.x * blockDim.x + threadIdx.x, i = n / dim;
    if (i >= (u32)count) return;
    int c = n % dim, block = c / BLOCK, width = block_of(min(BLOCK, dim - block * BLOCK), bits);
    u64 row = row_at(rows, i);
    u32 byte = codes[row * bytes_of(dim, bits) + block * block_of(BLOCK, bits) + c % BLOCK % width];
    u32 code = byte >> c % BLOCK / width * bits & ((1u << bits) - 1);
    u64 by = ends ? (u64)group_of(ends, groups, (u32)row) * dim + c : row * ((dim + group - 1) / group) + c / group;
    // the product is exact: 8 and 11 bits
    kv_put(out, n, kind, fmaf((float)code, f16_to_f32(scales[by]), f16_to_f32(zeros[by])));
}
EXPORT(unpack)
