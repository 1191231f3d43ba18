//! What values become behind the output projection.

use candle_core::{Device, Tensor as Dense};

use crate::backend::{CacheId, Result};
use crate::model::tensor::Tensor;
use crate::policy::part::Norm;

use super::CpuBackend;
use super::linear::{dequantize, failed};

/// ‖W_O,h · v_t‖ of the held values of each query head h [H][n]; `output` [d, H·D] as stored.
pub fn projected(
    backend: &CpuBackend,
    cache: CacheId,
    layer: usize,
    output: &Tensor,
    norm: Norm,
) -> Result<Vec<Vec<f32>>> {
    let shape = &backend.shape;
    let (heads, d, group) = (shape.heads, shape.head_dim, shape.heads / shape.kv_heads);
    let weights = dequantize(output)?;
    let one = |head: usize| -> candle_core::Result<Vec<f32>> {
        let values = backend.cache_ref(cache, layer, head / group).values();
        let columns: Vec<f32> =
            weights.chunks_exact(heads * d).flat_map(|row| &row[head * d..(head + 1) * d]).copied().collect();
        let n = values.len() / d;
        let v = Dense::from_vec(values, (n, d), &Device::Cpu)?;
        let w = Dense::from_vec(columns, (output.rows, d), &Device::Cpu)?;
        let projected = v.matmul(&w.t()?)?;
        match norm {
            Norm::L1 => projected.abs()?.sum(1)?.to_vec1(),
            Norm::L2 => projected.sqr()?.sum(1)?.sqrt()?.to_vec1(),
        }
    };
    (0..heads).map(|head| one(head).map_err(|why| failed("projecting values", why))).collect()
}
