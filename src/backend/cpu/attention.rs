//! Attention of many rows of one cache (prefill), with the probes on the way.

use std::sync::Arc;

use crate::backend::{Attention, Buf, Row};
use crate::cache::{Cells, TILE};
use crate::policy::watch::{RowAt, Watch};

use super::CpuBackend;
use super::attend::{BLOCK, scores, weigh, widen_keys, widen_values};
use super::attend_sparse::SparseRows;
use super::program::{Exec, Items, QUERY_BLOCK, Run};
use super::simd::vectorized;
use super::softmax::{RowReductions, softmax};
use super::sources::sources;

/// Slots that a query at `position` sees: `from..to` of the ascending `positions`.
pub fn visible(positions: &[u32], position: u32, window: Option<usize>) -> (usize, usize) {
    let to = positions.partition_point(|&p| p <= position);
    let from = window.map_or(0, |w| positions.partition_point(|&p| p as u64 + w as u64 <= position as u64));
    (from.min(to), to)
}

/// out = softmax(q·kᵀ) · v of the rows that follow others in one cache; out [rows, H·D]. One item per
/// (run of rows, head, block of queries).
pub fn attend_runs(exec: &Exec<'_>, items: Items<'_>, attention: &Attention, qkv: Buf, out: Buf) {
    let work: Vec<(usize, usize)> = exec
        .runs
        .iter()
        .enumerate()
        .filter(|(_, run)| run.len > 1)
        .flat_map(|(i, run)| (0..run.len.div_ceil(QUERY_BLOCK)).map(move |block| (i, block)))
        .collect();
    // Late blocks see more keys: the longest go first, so that no thread is left with one at the end.
    let mut scratch = Scratch::default();
    items.each(work.len() * exec.heads, 1, |item| {
        let (run, block) = work[work.len() - 1 - item / exec.heads];
        let head = item % exec.heads;
        many(exec, attention, &exec.runs[run], head, block, qkv, out, &mut scratch);
    });
}

/// Slots whose keys and values are spread to f32 at a time: what stays in the second-level cache.
const STRIP: usize = 256;

/// One thread's memory for blocks of queries.
#[derive(Default)]
struct Scratch {
    /// Scores, then probabilities [rows, stride].
    p: Vec<f32>,
    /// [rows, D]
    queries: Vec<f32>,
    /// Weighted sums of values [rows, D].
    sums: Vec<f32>,
    /// Column sums of the block [stride].
    received: Vec<f32>,
    /// What watches make of the block [watch, stride], and a row for them to write on.
    watched: Vec<f32>,
    shown: Vec<f32>,
    wide: Cells<f32>,
}

