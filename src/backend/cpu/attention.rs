//! Rope, append and attention of one layer, with the probes on the way.

use crate::backend::{Attention, Buf};
use crate::cache::{Cells, HeadCache, TILE, with_cells};

use super::attend::{BLOCK, scores, scores_block, weigh, weigh_block, widen};
use super::elementwise::normed;
use super::program::{Exec, Items, QUERY_BLOCK, Run};
use super::simd::{sum_by, sum_of_squares, vectorized};
use super::softmax::{RowReductions, softmax};

/// Norms (where the model has them) and rotates queries and keys in place, appends keys and values to each row's
/// cache and keeps the queries. qkv [rows, (H + 2G)·D] = queries, keys, values. One item per head.
pub fn rope(exec: &Exec<'_>, items: Items<'_>, attention: &Attention, qkv: Buf) {
    let (h, g, d) = (exec.heads, exec.kv_heads, exec.dim);
    let half = d / 2;
    let grid = &exec.buffers[qkv.0];
    let angles = &exec.angles[attention.rope];
    items.each(h + g, 1, |head| {
        let is_key = head >= h;
        for run in exec.runs {
            for r in run.first..run.first + run.len {
                // SAFETY: one thread per head's columns.
                let x = unsafe { grid.part_mut(r, head * d, (head + 1) * d) };
                if let Some((q, k, eps)) = attention.qk_norm {
                    let weight = &exec.vectors[if is_key { k.0 } else { q.0 }];
                    let copy = x.to_vec();
                    vectorized(
                        #[inline(always)]
                        || normed(&copy, weight, eps, |i, v| x[i] = v),
                    );
                }
                let before = if is_key && exec.probe_norms {
                    vectorized(
                        #[inline(always)]
                        || sum_of_squares(x),
                    )
                    .sqrt()
                } else {
                    0.0
                };
                let turns = &angles[r * half..(r + 1) * half];
                vectorized(
                    #[inline(always)]
                    || rotate(x, turns),
                );
                let position = exec.rows[r].position;
                if is_key {
                    append(exec, attention.layer, run, r, head - h, x, qkv, before);
                } else if let Some((cache, queries)) = &exec.queries
                    && *cache == run.cache
                {
                    // SAFETY: one thread per head.
                    unsafe { queries.put(attention.layer, head, position, x) };
                }
            }
        }
    });
}

