// What the attention families share: tiles of cells in shared memory, dot products of a tile, what a row sees.
#pragma once
#include "scope.cuh"

// How many of the ascending positions lie below `end`.
DEVICE int below(const u32 *positions, int len, u64 end) {
    if (len == 0 || positions[len - 1] < end) return len;
    int low = 0, high = len - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (positions[middle] < end)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct alignas(16) Quad {
    u32 bits[4];
};

struct alignas(16) Four {
    float x[4];
};

// Eight cells that follow each other, from a multiple of eight on.
DEVICE void kv_get8(const void *cells, u64 i, int kv, float *x) {
    if (kv == KV_F32) {
        const Four *from = (const Four *)((const float *)cells + i);
        Four a = from[0], b = from[1];
        for (int k = 0; k < 4; k++) {
            x[k] = a.x[k];
            x[k + 4] = b.x[k];
        }
        return;
    }
    Quad a = *(const Quad *)((const u16 *)cells + i);
    for (int k = 0; k < 4; k++) {
        u16 low = (u16)a.bits[k], high = (u16)(a.bits[k] >> 16);
        x[2 * k] = kv == KV_F16 ? f16_to_f32(low) : bf16_to_f32(low);
        x[2 * k + 1] = kv == KV_F16 ? f16_to_f32(high) : bf16_to_f32(high);
    }
}

// Rows [most, dim] of cells, each `stride` from the one before, to shared memory, four numbers between rows so that threads
// that read one column of several rows meet different banks: the first `count` of them, and zeros.
DEVICE void load(float *to, const void *cells, u64 first, u64 stride, int count, int most, int dim, int kv) {
    int chunks = dim / 8;
    for (int i = threadIdx.x; i < most * chunks; i += (int)blockDim.x) {
        int t = i / chunks, c = i % chunks * 8;
        float x[8] = {};
        if (t < count) kv_get8(cells, first + t * stride + c, kv, x);
        Four *at = (Four *)(to + t * (dim + 4) + c);
        at[0] = {{x[0], x[1], x[2], x[3]}};
        at[1] = {{x[4], x[5], x[6], x[7]}};
    }
}

// Thread (x, y) of 16 × 16: dot products of queries y · T + i and keys x + 16 · j.
template <int T>
DEVICE void dots(const float *queries, const float *keys, int dim, float (&s)[T][T]) {
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    for (int i = 0; i < T; i++)
        for (int j = 0; j < T; j++) s[i][j] = 0.0f;
    for (int c = 0; c < dim; c += 4) {
        Four q[T], k[T];
        for (int i = 0; i < T; i++) {
            q[i] = *(const Four *)(queries + (y * T + i) * (dim + 4) + c);
            k[i] = *(const Four *)(keys + (x + 16 * i) * (dim + 4) + c);
        }
        for (int u = 0; u < 4; u++)
            for (int i = 0; i < T; i++)
                for (int j = 0; j < T; j++) s[i][j] = fmaf(q[i].x[u], k[j].x[u], s[i][j]);
    }
}

DEVICE float logit(float dot, float scale, float softcap) {
    dot *= scale;
    return softcap > 0.0f ? softcap * tanhf(dot / softcap) : dot;
}

DEVICE bool sees(u32 query, u32 key, int window) {
    return key <= query && (window == 0 || query - key < (u32)window);
}

constexpr float LOWEST = -3e38f;

// What threads know of a row so far, relative to its largest logit: each its own part.
struct Sums {
    float most = LOWEST, total = 0.0f, moment = 0.0f, first = 0.0f, recent = 0.0f, distance = 0.0f;

    // The largest logit is now `top`; what was summed up before is worth that much less.
    DEVICE float raise(float top) {
        float worth = expf(most - top);
        moment = (moment + total * (most - top)) * worth;
        total *= worth;
        first *= worth;
        recent *= worth;
        distance *= worth;
        most = top;
        return worth;
    }

    // A logit s, e^(s − most), of a query at one position on a key at another.
    DEVICE void add(float s, float e, u32 query, u32 key, int window) {
        u32 gap = query - key;
        total += e;
        moment = fmaf(e, s - most, moment);
        distance = fmaf(e, (float)gap, distance);
        if (key == 0) first += e;
        if (gap < (u32)window) recent += e;
    }
};
