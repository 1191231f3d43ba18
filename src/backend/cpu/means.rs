//! Column sums and newest rows of all heads together, per original position.

use crate::backend::{CacheId, PositionMeans, Result};
use crate::cache::{HeadCache, Strand};

use super::CpuBackend;
use super::linear::failed;
use super::pool::Shares;
use super::program::Items;
use super::shared::Grid;
use super::simd::{LANES, prefetch, vectorized};

/// Positions of one item of work: their sums stay in the first-level cache while the rows stream by.
const CHUNK: usize = 1024;

/// Column sums and newest rows of some positions.
type Sums<'a> = [&'a mut [f32]; 2];

/// Adds what all heads have at positions `from..` to `sums`.
fn add_heads(heads: &[HeadCache], from: usize, sums: &mut Sums<'_>) {
    let end = from + sums[0].len();
    let held = |cache: &HeadCache| {
        let place = |position: usize| cache.positions.partition_point(|&p| (p as usize) < position);
        place(from)..place(end)
    };
    let all: Vec<_> = heads.iter().map(|cache| (cache, held(cache))).filter(|(_, slots)| !slots.is_empty()).collect();
    let mut groups = [[0.0f32; CHUNK]; 2];
    // What holds the same positions is added up slot by slot before it is spread.
    for same in all.chunk_by(|(a, x), (b, y)| a.positions[x.clone()] == b.positions[y.clone()]) {
        let (cache, slots) = &same[0];
        let positions = &cache.positions[slots.clone()];
        let dense = positions.len() == end - from;
        for (sum, (group, of)) in sums.iter_mut().zip(groups.iter_mut().zip([column_sums, newest_rows])) {
            let rows: Vec<&[f32]> =
                same.iter().flat_map(|(cache, slots)| of(cache).iter().map(|row| &row[slots.clone()])).collect();
            let to = if dense { &mut **sum } else { &mut group[..positions.len()] };
            vectorized(
                #[inline(always)]
                || add_rows(&rows, to, dense),
            );
        }
        if !dense {
            let ([received, rows], [of_received, of_rows]) = (&mut *sums, &groups);
            for (&p, (a, b)) in positions.iter().zip(of_received.iter().zip(of_rows)) {
                received[p as usize - from] += a;
                rows[p as usize - from] += b;
            }
        }
    }
}

fn column_sums(cache: &HeadCache) -> &[Strand] {
    &cache.received
}

fn newest_rows(cache: &HeadCache) -> &[Strand] {
    &cache.row
}

/// sum (+)= Σ rows, each as long as `sum`. Row after row: hundreds of them side by side would not be fetched ahead.
#[inline(always)]
fn add_rows(rows: &[&[f32]], sum: &mut [f32], more: bool) {
    if !more {
        sum.fill(0.0);
    }
    for (i, row) in rows.iter().enumerate() {
        let next = rows.get(i + 1).unwrap_or(row);
        for (k, (sum, row)) in sum.chunks_mut(LANES).zip(row.chunks(LANES)).enumerate() {
            prefetch(next, k * LANES * size_of::<f32>());
            sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
        }
    }
}

pub fn position_means(backend: &mut CpuBackend, caches: &[CacheId], positions: usize) -> Result<Vec<PositionMeans>> {
    let inverse = 1.0 / (backend.shape.layers * backend.shape.heads) as f32;
    let (pool, all) = (&mut backend.pool, &backend.caches);
    // [cache][received, row] positions
    let sums = Grid::new(caches.len() * 2, positions);
    let (shares, chunks) = (Shares::new(1, pool.threads()), positions.div_ceil(CHUNK));
    pool.run(&|worker| {
        Items::new(worker, shares.of(0)).each(caches.len() * chunks, 1, |i| {
            let (cache, from) = (i / chunks, i % chunks * CHUNK);
            // SAFETY: one thread per part of a row.
            let part = |row| unsafe { sums.part_mut(row, from, positions.min(from + CHUNK)) };
            let mut part = [part(2 * cache), part(2 * cache + 1)];
            add_heads(&all[caches[cache].0], from, &mut part);
            part.into_iter().flatten().for_each(|sum| *sum *= inverse);
        });
    })
    .map_err(|why| failed("position means", why))?;
    let mean = |row: usize| sums.as_slice()[row * positions..(row + 1) * positions].into();
    Ok((0..caches.len()).map(|c| PositionMeans { received: mean(2 * c), row: mean(2 * c + 1) }).collect())
}
