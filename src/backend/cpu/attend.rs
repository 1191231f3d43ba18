//! Attention over the slots of one kv head: scores from key tiles, weighted sums of values.
//! Every sum runs in one fixed order (channels for scores, slots for values), whatever the blocking.

// Register blocks are written as plain counted loops: that is the form which the compiler keeps in registers.
#![allow(clippy::needless_range_loop, clippy::too_many_arguments)]

use std::ops::Range;

use crate::cache::{Cells, HeadCache, TILE, with_cells};

use super::simd::{Cell, prefetch};

/// How far ahead keys and values are asked for, bytes.
const AHEAD: usize = 4096;

/// Raw scores of M queries [M, D] (contiguous) against one key tile: out[m][j] = q_m · k_j. One tile at a time: keys then
/// come as one stream, which is fetched ahead best, and the sums stay in registers.
#[inline(always)]
fn tile<T: Cell, const M: usize>(queries: &[f32], dim: usize, keys: &[T]) -> [[f32; TILE]; M] {
    assert!(queries.len() >= M * dim && keys.len() >= dim * TILE);
    let mut acc = [[0.0f32; TILE]; M];
    for c in 0..dim {
        let at = c * TILE * size_of::<T>();
        if at.is_multiple_of(64) {
            prefetch(keys, at + AHEAD);
        }
        // SAFETY: c < dim and the lengths were checked above.
        let k: &[T] = unsafe { keys.get_unchecked(c * TILE..c * TILE + TILE) };
        let mut key = [0.0; TILE];
        for j in 0..TILE {
            key[j] = k[j].get();
        }
        for m in 0..M {
            // SAFETY: as above.
            let q = unsafe { *queries.get_unchecked(m * dim + c) };
            for j in 0..TILE {
                acc[m][j] = q.mul_add(key[j], acc[m][j]);
            }
        }
    }
    acc
}

/// Queries that share one walk over the keys and values.
pub const BLOCK: usize = 6;

/// Raw scores of M queries over key tiles `tiles`; `put(first + query, tile, scores)`.
#[inline(always)]
fn walk<T: Cell, const M: usize>(
    queries: &[f32],
    dim: usize,
    keys: &[T],
    tiles: Range<usize>,
    first: usize,
    put: &mut impl FnMut(usize, usize, &[f32; TILE]),
) {
    for tile in tiles {
        let s = self::tile::<T, M>(queries, dim, &keys[tile * dim * TILE..]);
        for (m, values) in s.iter().enumerate() {
            put(first + m, tile, values);
        }
    }
}

/// Raw scores of `count` queries [count, D] over key tiles `tiles`; `put(query, tile, scores)`.
#[inline(always)]
pub fn scores<T: Cell>(
    queries: &[f32],
    count: usize,
    dim: usize,
    cells: &Cells<T>,
    tiles: Range<usize>,
    mut put: impl FnMut(usize, usize, &[f32; TILE]),
) {
    let mut first = 0;
    while first < count {
        let (queries, tiles) = (&queries[first * dim..], tiles.clone());
        first += match count - first {
            1 => (walk::<T, 1>(queries, dim, &cells.keys, tiles, first, &mut put), 1).1,
            2 => (walk::<T, 2>(queries, dim, &cells.keys, tiles, first, &mut put), 2).1,
            3 => (walk::<T, 3>(queries, dim, &cells.keys, tiles, first, &mut put), 3).1,
            4 | 5 => (walk::<T, 4>(queries, dim, &cells.keys, tiles, first, &mut put), 4).1,
            _ => (walk::<T, BLOCK>(queries, dim, &cells.keys, tiles, first, &mut put), BLOCK).1,
        };
    }
}

/// Adds C channels of M weighted sums of values over `slots` to `sums` [M, width], whose first column is `base`.
#[inline(always)]
fn weigh_channels<T: Cell, const M: usize, const C: usize>(
    p: &[&[f32]; M],
    values: &[T],
    dim: usize,
    channel: usize,
    slots: Range<usize>,
    sums: &mut [f32],
    width: usize,
    base: usize,
) {
    assert!(p.iter().all(|p| p.len() >= slots.end) && values.len() >= slots.end * dim && channel + C <= dim);
    let mut acc = [[0.0f32; C]; M];
    for m in 0..M {
        acc[m].copy_from_slice(&sums[m * width + channel - base..][..C]);
    }
    for t in slots {
        if (t * dim * size_of::<T>()).is_multiple_of(64) {
            for line in 0..(C * size_of::<T>()).div_ceil(64) {
                prefetch(values, (t * dim + channel) * size_of::<T>() + line * 64 + AHEAD);
            }
        }
        // SAFETY: t < slots.end and the lengths were checked above.
        let v: &[T] = unsafe { values.get_unchecked(t * dim + channel..t * dim + channel + C) };
        let mut value = [0.0; C];
        for j in 0..C {
            value[j] = v[j].get();
        }
        for m in 0..M {
            // SAFETY: as above.
            let w = unsafe { *p[m].get_unchecked(t) };
            for j in 0..C {
                acc[m][j] = w.mul_add(value[j], acc[m][j]);
            }
        }
    }
    for m in 0..M {
        sums[m * width + channel - base..][..C].copy_from_slice(&acc[m]);
    }
}

