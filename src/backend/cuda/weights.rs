//! Weights on a device: as stored wherever kernels read the format.

use std::borrow::Cow;
use std::sync::Arc;

use half::f16;

use super::backend::CudaBackend;
use super::device::Device;
use super::memory::Memory;
use super::records::{F16, F32, format};
use crate::backend::cpu::linear::dequantize;
use crate::backend::{LowRank, Result};
use crate::model::tensor::Tensor;

/// A linear weight [rows, cols]; parts of different formats lie one below the other.
pub struct Linear {
    pub parts: Vec<Part>,
    pub rows: usize,
    pub cols: usize,
}

/// Rows of one format.
pub struct Part {
    pub first: usize,
    pub rows: usize,
    pub format: i32,
    pub bytes: Arc<Memory<u8>>,
}

/// A tensor's format on the device, and its bytes in it. Formats that no kernel reads become f16.
fn stored(tensor: &Tensor, exact: bool) -> Result<(i32, Cow<'_, [u8]>)> {
    if exact {
        let numbers = dequantize(tensor)?;
        return Ok((F32, Cow::Owned(bytemuck::cast_slice(&numbers).to_vec())));
    }
    match format(tensor.dtype) {
        Some(format) => Ok((format, Cow::Borrowed(tensor.data()))),
        None => {
            let halves: Vec<f16> = dequantize(tensor)?.into_iter().map(f16::from_f32).collect();
            Ok((F16, Cow::Owned(bytemuck::cast_slice(&halves).to_vec())))
        }
    }
}

/// Where the embedding table lies, which may serve as the head, too.
pub struct Table {
    pub format: i32,
    pub bytes: Arc<Memory<u8>>,
    /// Of the tensor in the model's file.
    at: *const u8,
}

// SAFETY: the pointer is compared, never followed.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    pub fn new(device: &Arc<dyn Device>, tensor: &Tensor) -> Result<Self> {
        let (format, bytes) = stored(tensor, false)?;
        Ok(Self { format, bytes: Arc::new(Memory::of(device, &bytes)?), at: tensor.data().as_ptr() })
    }

    fn is(&self, tensor: &Tensor, format: i32) -> bool {
        self.at == tensor.data().as_ptr() && self.format == format
    }
}

impl Linear {
    /// `exact`: as f32. Neighbours of one format share memory; what `table` holds already is not held again.
    pub fn new(device: &Arc<dyn Device>, tensors: &[&Tensor], exact: bool, table: Option<&Table>) -> Result<Self> {
        let all: Vec<(i32, Cow<'_, [u8]>)> = tensors.iter().map(|t| stored(t, exact)).collect::<Result<_>>()?;
        let (mut parts, mut row, mut at) = (Vec::new(), 0, 0);
        for same in all.chunk_by(|a, b| a.0 == b.0) {
            let of = &tensors[at..at + same.len()];
            let (format, rows) = (same[0].0, of.iter().map(|tensor| tensor.rows).sum());
            let bytes = match (table, of) {
                (Some(table), [tensor]) if table.is(tensor, format) => table.bytes.clone(),
                _ => {
                    Arc::new(Memory::of(device, &same.iter().map(|(_, bytes)| &**bytes).collect::<Vec<_>>().concat())?)
                }
            };
            parts.push(Part { first: row, rows, format, bytes });
            row += rows;
            at += same.len();
        }
        Ok(Self { parts, rows: row, cols: tensors.first().map_or(0, |tensor| tensor.cols) })
    }

    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes.len() as u64).sum()
    }
}

/// A change of a weight, W + up · down, with its scale in `up`.
pub struct Change {
    /// Whose memory this is.
    pub of: Arc<LowRank>,
    pub down: Memory<f32>,
    pub up: Memory<f32>,
}

impl Change {
    pub fn new(device: &Arc<dyn Device>, of: &Arc<LowRank>) -> Result<Self> {
        let up: Vec<f32> = of.up.iter().map(|x| x * of.scale).collect();
        Ok(Self { down: Memory::of(device, &of.down)?, up: Memory::of(device, &up)?, of: of.clone() })
    }
}

impl CudaBackend {
    /// Memory of a change of a weight, sent once.
    pub(super) fn change(&mut self, change: &Arc<LowRank>) -> Result<usize> {
        match self.changes.iter().position(|known| Arc::ptr_eq(&known.of, change)) {
            Some(place) => Ok(place),
            None => {
                self.changes.push(Change::new(&self.device, change)?);
                Ok(self.changes.len() - 1)
            }
        }
    }
}
