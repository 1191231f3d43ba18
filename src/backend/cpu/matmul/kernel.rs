//! The product of one tile of packed weights with a few quantised activation rows.
//!
//! Every element is Σ over blocks, in order, of fma(t, d_x, acc) with t = fma(scale, Σq·q_x, min·Σq_x): the inner sum
//! is an exact integer, so the result depends neither on the instruction set nor on which rows share a pass.

use super::format::{Format, Kind};
use super::rows::RowBlock;
use super::simd::Simd;

/// The columns of one tile, wherever its integers come from.
pub(super) trait TileColumns {
    type Kind: Kind;
    /// In blocks of 32 columns.
    fn blocks(&self) -> usize;
    fn group<S: Simd>(&self, s: S, block: usize, group: usize) -> S::Bytes;
    fn scale<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats;
    fn min<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats;
    /// Called as a block is begun, to fetch what will be needed a little later.
    fn prefetch<S: Simd>(&self, s: S, block: usize);
}

/// How far ahead packed weights are asked for, in bytes. The CPU's own prefetching stops at pages and starts late: with
/// this, weights arrive a quarter faster from memory and half again as fast from the third-level cache.
const AHEAD: usize = 4096;

/// Straight from the packed matrix.
pub(super) struct Packed<'a, F>(pub &'a [F]);

impl<F: Format> TileColumns for Packed<'_, F> {
    type Kind = F::Kind;

    #[inline(always)]
    fn blocks(&self) -> usize {
        self.0.len() * F::BLOCKS
    }

    #[inline(always)]
    fn group<S: Simd>(&self, s: S, block: usize, group: usize) -> S::Bytes {
        self.0[block / F::BLOCKS].group(s, block % F::BLOCKS, group)
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats {
        self.0[block / F::BLOCKS].scale(s, block % F::BLOCKS, span)
    }

    #[inline(always)]
    fn min<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats {
        self.0[block / F::BLOCKS].min(s, block % F::BLOCKS, span)
    }

    #[inline(always)]
    fn prefetch<S: Simd>(&self, s: S, block: usize) {
        let bytes = size_of::<F>() / F::BLOCKS;
        let at = self.0.as_ptr().cast::<u8>().wrapping_add(block * bytes + AHEAD);
        for line in 0..bytes.div_ceil(64) {
            s.prefetch(at.wrapping_add(line * 64));
        }
    }
}

/// acc [n][16] += the tile's columns × x [n, columns], for n ≤ S::ROWS.
#[inline(always)]
pub(super) fn accumulate<S: Simd, T: TileColumns>(s: S, tile: &T, x: &[&[RowBlock]], acc: &mut [[f32; 16]]) {
    match x.len() {
        0 => {}
        1 => accumulate_rows::<S, T, 1>(s, tile, x, acc),
        2 if S::ROWS >= 2 => accumulate_rows::<S, T, 2>(s, tile, x, acc),
        3 | 4 if S::ROWS >= 4 => accumulate_rows::<S, T, 4>(s, tile, x, acc),
        _ if S::ROWS == 8 => accumulate_rows::<S, T, 8>(s, tile, x, acc),
        _ => {}
    }
}

/// With fewer than M rows the last one is computed again and thrown away.
#[inline(always)]
fn accumulate_rows<S: Simd, T: TileColumns, const M: usize>(s: S, tile: &T, x: &[&[RowBlock]], acc: &mut [[f32; 16]]) {
    let blocks = tile.blocks();
    let last = x.len() - 1;
    let mut rows: [&[RowBlock]; M] = [&[]; M];
    let mut sums = [s.splat(0.0); M];
    for m in 0..M {
        rows[m] = &x[m.min(last)][..blocks];
        sums[m] = s.load(&acc[m.min(last)]);
    }
    for b in 0..blocks {
        tile.prefetch(s, b);
        // Written out: a loop that the compiler leaves a loop would shift and mask by numbers it does not know.
        add_span(s, tile, &rows, b, 0, &mut sums);
        if T::Kind::SPANS == 2 {
            add_span(s, tile, &rows, b, 1, &mut sums);
        }
    }
    for (m, acc) in acc.iter_mut().enumerate().take(last + 1) {
        s.store(sums[m], acc);
    }
}

#[inline(always)]
fn add_span<S: Simd, T: TileColumns, const M: usize>(
    s: S,
    tile: &T,
    rows: &[&[RowBlock]; M],
    b: usize,
    span: usize,
    acc: &mut [S::Floats; M],
) {
    let ints = dots(s, tile, rows, b, span);
    let scale = tile.scale(s, b, span);
    let min = if T::Kind::HAS_MIN { tile.min(s, b, span) } else { s.splat(0.0) };
    for m in 0..M {
        let x = &rows[m][b];
        let x_sum = if T::Kind::SPANS == 1 { x.sum } else { x.half_sums[span] };
        let dot = if T::Kind::SIGNED { s.signed_floats(ints[m], x_sum) } else { s.floats(ints[m]) };
        let product = if T::Kind::HAS_MIN { s.fma(scale, dot, s.mul(min, s.splat(x_sum))) } else { s.mul(scale, dot) };
        acc[m] = s.fma(product, s.splat(x.d), acc[m]);
    }
}

/// Σ q·q_x over one span of block `b`, for each row.
#[inline(always)]
fn dots<S: Simd, T: TileColumns, const M: usize>(
    s: S,
    tile: &T,
    rows: &[&[RowBlock]; M],
    b: usize,
    span: usize,
) -> [S::Ints; M] {
    let groups = 8 / T::Kind::SPANS;
    let first = span * groups;
    let mut ints = [s.zero_ints(); M];
    add_run(s, tile, rows, b, first, &mut ints);
    if groups / T::Kind::RUN == 2 {
        add_run(s, tile, rows, b, first + T::Kind::RUN, &mut ints);
    }
    ints
}

/// RUN groups, summed in 16 bits where the format allows.
#[inline(always)]
fn add_run<S: Simd, T: TileColumns, const M: usize>(
    s: S,
    tile: &T,
    rows: &[&[RowBlock]; M],
    b: usize,
    first: usize,
    ints: &mut [S::Ints; M],
) {
    let mut sums = [s.zero_sums(); M];
    add_two_groups(s, tile, rows, b, first, &mut sums, ints);
    if T::Kind::RUN >= 4 {
        add_two_groups(s, tile, rows, b, first + 2, &mut sums, ints);
    }
    if T::Kind::RUN == 8 {
        add_two_groups(s, tile, rows, b, first + 4, &mut sums, ints);
        add_two_groups(s, tile, rows, b, first + 6, &mut sums, ints);
    }
    if !T::Kind::SIGNED {
        for m in 0..M {
            ints[m] = s.widen(ints[m], sums[m]);
        }
    }
}

#[inline(always)]
fn add_two_groups<S: Simd, T: TileColumns, const M: usize>(
    s: S,
    tile: &T,
    rows: &[&[RowBlock]; M],
    b: usize,
    first: usize,
    sums: &mut [S::Sums; M],
    ints: &mut [S::Ints; M],
) {
    for group in [first, first + 1] {
        let weights = tile.group(s, b, group);
        for m in 0..M {
            let x = rows[m][b].q[group];
            if T::Kind::SIGNED {
                ints[m] = s.pin_ints(s.dot_signed(ints[m], weights, x));
            } else {
                sums[m] = s.pin_sums(s.dot(sums[m], weights, x));
            }
        }
    }
}
