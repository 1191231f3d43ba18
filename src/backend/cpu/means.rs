//! Column sums and newest rows of all heads together, per original position.

use std::ops::Range;

use crate::backend::{CacheId, PositionMeans, Result};
use crate::cache::HeadCache;

use super::CpuBackend;
use super::linear::failed;
use super::pool::Shares;
use super::program::Items;
use super::shared::Grid;
use super::simd::vectorized;

/// Positions of one item of work: their sums stay in the first-level cache while the rows stream by.
const CHUNK: usize = 1024;

/// Adds what all heads have at positions `from..from + sum.len()` to `sum`; `of` picks a query head's values.
fn add_heads(heads: &[HeadCache], of: impl Fn(&HeadCache, usize) -> &[f32], from: usize, sum: &mut [f32]) {
    let slots = |cache: &HeadCache| {
        let place = |position: usize| cache.positions.partition_point(|&p| (p as usize) < position);
        place(from)..place(from + sum.len())
    };
    // Where nothing has left, slots follow each other as positions do.
    let dense = |cache: &HeadCache, slots: &Range<usize>| {
        slots.is_empty()
            || cache.positions[slots.start] as usize == from
                && cache.positions[slots.end - 1] as usize + 1 == from + slots.len()
    };
    let all: Vec<_> = heads.iter().map(|cache| (cache, slots(cache))).collect();
    let (whole, thinned): (Vec<_>, Vec<_>) = all.into_iter().partition(|(cache, slots)| dense(cache, slots));
    let rows_of_whole: Vec<&[f32]> = whole.iter().flat_map(|(cache, slots)| rows(&of, cache, slots)).collect();
    vectorized(
        #[inline(always)]
        || add_rows(&rows_of_whole, sum),
    );
    let mut group = [0.0f32; CHUNK];
    for (cache, slots) in thinned {
        // Heads of a group hold the same positions: added up slot by slot before they are spread.
        let (rows, group) = (rows(&of, cache, &slots), &mut group[..slots.len()]);
        group.fill(0.0);
        vectorized(
            #[inline(always)]
            || add_rows(&rows, group),
        );
        cache.positions[slots].iter().zip(&*group).for_each(|(&p, v)| sum[p as usize - from] += v);
    }
}

/// What the query heads of a kv head have at `slots`.
fn rows<'a>(of: &impl Fn(&HeadCache, usize) -> &[f32], cache: &'a HeadCache, slots: &Range<usize>) -> Vec<&'a [f32]> {
    (0..cache.received.len()).map(|head| &of(cache, head)[slots.clone()]).collect()
}

/// sum += Σ rows, each as long as `sum`. Row after row: hundreds of them side by side would not be fetched ahead.
#[inline(always)]
fn add_rows(rows: &[&[f32]], sum: &mut [f32]) {
    for row in rows {
        sum.iter_mut().zip(*row).for_each(|(sum, v)| *sum += v);
    }
}

pub fn position_means(backend: &mut CpuBackend, caches: &[CacheId], positions: usize) -> Result<Vec<PositionMeans>> {
    let inverse = 1.0 / (backend.shape.layers * backend.shape.heads) as f32;
    let (pool, all) = (&mut backend.pool, &backend.caches);
    // [cache][received, row] positions
    let sums = Grid::new(caches.len() * 2, positions);
    let (shares, chunks) = (Shares::new(1, pool.threads()), positions.div_ceil(CHUNK));
    pool.run(&|worker| {
        Items::new(worker, shares.of(0)).each(caches.len() * 2 * chunks, 1, |i| {
            let (row, from) = (i / chunks, i % chunks * CHUNK);
            let heads = &all[caches[row / 2].0];
            // SAFETY: one thread per part of a row.
            let sum = unsafe { sums.part_mut(row, from, positions.min(from + CHUNK)) };
            match row % 2 == 1 {
                true => add_heads(heads, |cache, head| &cache.row[head][..cache.len()], from, sum),
                false => add_heads(heads, |cache, head| &cache.received[head][..cache.len()], from, sum),
            }
            sum.iter_mut().for_each(|sum| *sum *= inverse);
        });
    })
    .map_err(|why| failed("position means", why))?;
    let mean = |row: usize| sums.as_slice()[row * positions..(row + 1) * positions].into();
    Ok((0..caches.len()).map(|c| PositionMeans { received: mean(2 * c), row: mean(2 * c + 1) }).collect())
}
