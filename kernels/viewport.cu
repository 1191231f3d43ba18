// Attention maps computed again from the kept queries and the cached keys: whole rows, and tiles folded into pixels. Nothing
// of the size positions × slots is held for a tile. CPU twin: src/backend/cpu/tile.rs.
//
// map_rows: probabilities exp(s − lse) of some rows over all slots, 0 where a row does not see.
//   grid (⌈len / 32⌉, ⌈count / 32⌉), block 256, shared SHARED bytes. out [count, len].
// map_columns: of each row of pixels and each slot: its visible cells folded over the rows of the pixel.
//   grid (⌈len / 32⌉, height), block 256, shared SHARED bytes. sums, counts [height, len].
// map_pixels: those folded over the slots of each pixel, NaN where no cell is visible or held.
//   grid (⌈width / 8⌉, height), block 256. pixels [height, width].
//
// SHARED = 4 · 2 · 32 · (dim + 4). dim is a multiple of 8 up to 256. Bounded by f32 arithmetic in map_columns.
// Common arguments: queries [position, heads, dim] and their log-sum-exps lse [position, heads], both addressed from
// position 0 on; at: the record of the kv head; head; window and softcap: 0 for none; first: the first row asked for.
// Of a tile: rows first … first + tall and columns left … left + wide (positions), fold 0 max, 1 mean, 2 sum;
// 1 ≤ height ≤ tall, 1 ≤ width ≤ wide. Row y of pixels has rows first + ⌈y · tall / height⌉ …, columns likewise.
#include "attend.cuh"

constexpr int SIDE = 32;
enum Fold { MAX = 0, MEAN = 1, SUM = 2 };

// One head of one cache.
struct Map {
    const float *queries, *lse;
    Slots at;
    int heads, head, dim, kv, window;
    float scale, softcap;
};

// Probabilities of a block of 32 rows from `first` on and 32 slots, whose keys are in shared memory: thread (x, y) has rows
// 2 · y + i and slots x + 16 · j. `put(row, slot, p)` of what is visible, rows and slots from 0 on.
template <class Put>
DEVICE void each(const Map &map, float *queries, const float *keys, int first, int count, int tile, int held, Put put) {
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    u64 stride = (u64)map.heads * map.dim;
    __syncthreads();
    load(queries, map.queries, first * stride + (u64)map.head * map.dim, stride, count, SIDE, map.dim, KV_F32);
    __syncthreads();
    float s[2][2];
    dots<2>(queries, keys, map.dim, s);
    for (int i = 0; i < 2; i++) {
        int r = y * 2 + i;
        if (r >= count) continue;
        float all = map.lse[(u64)(first + r) * map.heads + map.head];
        for (int j = 0; j < 2; j++) {
            int t = x + 16 * j;
            if (t >= held || !sees(first + r, map.at.positions[tile + t], map.window)) continue;
            float offset = map.at.offsets ? map.at.offsets[tile + t] : 0.0f;
            put(r, t, expf(logit(s[i][j], map.scale, map.softcap) + offset - all));
        }
    }
}

KERNEL(map_rows)(const float *queries, const float *lse, const Slots *at, int heads, int head, int dim, int kv, int window,
                 float scale, float softcap, int first, int count, float *out) {
    DYNAMIC_SHARED(float, shared);
    Map map = {queries, lse, *at, heads, head, dim, kv, window, scale, softcap};
    float *keys = shared + SIDE * (dim + 4);
    int len = map.at.len, tile = blockIdx.x * SIDE, held = min(len - tile, SIDE), from = blockIdx.y * SIDE;
    int rows = min(count - from, SIDE);
    if (held <= 0 || rows <= 0) return;
    float *to = out + (u64)from * len + tile;
    for (int i = threadIdx.x; i < rows * held; i += (int)blockDim.x) to[(u64)(i / held) * len + i % held] = 0.0f;
    load(keys, map.at.keys, (u64)tile * dim, dim, held, SIDE, dim, kv);
    each(map, shared, keys, first + from, rows, tile, held, [=](int r, int t, float p) { to[(u64)r * len + t] = p; });
}
EXPORT(map_rows)

KERNEL(map_columns)(const float *queries, const float *lse, const Slots *at, int heads, int head, int dim, int kv,
                    int window, float scale, float softcap, int first, int tall, int height, int left, int wide, int fold,
                    float *sums, int *counts) {
    DYNAMIC_SHARED(float, shared);
    __shared__ float folded[16][SIDE];
    __shared__ int seen[16][SIDE];
    Map map = {queries, lse, *at, heads, head, dim, kv, window, scale, softcap};
    float *keys = shared + SIDE * (dim + 4);
    const u32 *positions = map.at.positions;
    int len = map.at.len, tile = blockIdx.x * SIDE, held = min(len - tile, SIDE);
    // Pixels beside this tile's slots are none of its business.
    if (held <= 0 || positions[tile] >= (u64)left + wide || positions[tile + held - 1] < (u32)left) return;
    load(keys, map.at.keys, (u64)tile * dim, dim, held, SIDE, dim, kv);
    int top = first + (int)(((u64)blockIdx.y * tall + height - 1) / height);
    int bottom = first + (int)(((blockIdx.y + 1ull) * tall + height - 1) / height);
    float sum[2] = {};
    int count[2] = {};
    for (int from = top; from < bottom; from += SIDE) {
        int rows = min(bottom - from, SIDE);
        if ((u32)(from + rows - 1) < positions[tile]) continue;
        if (window && (u64)from >= (u64)positions[tile + held - 1] + window) break;
        each(map, shared, keys, from, rows, tile, held, [&](int, int t, float p) {
            float &to = t < 16 ? sum[0] : sum[1];
            to = fold == MAX ? fmaxf(to, p) : to + p;
            (t < 16 ? count[0] : count[1])++;
        });
    }
    int x = threadIdx.x % 16, y = threadIdx.x / 16, t = threadIdx.x;
    for (int j = 0; j < 2; j++) {
        folded[y][x + 16 * j] = sum[j];
        seen[y][x + 16 * j] = count[j];
    }
    __syncthreads();
    if (t >= held) return;
    float all = 0.0f;
    int cells = 0;
    for (int i = 0; i < 16; i++) {
        all = fold == MAX ? fmaxf(all, folded[i][t]) : all + folded[i][t];
        cells += seen[i][t];
    }
    sums[(u64)blockIdx.y * len + tile + t] = all;
    counts[(u64)blockIdx.y * len + tile + t] = cells;
}
EXPORT(map_columns)

KERNEL(map_pixels)(const Slots *at, int left, int wide, int width, int fold, const float *sums, const int *counts,
                   float *pixels) {
    int lane = threadIdx.x % 32, x = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (x >= width) return;
    int len = at->len;
    int from = below(at->positions, len, left + ((u64)x * wide + width - 1) / width);
    int end = below(at->positions, len, left + ((x + 1ull) * wide + width - 1) / width);
    float all = 0.0f, cells = 0.0f;
    for (int t = from + lane; t < end; t += 32) {
        float sum = sums[(u64)blockIdx.y * len + t];
        all = fold == MAX ? fmaxf(all, sum) : all + sum;
        cells += (float)counts[(u64)blockIdx.y * len + t];
    }
    all = fold == MAX ? warp_max(all) : warp_sum(all);
    cells = warp_sum(cells);
    if (lane == 0)
        pixels[(u64)blockIdx.y * width + x] = cells == 0.0f ? __int_as_float(0x7fc00000) : fold == MEAN ? all / cells : all;
}
EXPORT(map_pixels)
