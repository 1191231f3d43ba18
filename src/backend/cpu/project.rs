//! What values become behind the output projection.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::backend::Result;
use crate::model::tensor::Tensor;
use crate::policy::part::Norm;
use crate::policy::product::Matrix;

use super::linear::dequantize;
use super::simd::{LANES, fold_sum, vectorized};

/// Values projected at a time: what becomes of them stays in the second-level cache.
const BLOCK: usize = 64;

/// ‖W_O,h · v_t‖ of the values [n, D] that `values` gives for each of `heads` query heads h [H][n]; `output` [d, H·D] as
/// stored.
pub fn projected<'a>(
    heads: usize,
    output: &Tensor,
    norm: Norm,
    values: impl Fn(usize) -> Cow<'a, [f32]> + Sync,
) -> Result<Vec<Vec<f32>>> {
    let d = output.cols / heads.max(1);
    let weights = dequantize(output)?;
    let one = |head: usize| -> Vec<f32> {
        let columns: Vec<f32> =
            weights.chunks_exact(heads * d).flat_map(|row| &row[head * d..(head + 1) * d]).copied().collect();
        let block = |values: &[f32]| -> Vec<f32> {
            let projected = Matrix::of(values, d).times(Matrix::of(&columns, d).turned());
            projected.chunks_exact(output.rows.max(1)).map(|row| length(row, norm)).collect()
        };
        values(head).par_chunks(BLOCK * d).flat_map_iter(block).collect()
    };
    Ok((0..heads).into_par_iter().map(one).collect())
}

fn length(row: &[f32], norm: Norm) -> f32 {
    vectorized(
        #[inline(always)]
        || {
            let mut sums = [0.0f32; LANES];
            let (chunks, rest) = row.as_chunks::<LANES>();
            for chunk in chunks.iter().map(|chunk| &chunk[..]).chain([rest]) {
                for (sum, x) in sums.iter_mut().zip(chunk) {
                    *sum += if norm == Norm::L1 { x.abs() } else { x * x };
                }
            }
            let sum = fold_sum(sums);
            if norm == Norm::L1 { sum } else { sum.sqrt() }
        },
    )
}
