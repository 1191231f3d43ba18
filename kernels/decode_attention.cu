// Attention of rows that come alone in their cache (decoding): many caches at once, ragged per kv head, with the probes on
// the way. CPU twin: src/backend/cpu/attend_single.rs, softmax.rs. Two kernels, launched one after the other:
//
// decode_split: one walk over keys and values for up to 8 query heads of a group. Leaves logits in `row`, and of each
//   split of the slots that are seen the unfinished reductions and weighted values.
//   grid (splits, kv heads · ⌈group / 8⌉, runs), block 256.
// decode_merge: puts the splits together in their order: output, reductions, log-sum-exps; logits in `row` become
//   probabilities (0 where nothing is seen), which are added to `received`.
//   grid (any number, heads, runs), block 128.
//
// A split is so many slots that there are at most 64 (SPLITS) of them, in whole strips of 128: what a row gives depends on
// what its own kv head sees and on nothing else that runs. `splits` ≥ min(64, ⌈longest len / 128⌉) for all runs.
// Runs of more than one row are left alone. Bounded by memory: keys and values come once, 16 bytes a load; their first
// cells are aligned to 16 bytes, dim is a multiple of 8 up to 256.
//
// Arguments: queries: row r's head h at r · query_stride + h · dim; runs [runs]; slots: the layer's first record, of run i
// and kv head g at i · slot_stride + g; positions [rows of the pass]; window and softcap: 0 for none; recent: tokens that
// count as recent; stats [runs, heads, splits, 6] and partial [runs, heads, splits, dim]: handed from the first kernel
// to the second; out [rows, heads · dim]; reductions [heads, rows, 6] of the layer; kept: the address of the
// log-sum-exps [position, heads] of run i's kept queries at i · kept_stride, read where the run keeps its queries. The
// last two may be null.
#include "attend.cuh"

constexpr int HEADS = 8, STRIP = 128, SPLITS = 64, WIDEST = 256, THREADS = 256, OCTETS = THREADS / 8;

// The slots that a row sees, and how they are split.
struct Seen {
    int from, end, span;
    DEVICE Seen(const Slots &at, u32 position, int window) {
        end = below(at.positions, at.len, position + 1ull);
        from = window && position >= (u32)window ? below(at.positions, end, position + 1ull - window) : 0;
        int least = (end - from + SPLITS - 1) / SPLITS;
        span = max(1, (least + STRIP - 1) / STRIP) * STRIP;
    }
    DEVICE int splits() const { return (end - from + span - 1) / span; }
};

struct Work {
    float queries[HEADS * WIDEST];
    // Logits, then e^(s − largest).
    float weights[HEADS][STRIP];
    // What the weighted values of earlier strips are still worth.
    float factor[HEADS];
    // Weighted values by slices of the slots [slice, dim].
    float slices[THREADS * 8];
};

struct Task {
    const Slots *at;
    // The first query head within the group, and how many there are.
    int base, heads;
    // Slots.
    int from, end;
    u32 position;
    int dim, kv;
    float scale, softcap;
    int recent;
    // Of the first query head; of the next ones so many numbers on.
    float *stats, *partial;
    u64 stats_stride, partial_stride;
};

// Logits of a strip into `weights`: eight threads a slot, two slots at a time.
template <int M>
DEVICE void score(Work &work, const Task &task, int strip, int count) {
    int octet = threadIdx.x / 8, part = threadIdx.x % 8, dim = task.dim;
    for (int t = octet; t < STRIP; t += 2 * OCTETS) {
        float sums[2][M] = {};
        for (int c = part * 8; c < dim; c += 64) {
            float keys[2][8];
            for (int i = 0; i < 2; i++) {
                int slot = min(strip + t + i * OCTETS, task.end - 1);
                kv_get8(task.at->keys, (u64)slot * dim + c, task.kv, keys[i]);
            }
            for (int m = 0; m < M; m++)
                for (int k = 0; k < 8; k++) {
                    float q = work.queries[m * dim + c + k];
                    sums[0][m] = fmaf(q, keys[0][k], sums[0][m]);
                    sums[1][m] = fmaf(q, keys[1][k], sums[1][m]);
                }
        }
        for (int i = 0; i < 2; i++) {
            float mine = 0.0f;
            for (int m = 0; m < M; m++) {
                for (int far = 4; far > 0; far /= 2) sums[i][m] += __shfl_xor_sync(ALL, sums[i][m], far);
                if (part == m) mine = sums[i][m];
            }
            int slot = t + i * OCTETS;
            if (part >= M || slot >= count) continue;
            mine = logit(mine, task.scale, task.softcap);
            if (task.at->offsets) mine += task.at->offsets[strip + slot];
            work.weights[part][slot] = mine;
        }
    }
}

