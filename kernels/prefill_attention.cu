// Attention of many rows of one cache (prefill), with the probes on the way. CPU twin: `attend_runs` and `fold_received` in
// src/backend/cpu/attention.rs. Nothing of the size rows × slots is held. Two kernels, launched one after the other:
//
// prefill_attention: output by an online softmax over tiles of slots, reductions and log-sum-exps of all rows.
//   grid (⌈longest count / ROWS⌉, heads, runs), block 256, shared 4 · (2 · ROWS · (dim + 4) + ROWS · (ROWS + 4)) bytes.
// prefill_received: probabilities once more from those log-sum-exps; columns are added up over all rows of the run in
//   their order, then added to `received`; the newest row goes to `row`, 0 where it sees nothing.
//   grid (⌈longest len / ROWS⌉, heads, runs), block 256, shared 4 · 2 · ROWS · (dim + 4) bytes.
//
// ROWS is 64 for dim ≤ 128, else 32: at most 85 KB, more than a kernel gets unasked. Runs of one row are left alone. dim is a
// multiple of 8 up to 256; first cells and rows of queries are aligned to 16 bytes. Bounded by f32 arithmetic: a block's
// tile of keys serves 64 (32) queries from shared memory, 64 products for 8 loads of 16 bytes a thread.
//
// Arguments: queries: row r's head h at r · query_stride + h · dim; runs [runs], whose rows ascend by position; slots: the
// layer's first record, of run i and kv head g at i · slot_stride + g; positions [rows of the pass]; window and softcap: 0
// for none; recent: tokens that count as recent; rows: rows of the pass; out [rows, heads · dim]; lse [heads, rows]:
// handed from the first kernel to the second; reductions [heads, rows, 6] of the layer; kept: the address of the log-sum-exps
// [position, heads] of run i's kept queries at i · kept_stride, read where the run keeps its queries. The last two may be
// null.
#include "attend.cuh"


// What both kernels are told.
struct Task {
    const float *queries;
    int query_stride;
    Run run;
    Slots at;
    const u32 *positions;
    int head, heads, member, dim, kv, window;
    float scale, softcap;
    int rows;
};

DEVICE Task task_of(const float *queries, int query_stride, const Run *runs, const Slots *slots, int slot_stride,
                    const u32 *positions, int group, int dim, int kv, int window, float scale, float softcap, int rows) {
    int head = blockIdx.y, heads = gridDim.y;
    const Slots &at = slots[(u64)blockIdx.z * slot_stride + head / group];
    return {queries, query_stride, runs[blockIdx.z], at,    positions, head, heads, head % group,
            dim,     kv,           window,           scale, softcap,   rows};
}

DEVICE void load_queries(float *to, const Task &task, int first, int count, int most) {
    u64 from = (u64)(task.run.first + first) * task.query_stride + (u64)task.head * task.dim;
    load(to, task.queries, from, task.query_stride, count, most, task.dim, KV_F32);
}

// The sum or the maximum of 16 neighbours.
DEVICE float sum16(float x) {
    for (int far = 8; far > 0; far /= 2) x += __shfl_xor_sync(ALL, x, far);
    return x;
}

DEVICE float max16(float x) {
    for (int far = 8; far > 0; far /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, far));
    return x;
}

