//! Attention of single rows (decode), in three operations whose items fit any number of threads: scores by spans of
//! slots, softmax by heads, weighted values by channels. A group of query heads shares one walk over its keys and
//! values; no sum is split, so the threads do not show in the result.

use std::ops::Range;

use crate::backend::{Attention, Buf};
use crate::cache::{Cells, HeadCache, TILE, with_cells};
use crate::policy::watch::RowAt;

use super::attend::{scores, weigh};
use super::attention::{put, visible, watches};
use super::program::{Exec, Items, Run};
use super::simd::{prefetch, vectorized};
use super::softmax::softmax;
use super::sources::{Sources, sources};

/// Slots per item of the scores.
const SPAN: usize = 8 * TILE;
/// Slots of values that are walked for all channels of an item before the next: they stay in the first-level cache.
const STRIP: usize = 128;

pub fn runs<'a>(exec: &'a Exec<'_>) -> Vec<&'a Run> {
    exec.runs.iter().filter(|run| run.len == 1).collect()
}

/// The cache of a run's kv head, whose layers are not wired, and the slots its row sees.
///
/// # Safety
/// Nobody changes the cache's keys, values or positions meanwhile.
pub unsafe fn cache<'a>(
    exec: &'a Exec<'_>,
    attention: &Attention,
    run: &Run,
    kv: usize,
) -> (&'a HeadCache, std::ops::Range<usize>) {
    // SAFETY: by the caller's word.
    let cache = unsafe { exec.caches[run.cache][attention.layer * exec.kv_heads + kv].shared() };
    let (from, to) = visible(&cache.positions, exec.rows[run.first].position, attention.window);
    (cache, from..to)
}

/// What a run's kv head reads, wired or not, and the slots that its row sees.
///
/// # Safety
/// Nobody changes keys, values, positions or queries meanwhile.
unsafe fn seen<'a>(
    exec: &'a Exec<'_>,
    attention: &Attention,
    run: &Run,
    kv: usize,
    qkv: Buf,
) -> (Sources<'a>, Range<usize>) {
    // SAFETY: by the caller's word.
    let sources = unsafe { sources(exec, attention, run, kv, qkv) };
    let (from, to) = visible(&sources.own.positions, exec.rows[run.first].position, attention.window);
    (sources, from..to)
}

/// Raw scores into the caches' newest rows, by cells.
pub fn score(exec: &Exec<'_>, items: Items<'_>, attention: &Attention, qkv: Buf) {
    let (d, g, group) = (exec.dim, exec.kv_heads, exec.heads / exec.kv_heads);
    let mut work = Vec::new();
    for run in runs(exec) {
        for kv in 0..g {
            // SAFETY: none of them is changed by this operation.
            let (from, seen) = unsafe { seen(exec, attention, run, kv, qkv) };
            let cells = from.keys.cells_of(seen);
            let tiles = (cells.start / TILE..cells.end.div_ceil(TILE)).step_by(SPAN / TILE);
            work.extend(tiles.map(|tile| (run, kv, from, tile, cells.end)));
        }
    }
    let mut wide = Cells::default();
    items.each(work.len(), 1, |item| {
        let (run, kv, from, first, end) = work[item];
        let tiles = first..(first + SPAN / TILE).min(end.div_ceil(TILE));
        // SAFETY: nobody writes queries in this operation.
        let queries = unsafe { &from.queries.row(run.first)[kv * group * d..(kv + 1) * group * d] };
        if from.keys.packed().0 > 0 {
            return score_packed(from.keys, queries, first * TILE..(tiles.end * TILE).min(end), &mut wide);
        }
        with_cells!(&from.keys.columns, cells => vectorized(
            #[inline(always)]
            || scores(queries, group, d, cells, tiles, #[inline(always)] |m, tile, s| {
                // SAFETY: each item has its own tiles.
                unsafe { from.own.row[m].part_mut(tile * TILE..(tile + 1) * TILE) }.copy_from_slice(s);
            }),
        ));
    });
}

/// Raw scores of `slots` (from a tile's first on), whose keys are read back first.
fn score_packed(cache: &HeadCache, queries: &[f32], slots: Range<usize>, wide: &mut Cells<f32>) {
    let (d, first) = (cache.dim, slots.start / TILE);
    cache.read_keys(slots.clone(), &mut wide.keys);
    vectorized(
        #[inline(always)]
        || {
            scores(
                queries,
                queries.len() / d,
                d,
                wide,
                0..slots.len().div_ceil(TILE),
                #[inline(always)]
                |m, tile, s| {
                    // SAFETY: each item has its own tiles.
                    unsafe { cache.row[m].part_mut((first + tile) * TILE..(first + tile + 1) * TILE) }
                        .copy_from_slice(s);
                },
            )
        },
    );
}

