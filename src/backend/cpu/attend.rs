//! Attention over the slots of one kv head: scores from key tiles, weighted sums of values.
//! Every sum runs in one fixed order (channels for scores, slots for values), whatever the blocking.

use crate::cache::{Cells, TILE};

use super::simd::Cell;

/// Raw scores of M queries [M, D] (contiguous) against N key tiles: out[m][n·16 + j] = q_m · k_(16n+j).
#[inline(always)]
fn tiles<T: Cell, const M: usize, const N: usize>(queries: &[f32], dim: usize, keys: &[T]) -> [[[f32; TILE]; N]; M] {
    assert!(queries.len() >= M * dim && keys.len() >= N * dim * TILE);
    let mut acc = [[[0.0f32; TILE]; N]; M];
    for c in 0..dim {
        for n in 0..N {
            // SAFETY: n < N, c < dim and the lengths were checked above.
            let k: &[T] = unsafe { keys.get_unchecked((n * dim + c) * TILE..(n * dim + c) * TILE + TILE) };
            let mut key = [0.0; TILE];
            for j in 0..TILE {
                key[j] = k[j].get();
            }
            for m in 0..M {
                // SAFETY: as above.
                let q = unsafe { *queries.get_unchecked(m * dim + c) };
                for j in 0..TILE {
                    acc[m][n][j] = q.mul_add(key[j], acc[m][n][j]);
                }
            }
        }
    }
    acc
}

/// Raw scores of one query over slots `from..to`; `from` is a multiple of the tile, `out` covers whole tiles
/// from slot 0 on.
#[inline(always)]
pub fn scores<T: Cell>(query: &[f32], cells: &Cells<T>, from: usize, to: usize, out: &mut [f32]) {
    let dim = query.len();
    let (mut tile, last) = (from / TILE, to.div_ceil(TILE));
    while tile + 4 <= last {
        let [s] = tiles::<T, 1, 4>(query, dim, &cells.keys[tile * dim * TILE..]);
        for (n, values) in s.iter().enumerate() {
            out[(tile + n) * TILE..][..TILE].copy_from_slice(values);
        }
        tile += 4;
    }
    while tile < last {
        let [[s]] = tiles::<T, 1, 1>(query, dim, &cells.keys[tile * dim * TILE..]);
        out[tile * TILE..][..TILE].copy_from_slice(&s);
        tile += 1;
    }
}

/// Queries that share one walk over the keys and values.
pub const BLOCK: usize = 6;

/// Raw scores of `count` queries [count, D] over slots `from..to` into rows of `stride`.
#[inline(always)]
pub fn scores_block<T: Cell>(
    queries: &[f32],
    count: usize,
    dim: usize,
    cells: &Cells<T>,
    from: usize,
    to: usize,
    out: &mut [f32],
    stride: usize,
) {
    let mut first = 0;
    while first + BLOCK <= count {
        for tile in from / TILE..to.div_ceil(TILE) {
            let s = tiles::<T, BLOCK, 1>(&queries[first * dim..], dim, &cells.keys[tile * dim * TILE..]);
            for (m, [values]) in s.iter().enumerate() {
                out[(first + m) * stride + tile * TILE..][..TILE].copy_from_slice(values);
            }
        }
        first += BLOCK;
    }
    for m in first..count {
        scores(&queries[m * dim..(m + 1) * dim], cells, from, to, &mut out[m * stride..]);
    }
}

/// Adds C channels of M weighted sums of values over slots `from..to` to `sums` [M, D].
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn weigh_channels<T: Cell, const M: usize, const C: usize>(
    p: &[f32],
    stride: usize,
    values: &[T],
    dim: usize,
    channel: usize,
    from: usize,
    to: usize,
    sums: &mut [f32],
) {
    assert!(p.len() >= (M - 1) * stride + to && values.len() >= to * dim && channel + C <= dim);
    let mut acc = [[0.0f32; C]; M];
    for m in 0..M {
        acc[m].copy_from_slice(&sums[m * dim + channel..][..C]);
    }
    for t in from..to {
        // SAFETY: t < to and the lengths were checked above.
        let v: &[T] = unsafe { values.get_unchecked(t * dim + channel..t * dim + channel + C) };
        let mut value = [0.0; C];
        for j in 0..C {
            value[j] = v[j].get();
        }
        for m in 0..M {
            // SAFETY: as above.
            let w = unsafe { *p.get_unchecked(m * stride + t) };
            for j in 0..C {
                acc[m][j] = w.mul_add(value[j], acc[m][j]);
            }
        }
    }
    for m in 0..M {
        sums[m * dim + channel..][..C].copy_from_slice(&acc[m]);
    }
}

