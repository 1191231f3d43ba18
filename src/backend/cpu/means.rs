//! Column sums and newest rows of all heads together, per original position.

use crate::backend::{CacheId, PositionMeans, Result};
use crate::cache::HeadCache;

use super::CpuBackend;
use super::linear::failed;
use super::pool::Shares;
use super::program::Items;
use super::shared::Grid;
use super::simd::vectorized;

/// Positions summed over all heads at a time: they stay in registers.
const SPAN: usize = 64;

/// Adds what the heads of one layer have at each position to `sum` [positions]; `of` picks a query head's values.
fn add_layer(heads: &[HeadCache], of: impl Fn(&HeadCache, usize) -> &[f32], sum: &mut [f32]) {
    let (whole, thinned): (Vec<_>, Vec<_>) =
        heads.iter().partition(|cache| cache.len() == cache.positions.last().map_or(0, |&p| p as usize + 1));
    let rows: Vec<&[f32]> =
        whole.iter().flat_map(|cache| (0..cache.received.len()).map(|head| of(cache, head))).collect();
    vectorized(
        #[inline(always)]
        || add_rows(&rows, sum),
    );
    for cache in thinned {
        // Heads of a group hold the same positions: added up slot by slot before they are spread.
        let rows: Vec<&[f32]> = (0..cache.received.len()).map(|head| of(cache, head)).collect();
        let mut slots = vec![0.0f32; cache.len()];
        vectorized(
            #[inline(always)]
            || add_rows(&rows, &mut slots),
        );
        cache.positions.iter().zip(&slots).for_each(|(&p, v)| sum[p as usize] += v);
    }
}

/// sum += Σ rows, each no longer than `sum`.
#[inline(always)]
fn add_rows(rows: &[&[f32]], sum: &mut [f32]) {
    for (i, sum) in sum.chunks_mut(SPAN).enumerate() {
        let mut all = [0.0f32; SPAN];
        for row in rows {
            let row = &row[row.len().min(i * SPAN)..row.len().min((i + 1) * SPAN)];
            match row.first_chunk::<SPAN>() {
                Some(row) => all.iter_mut().zip(row).for_each(|(sum, v)| *sum += v),
                None => all.iter_mut().zip(row).for_each(|(sum, v)| *sum += v),
            }
        }
        sum.iter_mut().zip(all).for_each(|(sum, v)| *sum += v);
    }
}

pub fn position_means(backend: &mut CpuBackend, caches: &[CacheId], positions: usize) -> Result<Vec<PositionMeans>> {
    let (layers, g, heads) = (backend.shape.layers, backend.shape.kv_heads, backend.shape.heads);
    let (pool, all) = (&mut backend.pool, &backend.caches);
    // [cache][received, row][layer] positions
    let sums = Grid::new(caches.len() * 2 * layers, positions);
    let shares = Shares::new(1, pool.threads());
    pool.run(&|worker| {
        Items::new(worker, shares.of(0)).each(caches.len() * 2 * layers, 1, |i| {
            let (cache, newest, layer) = (caches[i / (2 * layers)], i / layers % 2 == 1, i % layers);
            let heads = &all[cache.0][layer * g..(layer + 1) * g];
            // SAFETY: one thread per row.
            let sum = unsafe { sums.row_mut(i) };
            match newest {
                true => add_layer(heads, |cache, head| &cache.row[head][..cache.len()], sum),
                false => add_layer(heads, |cache, head| &cache.received[head][..cache.len()], sum),
            }
        });
    })
    .map_err(|why| failed("position means", why))?;
    let inverse = 1.0 / (layers * heads) as f32;
    let mean = |at: usize| {
        let mut mean = vec![0.0f32; positions];
        for layer in sums.as_slice()[at * layers * positions..].chunks_exact(positions.max(1)).take(layers) {
            mean.iter_mut().zip(layer).for_each(|(m, s)| *m += s);
        }
        mean.iter_mut().for_each(|m| *m *= inverse);
        mean.into()
    };
    Ok((0..caches.len()).map(|c| PositionMeans { received: mean(2 * c), row: mean(2 * c + 1) }).collect())
}