/// Scores to probabilities, with their reductions and column sums, where all is read. One item per head.
pub fn normalize(exec: &Exec<'_>, items: Items<'_>, attention: &Attention, qkv: Buf) {
    let group = exec.heads / exec.kv_heads;
    let mut runs = runs(exec);
    runs.retain(|run| exec.readers[run.cache].is_none());
    items.each(runs.len() * exec.heads, 1, |item| {
        let (run, head) = (runs[item / exec.heads], item % exec.heads);
        // SAFETY: keys, values and positions are not changed; one thread per head's row and sums.
        let (from, seen, row, received) = unsafe {
            let (from, seen) = seen(exec, attention, run, head / group, qkv);
            let cache = from.own;
            let row = cache.row[head % group].part_mut(0..cache.cells().next_multiple_of(TILE));
            let received = cache.received[head % group].part_mut(seen.clone());
            (from, seen, row, received)
        };
        from.keys.close(row);
        row[..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
        let (row, positions) = (&mut row[seen.clone()], &from.own.positions[seen.clone()]);
        let offsets = from.keys.offsets.get(seen.clone()).unwrap_or_default();
        let position = exec.rows[run.first].position;
        // What is added to last comes from memory meanwhile.
        (0..seen.len() * 4).step_by(64).for_each(|bytes| prefetch(received, bytes));
        let reductions = vectorized(
            #[inline(always)]
            || {
                let reductions =
                    softmax(row, positions, position, attention.scale, attention.softcap, offsets, exec.recent_window);
                received.iter_mut().zip(&*row).for_each(|(sum, p)| *sum += p);
                reductions
            },
        );
        put(exec, attention.layer, head, run, run.first, reductions);
        let at = RowAt { layer: attention.layer, head, position };
        for (watch, sums) in watches(exec, run).iter().zip(exec.watched) {
            // SAFETY: one thread per head's sums.
            let sums = unsafe { sums[attention.layer * exec.heads + head].part_mut(seen.clone()) };
            watch.row(at, positions, &mut row.to_vec(), sums);
        }
    });
}

/// out [rows, H·D] = probabilities · values. One item per kv head and span of channels.
pub fn weigh_values(exec: &Exec<'_>, items: Items<'_>, attention: &Attention, qkv: Buf, out: Buf) {
    let (d, g, group) = (exec.dim, exec.kv_heads, exec.heads / exec.kv_heads);
    let runs = runs(exec);
    // A span is two lines of 64 bytes in the narrowest cache, which come together; one, where else threads would idle.
    let plenty = runs.len() * g * d.div_ceil(64) >= 4 * items.threads();
    let span = if plenty || d > 64 { 64 } else { 32 };
    let spans = d.div_ceil(span);
    let (mut sums, mut wide) = (vec![0.0; group * span], Cells::default());
    items.each(runs.len() * g * spans, 1, |item| {
        let (run, kv) = (runs[item / (g * spans)], item / spans % g);
        let channels = item % spans * span..(item % spans * span + span).min(d);
        // SAFETY: nothing of the caches is changed by this operation.
        let (from, seen) = unsafe { seen(exec, attention, run, kv, qkv) };
        let sums = &mut sums[..group * channels.len()];
        sums.fill(0.0);
        if from.values.packed().1 > 0 {
            weigh_packed(from.values, seen, channels.clone(), &mut wide, sums);
        } else {
            with_cells!(&from.values.columns, cells => vectorized(
                #[inline(always)]
                || for (piece, ahead) in from.values.pieces(seen.clone()) {
                    let values = &cells.values[ahead * d..];
                    for at in piece.clone().step_by(STRIP) {
                        let strip = at..piece.end.min(at + STRIP);
                        // SAFETY: as above.
                        let row = |m: usize| unsafe { from.own.row[m].part(0..seen.end) };
                        weigh(row, group, values, d, channels.clone(), strip, sums);
                    }
                },
            ));
        }
        for (m, sums) in sums.chunks_exact(channels.len()).enumerate() {
            let head = (kv * group + m) * d;
            // SAFETY: one thread per head's channels.
            unsafe { exec.buffers[out.0].part_mut(run.first, head + channels.start, head + channels.end) }
                .copy_from_slice(sums);
        }
    });
}

/// Adds the weighted values of the slots `seen` to `sums` [group, channels]; they are read back strip by strip.
fn weigh_packed(
    cache: &HeadCache,
    seen: Range<usize>,
    channels: Range<usize>,
    wide: &mut Cells<f32>,
    sums: &mut [f32],
) {
    let (width, group) = (channels.len(), cache.row.len());
    for from in seen.clone().step_by(STRIP) {
        let strip = from..seen.end.min(from + STRIP);
        cache.read_values(strip.clone(), channels.clone(), &mut wide.values);
        vectorized(
            #[inline(always)]
            || {
                // SAFETY: nobody writes the rows in this operation.
                let row = |m: usize| unsafe { cache.row[m].part(strip.clone()) };
                weigh(row, group, &wide.values, width, 0..width, 0..strip.len(), sums);
            },
        );
    }
}
