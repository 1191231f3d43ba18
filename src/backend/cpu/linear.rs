//! Linear weights as the CPU holds them, and how stored tensors become numbers.

use candle_core::quantized::{GgmlDType, QTensor, ggml_file::qtensor_from_ggml};
use candle_core::{CpuStorage, Device, Storage};

use crate::backend::{BackendError, Result};
use crate::model::tensor::{DType, Tensor};

pub use super::matmul::Isa;
use super::matmul::{FloatMatrix, PackedMatrix, QuantizedRows, WeightMemory};

/// A weight [rows, cols] applied as x · Wᵀ.
pub enum Linear {
    /// f32: the reference.
    Dense(candle_core::Tensor),
    /// As stored; parts of different types lie one below the other (first row, part).
    Stored(Vec<(usize, Part)>),
    /// Gate and up projection, tile by tile in turn; the number is the width of each.
    PackedGated(PackedMatrix, usize),
}

/// Rows of one stored type.
pub enum Part {
    Packed(PackedMatrix),
    Float(FloatMatrix),
}

impl Part {
    pub fn rows(&self) -> usize {
        match self {
            Part::Packed(p) => p.rows(),
            Part::Float(f) => f.rows(),
        }
    }

    pub fn tiles(&self) -> usize {
        match self {
            Part::Packed(p) => p.tiles(),
            Part::Float(f) => f.tiles(),
        }
    }

    fn cols(&self) -> usize {
        match self {
            Part::Packed(p) => p.cols(),
            Part::Float(f) => f.cols(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Part::Packed(p) => p.bytes() as u64,
            Part::Float(f) => f.bytes() as u64,
        }
    }
}

/// 8-bit rows of one activation buffer; made when a packed product first reads it.
pub type Quantized = Option<QuantizedRows>;

impl Linear {
    pub fn dense(parts: &[&Tensor]) -> Result<Self> {
        let cols = parts.first().map_or(0, |p| p.cols);
        let rows: usize = parts.iter().map(|p| p.rows).sum();
        let mut data = Vec::with_capacity(rows * cols);
        for part in parts {
            data.extend(dequantize(part)?);
        }
        candle_core::Tensor::from_vec(data, (rows, cols), &Device::Cpu)
            .map(Self::Dense)
            .map_err(|e| failed("weights", e))
    }

    /// Neighbours of one quantised type and width share a packed matrix.
    pub fn native(parts: &[&Tensor], memory: &mut WeightMemory) -> Result<Self> {
        let mut stored = Vec::new();
        let mut row = 0;
        for group in parts.chunk_by(|a, b| a.dtype == b.dtype && a.dtype.is_quantized()) {
            let part = if group[0].dtype.is_quantized() {
                Part::Packed(PackedMatrix::pack(group, memory).map_err(|e| failed("packing weights", e))?)
            } else {
                Part::Float(FloatMatrix::new(group[0]).map_err(|e| failed("weights", e))?)
            };
            row += part.rows();
            stored.push((row - part.rows(), part));
        }
        Ok(Self::Stored(stored))
    }

    pub fn native_gated(gate: &Tensor, up: &Tensor, memory: &mut WeightMemory) -> Result<Self> {
        if gate.dtype != up.dtype || !gate.dtype.is_quantized() {
            return Self::native(&[gate, up], memory);
        }
        let packed = PackedMatrix::pack_interleaved(gate, up, memory).map_err(|e| failed("packing weights", e))?;
        Ok(Self::PackedGated(packed, gate.rows))
    }

    pub fn rows(&self) -> usize {
        match self {
            Linear::Dense(t) => t.dim(0).unwrap_or(0),
            Linear::Stored(parts) => parts.iter().map(|(_, p)| p.rows()).sum(),
            Linear::PackedGated(_, width) => 2 * width,
        }
    }

    pub fn cols(&self) -> usize {
        match self {
            Linear::Dense(t) => t.dim(1).unwrap_or(0),
            Linear::Stored(parts) => parts.first().map_or(0, |(_, p)| p.cols()),
            Linear::PackedGated(p, _) => p.cols(),
        }
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Linear::Dense(t) => t.elem_count() as u64 * 4,
            Linear::Stored(parts) => parts.iter().map(|(_, p)| p.bytes()).sum(),
            Linear::PackedGated(p, _) => p.bytes() as u64,
        }
    }

    /// Reads its activations in 8 bits.
    pub fn wants_quantized(&self) -> bool {
        match self {
            Linear::Dense(_) => false,
            Linear::Stored(parts) => parts.iter().any(|(_, p)| matches!(p, Part::Packed(_))),
            Linear::PackedGated(..) => true,
        }
    }
}

pub fn failed(what: &str, why: impl std::fmt::Display) -> BackendError {
    BackendError::Failed { what: what.into(), why: why.to_string() }
}

/// Calls `f` with the numbers of a dense f32 tensor.
pub fn with_f32<R>(t: &candle_core::Tensor, f: impl FnOnce(&[f32]) -> R) -> Option<R> {
    let (storage, layout) = t.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => {
            let (from, to) = layout.contiguous_offsets()?;
            Some(f(&data[from..to]))
        }
        _ => None,
    }
}

fn ggml(dtype: DType) -> Option<GgmlDType> {
    Some(match dtype {
        DType::Q8_0 => GgmlDType::Q8_0,
        DType::Q4_0 => GgmlDType::Q4_0,
        DType::Q4_1 => GgmlDType::Q4_1,
        DType::Q5_0 => GgmlDType::Q5_0,
        DType::Q5_1 => GgmlDType::Q5_1,
        DType::Q4K => GgmlDType::Q4K,
        DType::Q5K => GgmlDType::Q5K,
        DType::Q6K => GgmlDType::Q6K,
        DType::F32 | DType::F16 | DType::BF16 => return None,
    })
}

/// The tensor's numbers [rows · cols]; blocks are decoded by candle.
pub fn dequantize(tensor: &Tensor) -> Result<Vec<f32>> {
    if let Some(dtype) = ggml(tensor.dtype) {
        let decode = || -> candle_core::Result<Vec<f32>> {
            let q: QTensor = qtensor_from_ggml(dtype, tensor.data(), vec![tensor.rows, tensor.cols], &Device::Cpu)?;
            q.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()
        };
        return decode().map_err(|e| failed(&format!("decoding {}", tensor.name), e));
    }
    let mut out = vec![0.0; tensor.rows * tensor.cols];
    read_floats(tensor.dtype, tensor.data(), &mut out);
    Ok(out)
}

/// One row of a table [cols]; a row that does not exist (or does not decode) is zero.
pub fn dequantize_row(tensor: &Tensor, row: usize, out: &mut [f32]) {
    out.fill(0.0);
    if row >= tensor.rows {
        return;
    }
    let bytes = tensor.row(row);
    match ggml(tensor.dtype) {
        None => read_floats(tensor.dtype, bytes, out),
        Some(dtype) => {
            let decode = || -> candle_core::Result<Vec<f32>> {
                let q = qtensor_from_ggml(dtype, bytes, vec![1, tensor.cols], &Device::Cpu)?;
                q.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()
            };
            if let Ok(values) = decode() {
                out.copy_from_slice(&values);
            }
        }
    }
}

fn read_floats(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => {
            for (x, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *x = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
        DType::F16 => {
            for (x, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *x = half::f16::from_le_bytes([b[0], b[1]]).to_f32();
            }
        }
        _ => {
            for (x, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *x = half::bf16::from_le_bytes([b[0], b[1]]).to_f32();
            }
        }
    }
}
