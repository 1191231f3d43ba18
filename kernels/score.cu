// From scores to kept slots. CPU twin: `select` in src/policy/select.rs.
//
// select_slots: of each record the slots that stay, at most budgets[i], ascending: forced ones first (they count inside the
//   budget; of too many the newest stay), then the highest scores, equal ones newer first, NaN below every number.
//   scores, forced (bytes, 0 or 1), keep: an address per record; lens: slots; keep has room for min(len, budget), and
//   counts gets how many there are: what compact takes. Grid: records; block: 256.
//   The lowest rank that stays is found by its bytes, highest first; ranks are unique. Bounded by latency: ten walks over
//   the scores of a record, which stay in the second-level cache.
#include "scope.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;

// Forced before free, then by score, then newer before older. −0 equals 0.
DEVICE u64 rank_of(float score, bool forced, u32 slot) {
    u32 bits = __float_as_uint(score + 0.0f), order = bits ^ ((bits >> 31 ? 0x7fffffffu : 0u) | 0x80000000u);
    if (forced || score != score) order = 0;
    return (u64)forced << 63 | (u64)order << 31 | slot;
}

KERNEL(select_slots)(const float *const *scores, const u8 *const *forced, const int *lens, const int *budgets,
                     u32 *const *keep, int *counts) {
    __shared__ int having[256], stay[WARPS], need;
    __shared__ u64 lowest;
    const float *score = scores[blockIdx.x];
    const u8 *force = forced[blockIdx.x];
    u32 *to = keep[blockIdx.x];
    int len = lens[blockIdx.x], budget = min(budgets[blockIdx.x], len), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (threadIdx.x == 0) {
        counts[blockIdx.x] = budget;
        need = budget;
        lowest = 0;
    }
    if (budget == 0) return;
    for (int shift = 56; budget < len && shift >= 0; shift -= 8) {
        having[threadIdx.x] = 0;
        __syncthreads();
        u64 found = lowest;
        int missing = need;
        for (int i = threadIdx.x; i < len; i += THREADS) {
            u64 rank = rank_of(score[i], force[i], i);
            if ((rank ^ found) >> shift < 256) atomicAdd(&having[rank >> shift & 255], 1);
        }
        __syncthreads();
        // One thread per value of the byte: how many ranks have a larger one.
        int larger = 0;
        for (int digit = 255; digit > (int)threadIdx.x; digit--) larger += having[digit];
        if (larger < missing && missing <= larger + having[threadIdx.x]) {
            need = missing - larger;
            lowest = found | (u64)threadIdx.x << shift;
        }
        __syncthreads();
    }
    __syncthreads();
    int before = 0;
    for (int from = 0; from < len; from += THREADS) {
        int i = from + threadIdx.x;
        bool stays = i < len && rank_of(score[i], force[i], i) >= lowest;
        u32 all = __ballot_sync(ALL, stays);
        if (lane == 0) stay[warp] = __popc(all);
        __syncthreads();
        int place = before + __popc(all & ((1u << lane) - 1));
        for (int w = 0; w < WARPS; w++) {
            if (w < warp) place += stay[w];
            before += stay[w];
        }
        if (stays) to[place] = i;
        __syncthreads();
    }
}
EXPORT(select_slots)
