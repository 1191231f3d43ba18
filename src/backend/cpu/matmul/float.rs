//! x · Wᵀ for weights in F32, F16 or BF16, read where they lie in the file.
//!
//! A dot product is 16 running sums, of the columns k ≡ 0 … 15 (mod 16), each in the order of k; a last incomplete
//! sixteen is filled up with zeros; then a fixed tree adds the sums. Weights are widened to f32 exactly.

use std::ops::Range;

use thiserror::Error;

use super::Isa;
use super::pack::TILE;
use super::quantized::Sink;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};
use crate::model::tensor::{DType, Tensor};

#[derive(Debug, Error)]
pub enum FloatMatrixError {
    #[error("tensor {name} is {dtype}, which is quantised: pack it instead")]
    Quantized { name: String, dtype: DType },
    #[error("tensor {name} {dtype} [{rows}, {cols}] has {found} bytes of data: the file is damaged or cut short")]
    Size { name: String, dtype: DType, rows: usize, cols: usize, found: usize },
}

/// Weights [rows, cols] as stored, in tiles of 16 rows.
#[derive(Debug, Clone)]
pub struct FloatMatrix {
    tensor: Tensor,
}

impl FloatMatrix {
    pub fn new(tensor: &Tensor) -> Result<Self, FloatMatrixError> {
        let Tensor { dtype, rows, cols, .. } = *tensor;
        let found = tensor.data().len();
        if dtype.is_quantized() {
            return Err(FloatMatrixError::Quantized { name: tensor.name.clone(), dtype });
        }
        // Without columns any number of rows would fit no bytes at all.
        if cols == 0 || dtype.bytes(rows, cols) != Some(found) {
            return Err(FloatMatrixError::Size { name: tensor.name.clone(), dtype, rows, cols, found });
        }
        Ok(Self { tensor: tensor.clone() })
    }

    pub fn rows(&self) -> usize {
        self.tensor.rows
    }

    pub fn cols(&self) -> usize {
        self.tensor.cols
    }

    pub fn tiles(&self) -> usize {
        self.tensor.rows.div_ceil(TILE)
    }

    /// Bytes that one pass over the weights reads.
    pub fn bytes(&self) -> usize {
        self.tensor.data().len()
    }
}

/// x[rows] · w[tiles]ᵀ for x [_, cols] row-major, handed to `out` as by [`matmul`](super::matmul), with the same
/// promise: no split and no instruction set changes a bit.
///
/// # Panics
/// If a range reaches past the end, or `x` is no whole number of rows of `w`'s width.
pub fn matmul_float(w: &FloatMatrix, x: &[f32], rows: Range<usize>, tiles: Range<usize>, isa: Isa, out: Sink<'_>) {
    let cols = w.cols();
    assert!(x.len().is_multiple_of(cols), "{} activations are no rows of {cols}", x.len());
    assert!(rows.end * cols <= x.len(), "rows {rows:?} of {}", x.len() / cols);
    assert!(tiles.end <= w.tiles(), "tiles {tiles:?} of {}", w.tiles());
    let job = Job { w, x, rows, tiles, out };
    match w.tensor.dtype {
        DType::F16 => dispatch::<F16>(isa, job),
        DType::BF16 => dispatch::<BF16>(isa, job),
        _ => dispatch::<F32>(isa, job),
    }
}

/// A stored type: how 16 consecutive values are read.
trait Element {
    type Sixteen: Copy;
    fn split(row: &[u8]) -> (&[Self::Sixteen], &[u8]);
    /// Fewer than 16 values, followed by zeros.
    fn padded(rest: &[u8]) -> Self::Sixteen;
    fn load<S: Simd>(s: S, from: &Self::Sixteen) -> S::Floats;
}

macro_rules! element {
    ($name:ident, $bytes:literal, $load:ident) => {
        struct $name;
        impl Element for $name {
            type Sixteen = [u8; $bytes];

            fn split(row: &[u8]) -> (&[[u8; $bytes]], &[u8]) {
                row.as_chunks()
            }

            fn padded(rest: &[u8]) -> [u8; $bytes] {
                let mut padded = [0; $bytes];
                padded[..rest.len()].copy_from_slice(rest);
                padded
            }

            #[inline(always)]
            fn load<S: Simd>(s: S, from: &[u8; $bytes]) -> S::Floats {
                s.$load(from)
            }
        }
    };
}
element!(F32, 64, load_f32);
element!(F16, 32, load_f16);
element!(BF16, 32, load_bf16);

struct Job<'a> {
    w: &'a FloatMatrix,
    x: &'a [f32],
    rows: Range<usize>,
    tiles: Range<usize>,
    out: Sink<'a>,
}