// 16 · T rows; thread (x, y): rows y · T + i, slots x + 16 · j of a tile, channels 4 · x + 64 · j of the output.
template <int T, int J>
DEVICE void attend(const Task &task, int recent, float *shared, float *out, float *lse, float *reductions,
                   float *const *kept, int kept_stride) {
    constexpr int ROWS = 16 * T;
    int dim = task.dim, x = threadIdx.x % 16, y = threadIdx.x / 16;
    int first = blockIdx.x * ROWS, count = min(task.run.count - first, ROWS);
    if (count <= 0) return;
    float *queries = shared, *cells = queries + ROWS * (dim + 4), *weights = cells + ROWS * (dim + 4);
    const Slots &at = task.at;
    const u32 *positions = task.positions + task.run.first + first;
    u32 oldest = positions[0], newest = positions[count - 1];
    bool cut = task.window && oldest >= (u32)task.window;
    int end = below(at.positions, at.len, newest + 1ull);
    int from = (cut ? below(at.positions, end, oldest + 1ull - task.window) : 0) / ROWS * ROWS;
    load_queries(queries, task, first, count, ROWS);
    Sums sums[T];
    float weighted[T][4 * J] = {};
    u32 mine[T];
    for (int i = 0; i < T; i++) {
        mine[i] = positions[min(y * T + i, count - 1)];
    }
    for (int tile = from; tile < end; tile += ROWS) {
        int held = min(end - tile, ROWS);
        __syncthreads();
        load(cells, at.keys, (u64)tile * dim, dim, held, ROWS, dim, task.kv);
        __syncthreads();
        float s[T][T];
        dots<T>(queries, cells, dim, s);
        u32 where[T];
        float offset[T];
        for (int j = 0; j < T; j++) {
            int t = tile + min(x + 16 * j, held - 1);
            where[j] = at.positions[t];
            offset[j] = at.offsets ? at.offsets[t] : 0.0f;
        }
        for (int i = 0; i < T; i++) {
            float top = LOWEST;
            bool seen[T];
            for (int j = 0; j < T; j++) {
                seen[j] = x + 16 * j < held && y * T + i < count && sees(mine[i], where[j], task.window);
                s[i][j] = logit(s[i][j], task.scale, task.softcap) + offset[j];
                if (seen[j]) top = fmaxf(top, s[i][j]);
            }
            Sums &of = sums[i];
            top = fmaxf(of.most, max16(top));
            float worth = of.raise(top);
            for (int c = 0; c < 4 * J; c++) weighted[i][c] *= worth;
            for (int j = 0; j < T; j++) {
                float e = seen[j] ? expf(s[i][j] - top) : 0.0f;
                weights[(y * T + i) * (ROWS + 4) + x + 16 * j] = e;
                if (seen[j]) of.add(s[i][j], e, mine[i], where[j], recent);
            }
        }
        __syncthreads();
        load(cells, at.values, (u64)tile * dim, dim, held, ROWS, dim, task.kv);
        __syncthreads();
        for (int t = 0; t < ROWS; t += 4) {
            Four p[T];
            for (int i = 0; i < T; i++) p[i] = *(const Four *)(weights + (y * T + i) * (ROWS + 4) + t);
            for (int u = 0; u < 4; u++)
                for (int j = 0; j < J; j++) {
                    int c = 4 * x + 64 * j;
                    if (c >= dim) continue;
                    Four v = *(const Four *)(cells + (t + u) * (dim + 4) + c);
                    for (int i = 0; i < T; i++)
                        for (int k = 0; k < 4; k++)
                            weighted[i][4 * j + k] = fmaf(p[i].x[u], v.x[k], weighted[i][4 * j + k]);
                }
        }
    }
    for (int i = 0; i < T; i++) {
        const Sums &of = sums[i];
        float total = sum16(of.total), moment = sum16(of.moment), near = sum16(of.recent);
        float start = sum16(of.first), distance = sum16(of.distance);
        if (y * T + i >= count) continue;
        int r = task.run.first + first + y * T + i;
        float share = total > 0.0f ? 1.0f / total : 0.0f, log = logf(total);
        for (int j = 0; j < J; j++)
            for (int k = 0; k < 4 && 4 * x + 64 * j < dim; k++)
                out[((u64)r * task.heads + task.head) * dim + 4 * x + 64 * j + k] = weighted[i][4 * j + k] * share;
        if (x != 0) continue;
        lse[(u64)task.head * task.rows + r] = of.most + log;
        if (reductions) {
            float *to = reductions + ((u64)task.head * task.rows + r) * REDUCTIONS;
            to[LSE] = of.most + log;
            to[ENTROPY] = log - moment * share;
            to[FIRST] = start * share;
            to[RECENT] = near * share;
            to[DISTANCE] = distance * share;
            to[MOST] = share;
        }
        if (kept && task.run.queries)
            kept[(u64)blockIdx.z * kept_stride][(u64)mine[i] * task.heads + task.head] = of.most + log;
    }
}