/// Up to [`QUERY_BLOCK`] queries that follow each other in one cache.
#[allow(clippy::too_many_arguments)]
fn many(
    exec: &Exec<'_>,
    attention: &Attention,
    run: &Run,
    head: usize,
    block: usize,
    qkv: Buf,
    out: Buf,
    scratch: &mut Scratch,
) {
    let (d, group) = (exec.dim, exec.heads / exec.kv_heads);
    let first = run.first + block * QUERY_BLOCK;
    let count = QUERY_BLOCK.min(run.first + run.len - first);
    // SAFETY: nobody changes keys, values, positions or queries in this operation.
    let sources = unsafe { sources(exec, attention, run, head / group, qkv) };
    let cache = sources.own;
    let stride = cache.len().next_multiple_of(TILE);
    // Rows up to a whole register block: the spare ones stay zero.
    let rows = count.next_multiple_of(BLOCK);
    let span = |r: usize| visible(&cache.positions, exec.rows[r].position, attention.window);
    let (from, end) = (span(first).0 / TILE * TILE, span(first + count - 1).1);
    let Scratch { p, queries, sums, received, watched, shown, wide } = scratch;
    let watches = watches(exec, run);
    for (memory, n) in [
        (&mut *p, rows * stride),
        (&mut *queries, rows * d),
        (&mut *sums, rows * d),
        (&mut *received, stride),
        (&mut *watched, watches.len() * stride),
    ] {
        memory.clear();
        memory.resize(n, 0.0);
    }
    for (m, q) in queries.chunks_exact_mut(d).take(count).enumerate() {
        // SAFETY: nobody writes queries in this operation.
        q.copy_from_slice(unsafe { &sources.queries.row(first + m)[head * d..(head + 1) * d] });
    }
    let sparse = exec.sparse[run.cache].filter(|_| attention.window.is_none());
    let sparse = sparse.map(|read| SparseRows::new(read, exec, attention, run, (first, count), cache, head, qkv));
    let strips = || (from..end).step_by(STRIP).map(|at| (at, end.min(at + STRIP)));
    for (at, to) in strips() {
        vectorized(
            #[inline(always)]
            || {
                widen_keys(sources.keys, at..to, wide);
                scores(
                    queries,
                    rows,
                    d,
                    wide,
                    0..(to - at).div_ceil(TILE),
                    #[inline(always)]
                    |m, tile, s| {
                        p[m * stride + at + tile * TILE..][..TILE].copy_from_slice(s);
                    },
                );
            },
        );
    }
    for m in 0..count {
        let (lo, hi) = span(first + m);
        let row = &mut p[m * stride..(m + 1) * stride];
        row[from..lo].fill(0.0);
        row[hi..].fill(0.0);
        let position = exec.rows[first + m].position;
        if let Some(sparse) = &sparse {
            // what a row borrows is in its column sums, not in its own reductions
            let (reductions, covered) = sparse.weigh(&mut row[..hi], position);
            received[..hi].iter_mut().zip(&row[..hi]).for_each(|(sum, v)| *sum += v);
            put(exec, attention.layer, head, run, first + m, reductions);
            put_covered(exec, attention.layer, head, first + m, covered);
            continue;
        }
        let reductions = vectorized(
            #[inline(always)]
            || {
                let reductions = softmax(
                    &mut row[lo..hi],
                    &cache.positions[lo..hi],
                    position,
                    attention.scale,
                    attention.softcap,
                    sources.keys.offsets.get(lo..hi).unwrap_or_default(),
                    exec.recent_window,
                );
                received[lo..hi].iter_mut().zip(&row[lo..hi]).for_each(|(sum, v)| *sum += v);
                reductions
            },
        );
        put(exec, attention.layer, head, run, first + m, reductions);
        let at = RowAt { layer: attention.layer, head, position };
        for (watch, sums) in watches.iter().zip(watched.chunks_exact_mut(stride.max(1))) {
            shown.clear();
            shown.extend_from_slice(&row[lo..hi]);
            watch.row(at, &cache.positions[lo..hi], shown, &mut sums[lo..hi]);
        }
    }
    p[count * stride..].fill(0.0);
    for (at, to) in strips() {
        vectorized(
            #[inline(always)]
            || {
                widen_values(sources.values, at..to, wide);
                let row = |m: usize| &p[m * stride + at..m * stride + to];
                weigh(row, rows, &wide.values, d, 0..d, 0..to - at, sums);
            },
        );
    }
    // SAFETY: one thread per (row, head) and per (head, block); the last block alone writes the head's newest row.
    unsafe {
        for (m, sums) in sums.chunks_exact(d).take(count).enumerate() {
            exec.buffers[out.0].part_mut(first + m, head * d, (head + 1) * d).copy_from_slice(sums);
        }
        let place = head * blocks(exec) + block_index(exec, run, block);
        exec.probes.received.part_mut(place, 0, stride).copy_from_slice(received);
        for (watch, sums) in watched.chunks_exact(stride.max(1)).enumerate() {
            let place = watch * blocks(exec) * exec.heads + place;
            exec.probes.watched.part_mut(place, 0, stride).copy_from_slice(sums);
        }
        if first + count == run.first + run.len {
            cache.row[head % group].part_mut(0..stride).copy_from_slice(&p[(count - 1) * stride..count * stride]);
        }
    }
}

