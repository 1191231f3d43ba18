//! Number types that caches store.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};

use crate::simd::Cell;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvType {
    F32,
    F16,
    BF16,
}

impl KvType {
    pub const fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 | KvType::BF16 => 2,
        }
    }

    /// Numbers that were stored.
    pub fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let bits = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        match self {
            KvType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            KvType::F16 => bytes.chunks_exact(2).map(|b| f16::from_bits(bits(b)).get()).collect(),
            KvType::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_bits(bits(b)).get()).collect(),
        }
    }

    /// Rounds to nearest.
    pub fn narrow(self, numbers: &[f32]) -> Vec<u8> {
        fn rounded<T: Cell + bytemuck::Pod>(numbers: &[f32]) -> Vec<u8> {
            let mut cells = vec![T::default(); numbers.len()];
            T::put(numbers, &mut cells);
            bytemuck::cast_slice(&cells).to_vec()
        }
        match self {
            KvType::F32 => rounded::<f32>(numbers),
            KvType::F16 => rounded::<f16>(numbers),
            KvType::BF16 => rounded::<bf16>(numbers),
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::BF16 => "bf16",
        })
    }
}

impl FromStr for KvType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "f32" => Ok(KvType::F32),
            "f16" => Ok(KvType::F16),
            "bf16" => Ok(KvType::BF16),
            other => Err(format!("unknown KV type {other:?}: f32, f16 or bf16")),
        }
    }
}
