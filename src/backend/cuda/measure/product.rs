//! The products of one row and of eight with weights of 1 GiB.

use std::sync::Arc;

use serde::Serialize;

use super::clock::time;
use super::{Sizes, check};
use crate::backend::Result;
use crate::backend::cpu::linear::dequantize;
use crate::backend::cuda::device::{Arg, Device, Launch};
use crate::backend::cuda::memory::Memory;
use crate::backend::cuda::record::product_kernel;
use crate::backend::cuda::records::format;
use crate::model::tensor::{Bytes, DType, Tensor};

pub const FORMATS: [DType; 7] =
    [DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q4K, DType::Q6K];
const BATCHES: [usize; 2] = [1, 8];

#[derive(Debug, Serialize)]
pub struct Product {
    pub kernel: &'static str,
    pub format: &'static str,
    /// Rows of activations, inputs, outputs.
    pub batch: usize,
    pub width: usize,
    pub outs: usize,
    /// Of the weights, which are read once.
    pub bytes: usize,
    pub us: f64,
    pub gb_s: f64,
    /// Of the bandwidth of copying.
    pub share: f64,
}

/// One row of weights: every two bytes are a half-precision number from 0.5 to 1.27, so that scales are.
fn pattern(dtype: DType, width: usize) -> Tensor {
    let bytes = dtype.bytes(1, width).unwrap_or_default();
    let bytes: Vec<u8> = (0..bytes).map(|i| 0x38 + (i % 5) as u8).collect();
    Tensor { name: "pattern".into(), dtype, rows: 1, cols: width, bytes: Bytes::Owned(bytes.into()) }
}

pub fn measure(
    device: &Arc<dyn Device>,
    sizes: &Sizes,
    dtype: DType,
    width: usize,
    copy_bytes_s: f64,
) -> Result<Vec<Product>> {
    let (row, Some(format)) = (pattern(dtype, width), format(dtype)) else { return Ok(Vec::new()) };
    let outs = sizes.weights.div_ceil(row.data().len().max(1));
    let bytes = outs * row.data().len();
    let weights = Memory::<u8>::new(device, bytes)?;
    // all is zero but for the first row and the last
    weights.clear()?;
    weights.write(0, row.data())?;
    weights.write(bytes - row.data().len(), row.data())?;
    let values = dequantize(&row)?;
    let int = |x: usize| Arg::Int(x as i32);
    let one = |batch: usize| {
        let numbers: Vec<f32> = (0..batch * width).map(|i| (i % 11) as f32 / 8.0 - 0.5).collect();
        let (x, out) = (Memory::of(device, &numbers)?, Memory::<f32>::new(device, batch * outs)?);
        let [from, to, none] = [x.arg(), out.arg(), Arg::Pointer(0)];
        let args = [from, int(batch), int(width), weights.arg(), Arg::Int(format), int(outs), none, to, int(outs)];
        let args = [&args[..], &[int(0), int(0)]].concat();
        let (kernel, grid, block) = product_kernel(batch, outs);
        let ns = time(device, sizes, &[Launch { kernel, grid, block: [block, 1, 1], shared: 0, args: &args }])?;
        for (r, found) in out.read(0, batch * outs)?.chunks_exact(outs).enumerate() {
            let products = numbers[r * width..][..width].iter().zip(&values).map(|(x, w)| f64::from(x * w));
            let (dot, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
            for (o, &found) in found.iter().enumerate() {
                let edge = o == 0 || o == outs - 1;
                check(kernel, found, if edge { dot } else { 0.0 }, if edge { 1e-5 * size } else { 0.0 })?;
            }
        }
        let gb_s = bytes as f64 / ns;
        let share = gb_s * 1e9 / copy_bytes_s;
        Ok(Product { kernel, format: dtype.name(), batch, width, outs, bytes, us: ns / 1e3, gb_s, share })
    };
    BATCHES.into_iter().map(one).collect()
}
