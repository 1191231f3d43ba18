// What stays of caches moves to the front, in place or to another place; and column sums and newest rows of all heads
// together. CPU twins: `retain` and `gather` in src/cache/head.rs, src/backend/cpu/means.rs.
//
// compact: the slots keep[i] of record i, ascending and unique, counts[i] of them: keys, values, positions, offsets, column
//   sums and newest rows. A slot never moves behind where it was: a block reads a piece before it writes one, and
//   needs no other memory. Lengths in the records stay as they were. grid (3 + 2 · group, records), block 256. keep: the
//   address of each record's list. dim is a multiple of 8, first cells are aligned to 16 bytes.
//   Bounded by memory: what stays is read and written once.
// gather: the same slots to the front of other records, all of them in their order where keep[i] is null. Offsets are 0 where
//   only the new record has some. grid (3 + 2 · group, records), block 256. Bounded by memory.
// position_means: mean over layers and heads of `received` and `row` at each position of the text, 0 for what no head holds.
//   slots [records = layers · kv heads]; positions: how many; received, row [positions]. grid ⌈positions / block⌉, any block.
//   Bounded by memory: column sums and rows are read once, next to each other wherever a head holds most positions.
#include "scope.cuh"

constexpr int THREADS = 256, AHEAD = 4;

struct alignas(16) Quad {
    u32 bits[4];
};

// Rows of `width` T that stay.
template <class T>
DEVICE void move(T *cells, const u32 *keep, int count, int width) {
    u64 all = (u64)count * width;
    for (u64 from = 0; from < all; from += THREADS * AHEAD) {
        T held[AHEAD];
        for (int k = 0; k < AHEAD; k++) {
            u64 i = from + k * THREADS + threadIdx.x;
            if (i < all) held[k] = cells[(u64)keep[i / width] * width + i % width];
        }
        __syncthreads();
        for (int k = 0; k < AHEAD; k++) {
            u64 i = from + k * THREADS + threadIdx.x;
            if (i < all) cells[i] = held[k];
        }
        __syncthreads();
    }
}

KERNEL(compact)(const Slots *slots, const u32 *const *keep, const int *counts, int group, int dim, int kv) {
    const Slots &at = slots[blockIdx.y];
    const u32 *list = keep[blockIdx.y];
    int count = counts[blockIdx.y], part = blockIdx.x, quads = dim * (kv == KV_F32 ? 4 : 2) / 16;
    if (part == 0) {
        move((Quad *)at.keys, list, count, quads);
    } else if (part == 1) {
        move((Quad *)at.values, list, count, quads);
    } else if (part == 2) {
        move(at.positions, list, count, 1);
        if (at.offsets) move(at.offsets, list, count, 1);
    } else {
        int member = part - 3;
        float *of = member < group ? at.received : at.row;
        move(of + (u64)(member % group) * at.capacity, list, count, 1);
    }
}
EXPORT(compact)

// Rows of `width` T to another place; `from` null: zeros.
template <class T>
DEVICE void take(T *to, const T *from, const u32 *keep, int count, int width) {
    u64 all = (u64)count * width;
    for (u64 i = threadIdx.x; i < all; i += THREADS) {
        u64 row = i / width;
        to[i] = from ? from[(keep ? keep[row] : row) * width + i % width] : T();
    }
}

KERNEL(gather)(const Slots *from, const Slots *to, const u32 *const *keep, const int *counts, int group, int dim, int kv) {
    const Slots &at = from[blockIdx.y], &there = to[blockIdx.y];
    const u32 *list = keep[blockIdx.y];
    int count = counts[blockIdx.y], part = blockIdx.x, quads = dim * (kv == KV_F32 ? 4 : 2) / 16;
    if (part == 0) {
        take((Quad *)there.keys, (const Quad *)at.keys, list, count, quads);
    } else if (part == 1) {
        take((Quad *)there.values, (const Quad *)at.values, list, count, quads);
    } else if (part == 2) {
        take(there.positions, at.positions, list, count, 1);
        if (there.offsets) take(there.offsets, at.offsets, list, count, 1);
    } else {
        int member = (part - 3) % group;
        u64 new_row = (u64)member * there.capacity, old_row = (u64)member * at.capacity;
        if (part - 3 < group)
            take(there.received + new_row, at.received + old_row, list, count, 1);
        else
            take(there.row + new_row, at.row + old_row, list, count, 1);
    }
}
EXPORT(gather)

// The slot of a position that ascending positions may hold, or −1. Where all are held it is the position itself.
DEVICE int find(const u32 *positions, int len, u32 position) {
    if (position < (u32)len && positions[position] == position) return (int)position;
    int low = 0, high = min((u32)len, position);
    while (low < high) {
        int middle = (low + high) / 2;
        if (positions[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < len && positions[low] == position ? low : -1;
}

KERNEL(position_means)(const Slots *slots, int records, int group, int positions, float *received, float *row) {
    u32 position = blockIdx.x * blockDim.x + threadIdx.x;
    if (position >= (u32)positions) return;
    float sum = 0.0f, newest = 0.0f;
    for (int i = 0; i < records; i++) {
        const Slots &at = slots[i];
        int slot = find(at.positions, at.len, position);
        if (slot < 0) continue;
        for (int m = 0; m < group; m++) {
            sum += at.received[(u64)m * at.capacity + slot];
            newest += at.row[(u64)m * at.capacity + slot];
        }
    }
    float inverse = 1.0f / ((float)records * (float)group);
    received[position] = sum * inverse;
    row[position] = newest * inverse;
}
EXPORT(position_means)
