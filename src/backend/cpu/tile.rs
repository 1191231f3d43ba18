//! Attention maps computed again from the kept queries: whole rows for policies, folded pixels for the screen.
//! Nothing of size T × T is ever allocated.

use std::ops::Range;

use rayon::prelude::*;

use crate::backend::{Attention, CacheId, Result, Tile};
use crate::cache::{Cells, Queries, TILE, with_cells};
use crate::engine::message::Fold;

use super::attend::{BLOCK, scores};
use super::attention::visible;
use super::linear::failed;
use super::pool::Shares;
use super::program::Items;
use super::shared::Grid;
use super::simd::{exp, vectorized};
use super::{CpuBackend, HeadCache};

/// What the probabilities of a few rows are computed from.
struct Source<'a> {
    cache: &'a HeadCache,
    queries: &'a Queries,
    attention: &'a Attention,
    /// Whose queries: the attention's layer, or the one whose map it uses.
    layer: usize,
    head: usize,
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    lse: Vec<f32>,
    scores: Vec<f32>,
    /// Keys of slots that are packed or lie apart.
    wide: Cells<f32>,
}

impl Source<'_> {
    /// exp(s − lse) of up to [`BLOCK`] queries over slots `slots`; calls `put(row, first slot, probabilities)` with the
    /// visible part of each row.
    #[inline(always)]
    fn each_row(
        &self,
        rows: Range<u32>,
        slots: Range<usize>,
        scratch: &mut Scratch,
        mut put: impl FnMut(u32, usize, &[f32]),
    ) {
        let d = self.cache.dim;
        let count = rows.len();
        let stride = self.cache.len().next_multiple_of(TILE);
        scratch.queries.resize(count * d, 0.0);
        scratch.scores.resize(count * stride, 0.0);
        scratch.lse.clear();
        for (q, position) in scratch.queries.chunks_exact_mut(d).zip(rows.clone()) {
            scratch.lse.push(self.queries.get(self.layer, self.head, position, q));
        }
        let (_, to) = visible(&self.cache.positions, rows.end - 1, None);
        let (from, to) = (slots.start / TILE * TILE, slots.end.min(to));
        if from >= to {
            return;
        }
        let Scratch { queries, scores: out, wide, .. } = &mut *scratch;
        if self.cache.packed().0 > 0 || self.cache.cells() > self.cache.len() {
            self.cache.read_keys(from..to, &mut wide.keys);
            scores(
                queries,
                count,
                d,
                wide,
                0..(to - from).div_ceil(TILE),
                #[inline(always)]
                |m, tile, s| {
                    out[m * stride + from + tile * TILE..][..TILE].copy_from_slice(s);
                },
            );
        } else {
            with_cells!(&self.cache.columns, cells => {
                scores(queries, count, d, cells, from / TILE..to.div_ceil(TILE), #[inline(always)] |m, tile, s| {
                    out[m * stride + tile * TILE..][..TILE].copy_from_slice(s);
                });
            });
        }
        let scale = self.attention.scale;
        for (m, position) in rows.enumerate() {
            let (lo, hi) = visible(&self.cache.positions, position, self.attention.window);
            let (lo, hi) = (lo.max(slots.start), hi.min(slots.end));
            if lo >= hi {
                continue;
            }
            let (row, lse) = (&mut scratch.scores[m * stride + lo..m * stride + hi], scratch.lse[m]);
            match self.attention.softcap {
                None => row.iter_mut().for_each(|s| *s *= scale),
                Some(cap) => row.iter_mut().for_each(|s| *s = cap * (*s * scale / cap).tanh()),
            }
            let offsets = self.cache.offsets.get(lo..hi).unwrap_or_default();
            row.iter_mut().zip(offsets).for_each(|(s, offset)| *s += offset);
            row.iter_mut().for_each(|s| *s = exp(*s - lse));
            put(position, lo, row);
        }
    }
}

fn check(backend: &CpuBackend, rows: &Range<u32>) -> Result<()> {
    let kept = backend.queries.range();
    if rows.start < kept.start || rows.end > kept.end {
        return Err(failed(
            "attention map",
            format!("queries {}..{} are kept, {}..{} asked for", kept.start, kept.end, rows.start, rows.end),
        ));
    }
    Ok(())
}

/// Rows [rows, n] over all slots of the cache, on the threads of whoever asks for several at once.
pub fn rows(
    backend: &CpuBackend,
    cache: CacheId,
    attention: &Attention,
    head: usize,
    rows: Range<u32>,
) -> Result<Vec<f32>> {
    check(backend, &rows)?;
    let group = backend.shape.heads / backend.shape.kv_heads;
    let at = backend.head_index(backend.keys_of(cache, attention.layer), head / group);
    let layer = backend.wirings[cache.0].as_ref().map_or(attention.layer, |wiring| wiring.queries(attention.layer));
    let cache = &backend.caches[cache.0][at];
    Ok(all_rows(&Source { cache, queries: &backend.queries, attention, layer, head }, rows))
}