KERNEL(prefill_attention)(const float *queries, int query_stride, const Run *runs, const Slots *slots, int slot_stride,
                          const u32 *positions, int group, int dim, int kv, int window, float scale, float softcap,
                          int rows, int recent, float *out, float *lse, float *reductions, float *const *kept,
                          int kept_stride) {
    DYNAMIC_SHARED(float, shared);
    if (runs[blockIdx.z].count < 2) return;
    Task task = task_of(queries, query_stride, runs, slots, slot_stride, positions, group, dim, kv, window, scale, softcap,
                        rows);
    if (dim <= 64)
        attend<4, 1>(task, recent, shared, out, lse, reductions, kept, kept_stride);
    else if (dim <= 128)
        attend<4, 2>(task, recent, shared, out, lse, reductions, kept, kept_stride);
    else
        attend<2, 4>(task, recent, shared, out, lse, reductions, kept, kept_stride);
}
EXPORT(prefill_attention)

template <int T>
DEVICE void receive(const Task &task, const float *lse, float *shared) {
    constexpr int ROWS = 16 * T;
    __shared__ float sums[16][ROWS], newest[ROWS];
    int dim = task.dim, x = threadIdx.x % 16, y = threadIdx.x / 16;
    const Slots &at = task.at;
    int tile = blockIdx.x * ROWS, held = min(at.len - tile, ROWS);
    if (held <= 0) return;
    float *queries = shared, *cells = queries + ROWS * (dim + 4);
    load(cells, at.keys, (u64)tile * dim, dim, held, ROWS, dim, task.kv);
    u32 where[T], oldest = at.positions[tile], youngest = at.positions[tile + held - 1];
    float offset[T], received[T] = {};
    for (int j = 0; j < T; j++) {
        int t = tile + min(x + 16 * j, held - 1);
        where[j] = at.positions[t];
        offset[j] = at.offsets ? at.offsets[t] : 0.0f;
    }
    if (threadIdx.x < ROWS) newest[threadIdx.x] = 0.0f;
    const u32 *positions = task.positions + task.run.first;
    for (int first = 0; first < task.run.count; first += ROWS) {
        int count = min(task.run.count - first, ROWS);
        if (positions[first + count - 1] < oldest) continue;
        if (task.window && positions[first] >= (u64)youngest + task.window) break;
        __syncthreads();
        load_queries(queries, task, first, count, ROWS);
        __syncthreads();
        float s[T][T];
        dots<T>(queries, cells, dim, s);
        for (int i = 0; i < T; i++) {
            int r = first + y * T + i;
            if (r >= first + count) continue;
            u32 mine = positions[r];
            float below = lse[(u64)task.head * task.rows + task.run.first + r];
            for (int j = 0; j < T; j++) {
                if (x + 16 * j >= held || !sees(mine, where[j], task.window)) continue;
                float p = expf(logit(s[i][j], task.scale, task.softcap) + offset[j] - below);
                received[j] += p;
                if (r == task.run.count - 1) newest[x + 16 * j] = p;
            }
        }
    }
    for (int j = 0; j < T; j++) sums[y][x + 16 * j] = received[j];
    __syncthreads();
    int t = threadIdx.x;
    if (t >= held) return;
    float sum = 0.0f;
    for (int i = 0; i < 16; i++) sum += sums[i][t];
    u64 to = (u64)task.member * at.capacity + tile + t;
    at.received[to] += sum;
    at.row[to] = newest[t];
}

KERNEL(prefill_received)(const float *queries, int query_stride, const Run *runs, const Slots *slots, int slot_stride,
                         const u32 *positions, int group, int dim, int kv, int window, float scale, float softcap,
                         int rows, const float *lse) {
    DYNAMIC_SHARED(float, shared);
    if (runs[blockIdx.z].count < 2) return;
    Task task = task_of(queries, query_stride, runs, slots, slot_stride, positions, group, dim, kv, window, scale, softcap,
                        rows);
    if (dim <= 128)
        receive<4>(task, lse, shared);
    else
        receive<2>(task, lse, shared);
}
EXPORT(prefill_received)