/// Turns channel pairs (i, i + D/2) by their angles.
#[inline(always)]
fn rotate(x: &mut [f32], turns: &[(f32, f32)]) {
    let (a, b) = x.split_at_mut(turns.len());
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(turns) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

#[allow(clippy::too_many_arguments)]
fn append(exec: &Exec<'_>, layer: usize, run: &Run, r: usize, kv: usize, key: &[f32], qkv: Buf, before: f32) {
    let (h, g, d) = (exec.heads, exec.kv_heads, exec.dim);
    // SAFETY: values are not written by this operation; one thread per kv head has this cache.
    let (row, cache) = unsafe { (exec.buffers[qkv.0].row(r), exec.caches[run.cache][layer * g + kv].get()) };
    let value = &row[(h + g + kv) * d..(h + g + kv + 1) * d];
    cache.append(exec.rows[r].position, key, value);
    if exec.probe_norms {
        // SAFETY: one thread per kv head.
        let to = unsafe { exec.probes.norms.row_mut((layer * g + kv) * exec.rows.len() + r) };
        vectorized(
            #[inline(always)]
            || {
                to.copy_from_slice(&[
                    before,
                    sum_of_squares(key).sqrt(),
                    sum_by(value, f32::abs),
                    sum_of_squares(value).sqrt(),
                ])
            },
        );
    }
}

/// Slots that a query at `position` sees: `from..to` of the ascending `positions`.
pub fn visible(positions: &[u32], position: u32, window: Option<usize>) -> (usize, usize) {
    let to = positions.partition_point(|&p| p <= position);
    let from = window.map_or(0, |w| positions.partition_point(|&p| p as u64 + w as u64 <= position as u64));
    (from.min(to), to)
}

/// out = softmax(q·kᵀ) · v over each row's cache; out [rows, H·D]. One item per (single row, head) and per
/// (run of rows, head, block of queries).
pub fn attend(exec: &Exec<'_>, items: Items<'_>, attention: &Attention, qkv: Buf, out: Buf) {
    let work: Vec<(usize, usize)> = exec
        .runs
        .iter()
        .enumerate()
        .flat_map(|(i, run)| (0..run.len.div_ceil(QUERY_BLOCK)).map(move |block| (i, block)))
        .collect();
    // Late blocks see more keys: the longest go first, so that no thread is left with one at the end.
    let mut scratch = Scratch::default();
    items.each(work.len() * exec.heads, 1, |item| {
        let (run, block) = work[work.len() - 1 - item / exec.heads];
        let head = item % exec.heads;
        let run = &exec.runs[run];
        if run.len == 1 {
            single(exec, attention, run, head, qkv, out);
        } else {
            many(exec, attention, run, head, block, qkv, out, &mut scratch);
        }
    });
}

/// One query: the cache's own `row` is where the probabilities are made.
fn single(exec: &Exec<'_>, attention: &Attention, run: &Run, head: usize, qkv: Buf, out: Buf) {
    let (d, group) = (exec.dim, exec.heads / exec.kv_heads);
    let kv = head / group;
    let r = run.first;
    // SAFETY: threads share the cache but each changes only its own head's sums and row, reached through raw
    // pointers; keys, values and positions are not changed by this operation.
    let (query, to, cache) = unsafe {
        let cache: &HeadCache = exec.caches[run.cache][attention.layer * exec.kv_heads + kv].get();
        (
            &exec.buffers[qkv.0].row(r)[head * d..(head + 1) * d],
            exec.buffers[out.0].part_mut(r, head * d, (head + 1) * d),
            cache,
        )
    };
    let position = exec.rows[r].position;
    let (from, end) = visible(&cache.positions, position, attention.window);
    let pad = cache.len().next_multiple_of(TILE);
    // SAFETY: only this item touches this head's row and sums.
    let (row, received) = unsafe {
        let row = std::slice::from_raw_parts_mut(cache.row[head % group].as_ptr() as *mut f32, pad);
        let sums = std::slice::from_raw_parts_mut(cache.received[head % group].as_ptr() as *mut f32, pad);
        (row, sums)
    };
    let reductions = vectorized(
        #[inline(always)]
        || {
            with_cells!(&cache.columns, cells => {
                scores(query, cells, from, end, row);
                row[..from].fill(0.0);
                row[end..].fill(0.0);
                let reductions = softmax(&mut row[from..end], &cache.positions[from..end], position, attention.scale, attention.softcap, exec.recent_window);
                to.fill(0.0);
                    weigh(row, cells, from, end, to);
                reductions
            })
        },
    );
    vectorized(
        #[inline(always)]
        || received[from..end].iter_mut().zip(&row[from..end]).for_each(|(sum, p)| *sum += p),
    );
    put(exec, attention.layer, head, run, r, reductions);
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
    // SAFETY: nobody changes keys, values or positions in this operation.
    let cache: &HeadCache = unsafe { exec.caches[run.cache][attention.layer * exec.kv_heads + head / group].get() };
    let stride = cache.len().next_multiple_of(TILE);
    // Rows up to a whole register block: the spare ones stay zero.
    let rows = count.next_multiple_of(BLOCK);
    let span = |r: usize| visible(&cache.positions, exec.rows[r].position, attention.window);
    let (from, end) = (span(first).0 / TILE * TILE, span(first + count - 1).1);
    let Scratch { p, queries, sums, received, wide } = scratch;
    for (memory, n) in
        [(&mut *p, rows * stride), (&mut *queries, rows * d), (&mut *sums, rows * d), (&mut *received, stride)]
    {
        memory.clear();
        memory.resize(n, 0.0);
    }
    for (m, q) in queries.chunks_exact_mut(d).take(count).enumerate() {
        // SAFETY: nobody writes qkv in this operation.
        q.copy_from_slice(unsafe { &exec.buffers[qkv.0].row(first + m)[head * d..(head + 1) * d] });
    }
    let strips = || (from..end).step_by(STRIP).map(|at| (at, end.min(at + STRIP)));
    with_cells!(&cache.columns, cells => {
        for (at, to) in strips() {
            vectorized(#[inline(always)] || {
                widen(cells, d, at, to, wide);
                scores_block(queries, rows, d, wide, 0, to - at, &mut p[at..], stride);
            });
        }
        for m in 0..count {
            let (lo, hi) = span(first + m);
            let row = &mut p[m * stride..(m + 1) * stride];
            row[from..lo].fill(0.0);
            row[hi..].fill(0.0);
            let position = exec.rows[first + m].position;
            let reductions = vectorized(#[inline(always)] || {
                let reductions = softmax(&mut row[lo..hi], &cache.positions[lo..hi], position, attention.scale, attention.softcap, exec.recent_window);
                received[lo..hi].iter_mut().zip(&row[lo..hi]).for_each(|(sum, v)| *sum += v);
                reductions
            });
            put(exec, attention.layer, head, run, first + m, reductions);
        }
        p[count * stride..].fill(0.0);
        for (at, to) in strips() {
            vectorized(#[inline(always)] || {
                widen(cells, d, at, to, wide);
                for base in (0..rows).step_by(BLOCK) {
                    weigh_block(&p[base * stride + at..], stride, wide, d, 0, to - at, &mut sums[base * d..]);
                }
            });
        }
    });
    // SAFETY: one thread per (row, head) and per (head, block); the last block alone writes the head's newest row.
    unsafe {
        for (m, sums) in sums.chunks_exact(d).take(count).enumerate() {
            exec.buffers[out.0].part_mut(first + m, head * d, (head + 1) * d).copy_from_slice(sums);
        }
        let place = head * blocks(exec) + block_index(exec, run, block);
        exec.probes.received.part_mut(place, 0, stride).copy_from_slice(received);
        if first + count == run.first + run.len {
            let row = std::slice::from_raw_parts_mut(cache.row[head % group].as_ptr() as *mut f32, stride);
            row.copy_from_slice(&p[(count - 1) * stride..count * stride]);
        }
    }
}