// Logits of a strip into `row`, and their exponentials into `weights`.
DEVICE void exponentiate(Work &work, const Task &task, int head, int strip, int count, Sums &sums) {
    int lane = threadIdx.x % 32;
    float top = LOWEST;
    for (int t = lane; t < count; t += 32) top = fmaxf(top, work.weights[head][t]);
    top = fmaxf(sums.most, warp_max(top));
    float worth = sums.raise(top);
    float *row = task.at->row + (u64)(task.base + head) * task.at->capacity + strip;
    for (int t = lane; t < count; t += 32) {
        float s = work.weights[head][t], e = expf(s - top);
        row[t] = s;
        work.weights[head][t] = e;
        sums.add(s, e, task.position, task.at->positions[strip + t], task.recent);
    }
    if (lane == 0) work.factor[head] = worth;
}

template <int M>
DEVICE void walk(Work &work, const Task &task) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, dim = task.dim;
    int chunks = dim / 8, slices = THREADS / chunks, chunk = threadIdx.x % chunks, slice = threadIdx.x / chunks;
    Sums sums;
    float weighted[M][8] = {};
    for (int strip = task.from; strip < task.end; strip += STRIP) {
        int count = min(task.end - strip, STRIP);
        score<M>(work, task, strip, count);
        __syncthreads();
        if (warp < task.heads) exponentiate(work, task, warp, strip, count, sums);
        __syncthreads();
        for (int m = 0; m < M; m++)
            for (int k = 0; k < 8; k++) weighted[m][k] *= m < task.heads ? work.factor[m] : 0.0f;
        for (int t = slice; slice < slices && t < count; t += slices) {
            float values[8];
            kv_get8(task.at->values, (u64)(strip + t) * dim + chunk * 8, task.kv, values);
            for (int m = 0; m < M; m++)
                for (int k = 0; k < 8; k++) weighted[m][k] = fmaf(work.weights[m][t], values[k], weighted[m][k]);
        }
        __syncthreads();
    }
    if (warp < task.heads) {
        float all[] = {warp_sum(sums.total), warp_sum(sums.moment), warp_sum(sums.first), warp_sum(sums.recent),
                       warp_sum(sums.distance), sums.most};
        float *to = task.stats + warp * task.stats_stride;
        for (int i = 0; lane == 0 && i < REDUCTIONS; i++) to[i] = all[i];
    }
    for (int m = 0; m < M; m++) {
        if (m >= task.heads) break;
        for (int k = 0; slice < slices && k < 8; k++) work.slices[slice * dim + chunk * 8 + k] = weighted[m][k];
        __syncthreads();
        for (int c = threadIdx.x; c < dim; c += THREADS) {
            float sum = 0.0f;
            for (int i = 0; i < slices; i++) sum += work.slices[i * dim + c];
            task.partial[m * task.partial_stride + c] = sum;
        }
        __syncthreads();
    }
}

KERNEL(decode_split)(const float *queries, int query_stride, const Run *runs, const Slots *slots, int slot_stride,
                     const u32 *positions, int group, int dim, int kv, int window, float scale, float softcap,
                     int recent, int splits, float *stats, float *partial) {
    __shared__ Work work;
    Run run = runs[blockIdx.z];
    if (run.count != 1) return;
    int parts = (group + HEADS - 1) / HEADS, kv_head = blockIdx.y / parts, heads = gridDim.y / parts * group;
    Task task;
    task.at = slots + (u64)blockIdx.z * slot_stride + kv_head;
    task.base = blockIdx.y % parts * HEADS;
    task.heads = min(group - task.base, (int)HEADS);
    task.position = positions[run.first];
    Seen seen(*task.at, task.position, window);
    int split = blockIdx.x;
    if (split >= seen.splits()) return;
    task.from = seen.from + split * seen.span;
    task.end = min(seen.end, task.from + seen.span);
    task.dim = dim;
    task.kv = kv;
    task.scale = scale;
    task.softcap = softcap;
    task.recent = recent;
    int head = kv_head * group + task.base;
    u64 place = ((u64)blockIdx.z * heads + head) * splits + split;
    task.stats = stats + place * REDUCTIONS;
    task.partial = partial + place * dim;
    task.stats_stride = (u64)splits * REDUCTIONS;
    task.partial_stride = (u64)splits * dim;
    for (int i = threadIdx.x; i < HEADS * dim; i += THREADS)
        work.queries[i] = i < task.heads * dim ? queries[(u64)run.first * query_stride + head * dim + i] : 0.0f;
    __syncthreads();
    if (task.heads == 1)
        walk<1>(work, task);
    else if (task.heads == 2)
        walk<2>(work, task);
    else if (task.heads <= 4)
        walk<4>(work, task);
    else
        walk<8>(work, task);
}
EXPORT(decode_split)