/// What looks at the rows of a run.
pub fn watches<'a>(exec: &Exec<'a>, run: &Run) -> &'a [Arc<dyn Watch>] {
    let kept = exec.queries.as_ref().is_some_and(|(cache, _)| *cache == run.cache);
    if kept { exec.watches } else { &[] }
}

/// Query blocks of all runs together.
pub fn blocks(exec: &Exec<'_>) -> usize {
    exec.runs.iter().map(|run| run.len.div_ceil(QUERY_BLOCK)).sum()
}

fn block_index(exec: &Exec<'_>, run: &Run, block: usize) -> usize {
    let before = exec.runs.iter().take_while(|other| other.first < run.first);
    before.map(|other| other.len.div_ceil(QUERY_BLOCK)).sum::<usize>() + block
}

pub fn put(exec: &Exec<'_>, layer: usize, head: usize, run: &Run, r: usize, x: RowReductions) {
    let at = (layer * exec.heads + head) * exec.rows.len() + r;
    // SAFETY: one thread per (row, head).
    unsafe {
        let to = exec.probes.attention.row_mut(at);
        to.copy_from_slice(&[x.lse, x.entropy, x.first, x.recent, x.distance, x.most]);
        if let Some((cache, queries)) = &exec.queries
            && *cache == run.cache
        {
            queries.put_lse(layer, head, exec.rows[r].position, x.lse);
        }
    }
}

fn put_covered(exec: &Exec<'_>, layer: usize, head: usize, r: usize, covered: f32) {
    // SAFETY: one thread per (row, head).
    unsafe { exec.probes.covered.row_mut((layer * exec.heads + head) * exec.rows.len() + r)[0] = covered };
}

pub fn fold_received(exec: &Exec<'_>, items: Items<'_>, layer: usize) {
    let group = exec.heads / exec.kv_heads;
    items.each(exec.heads, 1, |head| {
        for run in exec.runs.iter().filter(|run| run.len > 1) {
            // SAFETY: one thread per head; sums of different heads are different vectors.
            unsafe {
                let cache = exec.caches[run.cache][layer * exec.kv_heads + head / group].shared();
                let n = cache.len();
                let sums = cache.received[head % group].part_mut(0..n);
                for block in 0..run.len.div_ceil(QUERY_BLOCK) {
                    let part = &exec.probes.received.row(head * blocks(exec) + block_index(exec, run, block))[..n];
                    vectorized(
                        #[inline(always)]
                        || sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += v),
                    );
                    for watch in 0..watches(exec, run).len() {
                        let place = (watch * exec.heads + head) * blocks(exec) + block_index(exec, run, block);
                        let sums = exec.watched[watch][layer * exec.heads + head].part_mut(0..n);
                        let part = &exec.probes.watched.row(place)[..n];
                        sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
                    }
                }
            }
        }
    });
}

impl CpuBackend {
    /// Slots that a layer's attention of this pass touches, all rows and kv heads together, and the bytes of their
    /// keys and values.
    pub(super) fn visible_slots(&self, layer: usize, window: Option<usize>) -> (u64, u64) {
        let g = self.shape.kv_heads;
        let exact = (2 * self.shape.head_dim * self.shape.kv.bytes()) as u64;
        let count = |row: &Row| {
            let head = &self.caches[row.cache.0][layer * g];
            let held = head.len() as u64 + 1;
            let seen = held.min(window.map_or(u64::MAX, |w| w as u64));
            (seen * g as u64, (head.live_bytes() + exact) * seen / held * g as u64)
        };
        self.rows.iter().map(count).fold((0, 0), |(slots, bytes), (s, b)| (slots + s, bytes + b))
    }
}
