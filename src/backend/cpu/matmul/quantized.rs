//! x · Wᵀ for packed weights: the choice of instruction set and the walk over tiles and rows.

use std::ops::Range;

use super::Isa;
use super::format::Format;
use super::kernel::{Packed, accumulate};
use super::pack::{PackedMatrix, TILE, with_blocks};
use super::panel::{PANEL, Panel};
use super::rows::{QuantizedRows, RowBlock};
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};

/// Activation rows that a tile meets before the next tile is decoded: what stays in the second-level cache.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_ROWS: usize = 128;

/// Passes over a tile for which unpacking its weights anew costs less than keeping them unpacked.
const FEW: usize = 2;

/// Rows of a result: `out(tile, row, values)` gets, for one tile of 16 weight rows and the activation rows
/// `row..row + values.len()`, their products [n][16].
pub type Sink<'a> = &'a mut dyn FnMut(usize, usize, &[[f32; TILE]]);

/// x[rows] · w[tiles]ᵀ, handed to `out` piece by piece in the order of the tiles of each chunk of rows.
///
/// The same bits for every split into rows and tiles, and on every instruction set. Any number of threads may call it
/// on one `w` and `x`.
///
/// # Panics
/// If a range reaches past the end, or `x` and `w` differ in width.
pub fn matmul(w: &PackedMatrix, x: &QuantizedRows, rows: Range<usize>, tiles: Range<usize>, isa: Isa, out: Sink<'_>) {
    assert_eq!(w.cols(), x.cols(), "weights and activations differ in width");
    assert!(rows.end <= x.rows(), "rows {rows:?} of {}", x.rows());
    assert!(tiles.end <= w.tiles(), "tiles {tiles:?} of {}", w.tiles());
    with_blocks!(&w.blocks, blocks => {
        let per_tile = blocks.len() / w.tiles().max(1);
        dispatch(isa, Job { blocks, per_tile, x, rows, tiles, out })
    });
}

struct Job<'a, F> {
    blocks: &'a [F],
    per_tile: usize,
    x: &'a QuantizedRows,
    rows: Range<usize>,
    tiles: Range<usize>,
    out: Sink<'a>,
}

fn dispatch<F: Format>(isa: Isa, job: Job<'_, F>) {
    #[cfg(target_arch = "x86_64")]
    match isa {
        // SAFETY: the tokens say that the CPU has the features.
        Isa::Avx2 => {
            if let Some(token) = Avx2::detect() {
                return unsafe { run_avx2(token, job) };
            }
        }
        Isa::Avx512Vnni => {
            if let Some(token) = Avx512::detect() {
                return unsafe { run_avx512(token, job) };
            }
        }
        Isa::Portable => {}
    }
    let _ = isa;
    run(Portable, job);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<F: Format>(token: Avx2, job: Job<'_, F>) {
    run(token, job);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run_avx512<F: Format>(token: Avx512, job: Job<'_, F>) {
    run(token, job);
}

#[inline(always)]
fn run<S: Simd, F: Format>(s: S, job: Job<'_, F>) {
    if job.rows.len() <= FEW * S::ROWS { few_rows(s, job) } else { many_rows(s, job) }
}

/// Decoding: each tile is read from memory once and used at once, S::ROWS rows at a time.
#[inline(always)]
fn few_rows<S: Simd, F: Format>(s: S, job: Job<'_, F>) {
    let Job { blocks, per_tile, x, rows, tiles, out } = job;
    let count = rows.len();
    let mut input: [&[RowBlock]; FEW * 8] = [&[]; FEW * 8];
    for (slot, row) in input.iter_mut().zip(rows.clone()) {
        *slot = x.row(row);
    }
    for tile in tiles {
        let columns = Packed(&blocks[tile * per_tile..][..per_tile]);
        let mut acc = [[0.0; TILE]; FEW * 8];
        for (input, acc) in input[..count].chunks(S::ROWS).zip(acc[..count].chunks_mut(S::ROWS)) {
            accumulate(s, &columns, input, acc);
        }
        out(tile, rows.start, &acc[..count]);
    }
}

/// Prefill: chunks of rows, for each the tiles, for each panels of columns, for each S::ROWS rows at a time.
#[inline(always)]
fn many_rows<S: Simd, F: Format>(s: S, job: Job<'_, F>) {
    let Job { blocks, per_tile, x, rows, tiles, out } = job;
    let columns = per_tile * F::BLOCKS;
    let row_bytes = (columns * size_of::<RowBlock>()).max(1);
    let chunk = (CHUNK_BYTES / row_bytes).clamp(S::ROWS, CHUNK_ROWS) / S::ROWS * S::ROWS;
    let panels = columns.div_ceil(PANEL);
    let mut panel = Panel::<F::Kind>::new();
    let mut acc = [[0.0; TILE]; CHUNK_ROWS];
    for first in rows.clone().step_by(chunk) {
        let count = chunk.min(rows.end - first);
        for tile in tiles.clone() {
            let packed = Packed(&blocks[tile * per_tile..][..per_tile]);
            acc[..count].fill([0.0; TILE]);
            for p in 0..panels {
                let (from, to) = (columns * p / panels, columns * (p + 1) / panels);
                panel.decode(s, &packed, from, to);
                for (i, acc) in acc[..count].chunks_mut(S::ROWS).enumerate() {
                    let mut input: [&[RowBlock]; 8] = [&[]; 8];
                    for (m, slot) in input.iter_mut().enumerate().take(acc.len()) {
                        *slot = &x.row(first + i * S::ROWS + m)[from..to];
                    }
                    accumulate(s, &panel, &input[..acc.len()], acc);
                }
            }
            out(tile, first, &acc[..count]);
        }
    }
}
