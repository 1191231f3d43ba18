//! Rope layouts. llama GGUF files store the rows of Q and K so that channels 2i and 2i+1 of a head turn together;
//! everything else here turns channel i with channel i + head_dim/2 ("NeoX"). Rows are moved once, at load,
//! so that the engine knows one layout. Whole rows move, whatever they are quantised to.

use std::sync::Arc;

use super::tensor::{Bytes, Tensor};

/// Rows of a `[heads · head_dim, hidden]` weight from interleaved to half-split order.
/// Needs `rows` to be a multiple of the even `head_dim`, as the shape check before this guarantees.
pub(super) fn half_split_rows(weight: Tensor, head_dim: usize) -> Tensor {
    let stride = weight.data().len() / weight.rows;
    half_split(weight, head_dim, stride)
}

/// The same for the elements of a bias, one row of `heads · head_dim`. Its type must have one element per block.
pub(super) fn half_split_bias(bias: Tensor, head_dim: usize) -> Tensor {
    let stride = bias.data().len() / bias.cols;
    half_split(bias, head_dim, stride)
}

/// Channel c of a head comes from 2c in the first half, and from 2(c − head_dim/2) + 1 in the second.
fn half_split(tensor: Tensor, head_dim: usize, stride: usize) -> Tensor {
    let half = head_dim / 2;
    let mut moved = Vec::with_capacity(tensor.data().len());
    for head in tensor.data().chunks_exact(head_dim * stride) {
        for channel in (0..half).map(|i| 2 * i).chain((0..half).map(|i| 2 * i + 1)) {
            moved.extend_from_slice(&head[channel * stride..(channel + 1) * stride]);
        }
    }
    Tensor { bytes: Bytes::Owned(Arc::from(moved)), ..tensor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tensor::DType;

    #[test]
    fn rows_of_each_head_are_sorted_even_before_odd() {
        let values: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let bytes = Bytes::Owned(Arc::from(bytemuck::cast_slice(&values)));
        let weight = Tensor { name: "q".into(), dtype: DType::F32, rows: 8, cols: 2, bytes };
        let moved = half_split_rows(weight, 4);
        let first_column: Vec<f32> = (0..8).map(|r| bytemuck::pod_read_unaligned::<f32>(&moved.row(r)[..4])).collect();
        assert_eq!(first_column, [0.0, 4.0, 2.0, 6.0, 8.0, 12.0, 10.0, 14.0]);
    }
}