/// Query blocks of all runs together.
pub fn blocks(exec: &Exec<'_>) -> usize {
    exec.runs.iter().map(|run| run.len.div_ceil(QUERY_BLOCK)).sum()
}

fn block_index(exec: &Exec<'_>, run: &Run, block: usize) -> usize {
    let before = exec.runs.iter().take_while(|other| other.first < run.first);
    before.map(|other| other.len.div_ceil(QUERY_BLOCK)).sum::<usize>() + block
}

fn put(exec: &Exec<'_>, layer: usize, head: usize, run: &Run, r: usize, x: RowReductions) {
    let at = (layer * exec.heads + head) * exec.rows.len() + r;
    // SAFETY: one thread per (row, head).
    unsafe {
        if exec.probe_attention {
            let to = exec.probes.attention.row_mut(at);
            to.copy_from_slice(&[x.lse, x.entropy, x.first, x.recent, x.distance]);
        }
        if let Some((cache, queries)) = &exec.queries
            && *cache == run.cache
        {
            queries.put_lse(layer, head, exec.rows[r].position, x.lse);
        }
    }
}

pub fn fold_received(exec: &Exec<'_>, items: Items<'_>, layer: usize) {
    let group = exec.heads / exec.kv_heads;
    items.each(exec.heads, 1, |head| {
        for run in exec.runs.iter().filter(|run| run.len > 1) {
            // SAFETY: one thread per head; sums of different heads are different vectors.
            unsafe {
                let cache: &HeadCache = exec.caches[run.cache][layer * exec.kv_heads + head / group].get();
                let n = cache.len();
                let sums = std::slice::from_raw_parts_mut(cache.received[head % group].as_ptr() as *mut f32, n);
                for block in 0..run.len.div_ceil(QUERY_BLOCK) {
                    let part = &exec.probes.received.row(head * blocks(exec) + block_index(exec, run, block))[..n];
                    vectorized(
                        #[inline(always)]
                        || sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += v),
                    );
                }
            }
        }
    });
}