/// M rows, C channels at a time.
#[inline(always)]
fn weigh_rows<T: Cell, const M: usize, const C: usize>(
    p: &[&[f32]; M],
    values: &[T],
    dim: usize,
    channels: Range<usize>,
    slots: Range<usize>,
    sums: &mut [f32],
) {
    let (width, base) = (channels.len(), channels.start);
    let mut c = channels.start;
    while c + C <= channels.end {
        weigh_channels::<T, M, C>(p, values, dim, c, slots.clone(), sums, width, base);
        c += C;
    }
    while C > 32 && c + 32 <= channels.end {
        weigh_channels::<T, M, 32>(p, values, dim, c, slots.clone(), sums, width, base);
        c += 32;
    }
    for c in c..channels.end {
        weigh_channels::<T, M, 1>(p, values, dim, c, slots.clone(), sums, width, base);
    }
}

/// Adds Σ p·v over `slots` and `channels` of `count` rows of probabilities (row(m)[slot]) to `sums`
/// [count, channels]; `values` [slots, D].
#[inline(always)]
pub fn weigh<'a, T: Cell>(
    row: impl Fn(usize) -> &'a [f32],
    count: usize,
    values: &[T],
    dim: usize,
    channels: Range<usize>,
    slots: Range<usize>,
    sums: &mut [f32],
) {
    let width = channels.len();
    let mut first = 0;
    while first < count {
        let (channels, slots, sums) = (channels.clone(), slots.clone(), &mut sums[first * width..]);
        let p = |m: usize| row(first + m);
        first += match count - first {
            1 => (weigh_rows::<T, 1, 64>(&[p(0)], values, dim, channels, slots, sums), 1).1,
            2 => (weigh_rows::<T, 2, 64>(&[p(0), p(1)], values, dim, channels, slots, sums), 2).1,
            3 => (weigh_rows::<T, 3, 64>(&[p(0), p(1), p(2)], values, dim, channels, slots, sums), 3).1,
            4 | 5 => (weigh_rows::<T, 4, 64>(&std::array::from_fn(p), values, dim, channels, slots, sums), 4).1,
            _ => (weigh_rows::<T, BLOCK, 16>(&std::array::from_fn(p), values, dim, channels, slots, sums), BLOCK).1,
        };
    }
}

/// Keys of `slots` (from a tile's first on) as f32, for many queries to share. Packed ones are read back.
#[inline(always)]
pub fn widen_keys(cache: &HeadCache, slots: Range<usize>, wide: &mut Cells<f32>) {
    let dim = cache.dim;
    if cache.packed().0 > 0 {
        return cache.read_keys(slots, &mut wide.keys);
    }
    let tiles = slots.start * dim..slots.end.next_multiple_of(TILE) * dim;
    with_cells!(&cache.columns, cells => spread(&cells.keys[tiles], &mut wide.keys));
}

/// The same of values.
#[inline(always)]
pub fn widen_values(cache: &HeadCache, slots: Range<usize>, wide: &mut Cells<f32>) {
    let dim = cache.dim;
    if cache.packed().1 > 0 {
        return cache.read_values(slots, 0..dim, &mut wide.values);
    }
    with_cells!(&cache.columns, cells => spread(&cells.values[slots.start * dim..slots.end * dim], &mut wide.values));
}

#[inline(always)]
fn spread<T: Cell>(from: &[T], to: &mut Vec<f32>) {
    to.clear();
    to.extend(from.iter().map(|x| x.get()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::KvType;
    use crate::simd::vectorized;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_number_of_rows_gives_the_bits_of_one_and_agrees_with_f64(
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
            let (tiles, stride) = (n.div_ceil(TILE), n.next_multiple_of(TILE));
            let mut all = vec![0.0; count * stride];
            with_cells!(&cache.columns, cells => vectorized(#[inline(always)] || scores(&queries, count, dim, cells, 0..tiles, |m, tile, s| all[m * stride + tile * TILE..][..TILE].copy_from_slice(s))));
            for m in 0..count {
                let q = &queries[m * dim..(m + 1) * dim];
                let mut single = vec![0.0; stride];
                with_cells!(&cache.columns, cells => scores(q, 1, dim, cells, 0..tiles, |_, tile, s| single[tile * TILE..][..TILE].copy_from_slice(s)));
                for t in 0..n {
                    prop_assert_eq!(single[t].to_bits(), all[m * stride + t].to_bits());
                    let exact: f64 = q.iter().zip(&keys[t * dim..]).map(|(a, b)| *a as f64 * *b as f64).sum();
                    prop_assert!((single[t] as f64 - exact).abs() < 1e-5 * dim as f64);
                }
            }
            let p = draw(count * stride);
            let mut sums = vec![0.0; count * dim];
            let mut wide = Cells::default();
            vectorized(#[inline(always)] || {
                for from in (0..n).step_by(2 * TILE) {
                    let to = n.min(from + 2 * TILE);
                    widen_values(&cache, from..to, &mut wide);
                    weigh(|m| &p[m * stride + from..(m + 1) * stride], count, &wide.values, dim, 0..dim, 0..to - from, &mut sums);
                }
            });
            for m in 0..count {
                let mut single = vec![0.0; dim];
                // In two parts of the channels, as threads take them.
                let (a, b) = single.split_at_mut(dim / 2);
                with_cells!(&cache.columns, cells => {
                    weigh(|_| &p[m * stride..(m + 1) * stride], 1, &cells.values, dim, 0..dim / 2, 0..n, a);
                    weigh(|_| &p[m * stride..(m + 1) * stride], 1, &cells.values, dim, dim / 2..dim, 0..n, b);
                });
                prop_assert_eq!(&single[..], &sums[m * dim..(m + 1) * dim]);
                for c in 0..dim {
                    let exact: f64 = (0..n).map(|t| p[m * stride + t] as f64 * values[t * dim + c] as f64).sum();
                    prop_assert!((single[c] as f64 - exact).abs() < 1e-4);
                }
            }
        }
    }
}