KERNEL(decode_merge)(const Run *runs, const Slots *slots, int slot_stride, const u32 *positions, int group, int dim,
                     int window, int splits, const float *stats, const float *partial, int rows, float *out,
                     float *reductions, float *const *kept, int kept_stride) {
    // What each split's values are worth; the largest logit; 1 / Σ.
    __shared__ float worth[SPLITS], top, inverse;
    Run run = runs[blockIdx.z];
    if (run.count != 1) return;
    int head = blockIdx.y, heads = gridDim.y, lane = threadIdx.x % 32;
    const Slots &at = slots[(u64)blockIdx.z * slot_stride + head / group];
    u32 position = positions[run.first];
    Seen seen(at, position, window);
    u64 place = ((u64)blockIdx.z * heads + head) * splits;
    if (threadIdx.x < 32) {
        const float *of = stats + place * REDUCTIONS;
        float most = LOWEST;
        for (int i = lane; i < seen.splits(); i += 32) most = fmaxf(most, of[i * REDUCTIONS + MOST]);
        most = warp_max(most);
        float total = 0.0f, moment = 0.0f, first = 0.0f, recent = 0.0f, distance = 0.0f;
        for (int i = lane; i < seen.splits(); i += 32) {
            const float *part = of + i * REDUCTIONS;
            float behind = part[MOST] - most, e = expf(behind);
            worth[i] = e;
            total = fmaf(e, part[0], total);
            moment = fmaf(e, fmaf(part[0], behind, part[1]), moment);
            first = fmaf(e, part[2], first);
            recent = fmaf(e, part[3], recent);
            distance = fmaf(e, part[4], distance);
        }
        total = warp_sum(total);
        moment = warp_sum(moment);
        first = warp_sum(first);
        recent = warp_sum(recent);
        distance = warp_sum(distance);
        if (lane == 0) {
            float share = total > 0.0f ? 1.0f / total : 0.0f, log = logf(total);
            top = most;
            inverse = share;
            if (blockIdx.x == 0) {
                if (reductions) {
                    float *to = reductions + ((u64)head * rows + run.first) * REDUCTIONS;
                    to[LSE] = most + log;
                    to[ENTROPY] = log - moment * share;
                    to[FIRST] = first * share;
                    to[RECENT] = recent * share;
                    to[DISTANCE] = distance * share;
                    to[MOST] = share;
                }
                if (kept && run.queries) kept[(u64)blockIdx.z * kept_stride][(u64)position * heads + head] = most + log;
            }
        }
    }
    __syncthreads();
    for (int c = threadIdx.x; blockIdx.x == 0 && c < dim; c += blockDim.x) {
        float sum = 0.0f;
        for (int i = 0; i < seen.splits(); i++) sum = fmaf(worth[i], partial[(place + i) * dim + c], sum);
        out[((u64)run.first * heads + head) * dim + c] = sum * inverse;
    }
    float *row = at.row + (u64)(head % group) * at.capacity, *received = at.received + (u64)(head % group) * at.capacity;
    for (int t = blockIdx.x * blockDim.x + threadIdx.x; t < at.len; t += gridDim.x * blockDim.x) {
        bool sees = t >= seen.from && t < seen.end;
        float p = sees ? expf(row[t] - top) * inverse : 0.0f;
        row[t] = p;
        if (sees) received[t] += p;
    }
}
EXPORT(decode_merge)