/// The same of queries [rows, D] with their log-sum-exps that are kept elsewhere.
pub fn rows_of(cache: &HeadCache, attention: &Attention, rows: Range<u32>, queries: &[f32], lse: &[f32]) -> Vec<f32> {
    let d = cache.dim;
    let mut kept = Queries::new(1, 1, d, true, u64::MAX, rows.start);
    kept.reserve(rows.len());
    let writer = kept.writer();
    for ((position, query), &lse) in rows.clone().zip(queries.chunks_exact(d)).zip(lse) {
        // SAFETY: nobody else has these queries.
        unsafe {
            writer.put(0, 0, position, query);
            writer.put_lse(0, 0, position, lse);
        }
    }
    all_rows(&Source { cache, queries: &kept, attention, layer: 0, head: 0 }, rows)
}

fn all_rows(source: &Source<'_>, rows: Range<u32>) -> Vec<f32> {
    let n = source.cache.len();
    let mut out = vec![0.0; rows.len() * n];
    let blocks = out.par_chunks_mut((BLOCK * n).max(1)).zip(rows.clone().into_par_iter().step_by(BLOCK));
    blocks.for_each_init(Scratch::default, |scratch, (out, from)| {
        let block = from..(from + BLOCK as u32).min(rows.end);
        vectorized(
            #[inline(always)]
            || {
                source.each_row(block, 0..n, scratch, |position, first, p| {
                    out[(position - from) as usize * n + first..][..p.len()].copy_from_slice(p);
                })
            },
        );
    });
    out
}

/// Pixels [height, width]: each the fold of its cells, NaN where no cell is visible or held.
pub fn tile(backend: &mut CpuBackend, cache: CacheId, attention: &Attention, tile: &Tile) -> Result<Vec<f32>> {
    check(backend, &tile.rows)?;
    let group = backend.shape.heads / backend.shape.kv_heads;
    let at = backend.head_index(backend.keys_of(cache, tile.layer), tile.head / group);
    let layer = backend.wirings[cache.0].as_ref().map_or(tile.layer, |wiring| wiring.queries(tile.layer));
    let (pool, queries, cache) = (&mut backend.pool, &backend.queries, &backend.caches[cache.0][at]);
    let source = Source { cache, queries, attention, layer, head: tile.head };
    let (tall, wide) = (tile.rows.len(), tile.cols.len());
    let (height, width) = (tile.height.min(tall).max(1), tile.width.min(wide).max(1));
    let slots = cache.positions.partition_point(|&p| p < tile.cols.start)
        ..cache.positions.partition_point(|&p| p < tile.cols.end);
    // Pixel of each slot, found once.
    let pixel: Vec<u32> = cache.positions[slots.clone()]
        .iter()
        .map(|&p| ((p - tile.cols.start) as usize * width / wide.max(1)) as u32)
        .collect();
    let (sums, counts) = (Grid::new(height, width), Grid::new(height, width));
    let shares = Shares::new(1, pool.threads());
    pool.run(&|worker| {
        let mut scratch = Scratch::default();
        Items::new(worker, shares.of(0)).each(height, 1, |y| {
            // SAFETY: one thread per row of pixels.
            let (sum, count) = unsafe { (sums.row_mut(y), counts.row_mut(y)) };
            let top = tile.rows.start as usize + (y * tall).div_ceil(height);
            let bottom = tile.rows.start as usize + ((y + 1) * tall).div_ceil(height);
            for from in (top..bottom).step_by(BLOCK) {
                let block = from as u32..(from + BLOCK).min(bottom) as u32;
                vectorized(
                    #[inline(always)]
                    || {
                        source.each_row(block, slots.clone(), &mut scratch, |_, first, p| {
                            for (v, &x) in p.iter().zip(&pixel[first - slots.start..]) {
                                let x = x as usize;
                                count[x] += 1.0;
                                sum[x] = if tile.fold == Fold::Max { sum[x].max(*v) } else { sum[x] + v };
                            }
                        })
                    },
                );
            }
        });
    })
    .map_err(|why| failed("attention map", why))?;
    let fold = |(&sum, &count): (&f32, &f32)| match (count > 0.0, tile.fold) {
        (false, _) => f32::NAN,
        (true, Fold::Mean) => sum / count,
        (true, Fold::Max | Fold::Sum) => sum,
    };
    Ok(sums.as_slice().iter().zip(counts.as_slice()).map(fold).collect())
}