/// Adds Σ p·v over slots `from..to` of one row of probabilities to `sums` [D].
#[inline(always)]
pub fn weigh<T: Cell>(p: &[f32], cells: &Cells<T>, from: usize, to: usize, sums: &mut [f32]) {
    let (dim, values) = (sums.len(), &cells.values);
    let mut c = 0;
    while c + 64 <= dim {
        weigh_channels::<T, 1, 64>(p, 0, values, dim, c, from, to, sums);
        c += 64;
    }
    while c + 8 <= dim {
        weigh_channels::<T, 1, 8>(p, 0, values, dim, c, from, to, sums);
        c += 8;
    }
    for c in c..dim {
        weigh_channels::<T, 1, 1>(p, 0, values, dim, c, from, to, sums);
    }
}

/// The same for [`BLOCK`] rows of `stride`; `sums` [BLOCK, D].
#[inline(always)]
pub fn weigh_block<T: Cell>(
    p: &[f32],
    stride: usize,
    cells: &Cells<T>,
    dim: usize,
    from: usize,
    to: usize,
    sums: &mut [f32],
) {
    let values = &cells.values;
    let mut c = 0;
    while c + 16 <= dim {
        weigh_channels::<T, BLOCK, 16>(p, stride, values, dim, c, from, to, sums);
        c += 16;
    }
    while c + 8 <= dim {
        weigh_channels::<T, BLOCK, 8>(p, stride, values, dim, c, from, to, sums);
        c += 8;
    }
    for c in c..dim {
        weigh_channels::<T, BLOCK, 1>(p, stride, values, dim, c, from, to, sums);
    }
}

/// Slots `from..to` (from a tile's first on) as f32, for many queries to share.
#[inline(always)]
pub fn widen<T: Cell>(cells: &Cells<T>, dim: usize, from: usize, to: usize, wide: &mut Cells<f32>) {
    let tiles = from * dim..to.next_multiple_of(TILE) * dim;
    let spread = |from: &[T], to: &mut Vec<f32>| {
        to.clear();
        to.extend(from.iter().map(|x| x.get()));
    };
    spread(&cells.keys[tiles], &mut wide.keys);
    spread(&cells.values[from * dim..to * dim], &mut wide.values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::vectorized;
    use crate::cache::{HeadCache, KvType, with_cells};
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn blocks_and_single_rows_agree_bit_for_bit_and_with_f64(
            n in 1usize..150, dim in prop::sample::select(vec![2usize, 16, 24, 64, 80, 256]), count in 1usize..20, seed: u64,
            kind in prop::sample::select(vec![KvType::F32, KvType::F16, KvType::BF16])
        ) {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut draw = |n: usize| (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect::<Vec<f32>>();
            let mut cache = HeadCache::new(kind, dim, 1);
            cache.reserve(n);
            for p in 0..n {
                cache.append(p as u32, &draw(dim), &draw(dim));
            }
            let (keys, values, queries) = (cache.keys(), cache.values(), draw(count * dim));
            let stride = n.next_multiple_of(TILE);
            let mut block = vec![0.0; count * stride];
            with_cells!(&cache.columns, cells => vectorized(#[inline(always)] || scores_block(&queries, count, dim, cells, 0, n, &mut block, stride)));
            for m in 0..count {
                let q = &queries[m * dim..(m + 1) * dim];
                let mut single = vec![0.0; stride];
                with_cells!(&cache.columns, cells => scores(q, cells, 0, n, &mut single));
                for t in 0..n {
                    prop_assert_eq!(single[t].to_bits(), block[m * stride + t].to_bits());
                    let exact: f64 = q.iter().zip(&keys[t * dim..]).map(|(a, b)| *a as f64 * *b as f64).sum();
                    prop_assert!((single[t] as f64 - exact).abs() < 1e-5 * dim as f64);
                }
            }
            let p = draw(BLOCK * stride);
            let mut sums = vec![0.0; BLOCK * dim];
            let mut wide = Cells::default();
            with_cells!(&cache.columns, cells => vectorized(#[inline(always)] || {
                for from in (0..n).step_by(2 * TILE) {
                    let to = n.min(from + 2 * TILE);
                    widen(cells, dim, from, to, &mut wide);
                    weigh_block(&p[from..], stride, &wide, dim, 0, to - from, &mut sums);
                }
            }));
            for m in 0..BLOCK {
                let mut single = vec![0.0; dim];
                with_cells!(&cache.columns, cells => weigh(&p[m * stride..], cells, 0, n, &mut single));
                prop_assert_eq!(&single[..], &sums[m * dim..(m + 1) * dim]);
                for c in 0..dim {
                    let exact: f64 = (0..n).map(|t| p[m * stride + t] as f64 * values[t * dim + c] as f64).sum();
                    prop_assert!((single[c] as f64 - exact).abs() < 1e-4);
                }
            }
        }
    }
}