fn dispatch<E: Element>(isa: Isa, job: Job<'_>) {
    #[cfg(target_arch = "x86_64")]
    match isa {
        // SAFETY: the tokens say that the CPU has the features.
        Isa::Avx2 => {
            if let Some(token) = Avx2::detect() {
                return unsafe { run_avx2::<E>(token, job) };
            }
        }
        Isa::Avx512Vnni => {
            if let Some(token) = Avx512::detect() {
                return unsafe { run_avx512::<E>(token, job) };
            }
        }
        Isa::Portable => {}
    }
    let _ = isa;
    run::<Portable, E>(Portable, job);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<E: Element>(token: Avx2, job: Job<'_>) {
    run::<Avx2, E>(token, job);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run_avx512<E: Element>(token: Avx512, job: Job<'_>) {
    run::<Avx512, E>(token, job);
}

/// Activation rows that a tile meets before the next tile is read.
const CHUNK: usize = 64;

#[inline(always)]
fn run<S: Simd, E: Element>(s: S, job: Job<'_>) {
    let Job { w, x, rows, tiles, out } = job;
    let mut values = [[0.0; TILE]; CHUNK];
    for first in rows.clone().step_by(CHUNK) {
        let count = CHUNK.min(rows.end - first);
        for tile in tiles.clone() {
            let filled = tile * TILE..w.rows().min((tile + 1) * TILE);
            for (i, values) in values[..count].chunks_mut(2).enumerate() {
                let input = |m: usize| &x[(first + 2 * i + m) * w.cols()..][..w.cols()];
                match values {
                    [a, b] => tile_product::<S, E, 2, 2>(s, w, filled.clone(), [input(0), input(1)], [a, b]),
                    [a] => tile_product::<S, E, 4, 1>(s, w, filled.clone(), [input(0)], [a]),
                    _ => {}
                }
            }
            out(tile, first, &values[..count]);
        }
    }
}

/// R weight rows at a time, so that R·M sums of 16 fill the registers without spilling and hide the latency of fma.
#[inline(always)]
fn tile_product<S: Simd, E: Element, const R: usize, const M: usize>(
    s: S,
    w: &FloatMatrix,
    rows: Range<usize>,
    x: [&[f32]; M],
    values: [&mut [f32; TILE]; M],
) {
    let mut lanes = 0;
    for row in rows.clone().step_by(R) {
        // Past the last row it is computed again and not kept.
        let weights: [&[u8]; R] = std::array::from_fn(|r| w.tensor.row((row + r).min(rows.end - 1)));
        let sums = dots::<S, E, R, M>(s, weights, x);
        for (r, sums) in sums.iter().enumerate().take(rows.end - row) {
            for (m, sums) in sums.iter().enumerate() {
                values[m][lanes + r] = tree_sum(sums);
            }
        }
        lanes += R.min(rows.end - row);
    }
    for values in values {
        values[lanes..].fill(0.0);
    }
}

#[inline(always)]
fn dots<S: Simd, E: Element, const R: usize, const M: usize>(
    s: S,
    w: [&[u8]; R],
    x: [&[f32]; M],
) -> [[[f32; 16]; M]; R] {
    let row_bytes = w[0].len();
    let w = w.map(E::split);
    let x = x.map(|x| x.as_chunks::<16>());
    let whole = x[0].0.len();
    let w_whole = w.map(|w| &w.0[..whole]);
    let x_whole = x.map(|x| &x.0[..whole]);
    let mut sums = [[s.splat(0.0); M]; R];
    for i in 0..whole {
        for r in 0..R {
            let weights = E::load(s, &w_whole[r][i]);
            // The row that this place meets next: rows are too short for the CPU to notice the pattern in time.
            s.prefetch((&raw const w_whole[r][i]).cast::<u8>().wrapping_add(R * row_bytes));
            for m in 0..M {
                sums[r][m] = s.fma(weights, s.load(&x_whole[m][i]), sums[r][m]);
            }
        }
    }
    let mut result = [[[0.0; 16]; M]; R];
    for r in 0..R {
        for m in 0..M {
            let mut sum = sums[r][m];
            if !x[m].1.is_empty() {
                let mut rest = [0.0; 16];
                rest[..x[m].1.len()].copy_from_slice(x[m].1);
                sum = s.fma(E::load(s, &E::padded(w[r].1)), s.load(&rest), sum);
            }
            s.store(sum, &mut result[r][m]);
        }
    }
    result
}

#[inline(always)]
fn tree_sum(lanes: &[f32; 16]) -> f32 {
    let mut sums = *lanes;
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
    }
    sums[0]
}
