//! Records that kernels read: as in kernels/scope.cuh.

use bytemuck::{Pod, Zeroable};

use crate::cache::KvType;
use crate::model::config::Activation;
use crate::model::tensor::DType;

/// Rows of a pass that follow each other in one cache.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Run {
    pub first: i32,
    pub count: i32,
    pub cache: i32,
    /// 1: their queries are kept.
    pub queries: i32,
}

/// What one kv head of a cache holds: addresses, 0 for none.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Slots {
    /// [capacity, D] each
    pub keys: u64,
    pub values: u64,
    /// [capacity]
    pub positions: u64,
    /// [group, capacity] each
    pub received: u64,
    pub row: u64,
    /// [capacity]
    pub offsets: u64,
    pub len: i32,
    pub capacity: i32,
}

/// Columns of the attention probe.
pub const REDUCTIONS: usize = 6;
pub const MOST: usize = 5;
/// Columns of the residual probe: l2, rms, absmax, median, argmax as bits.
pub const STATS: usize = 5;
/// Columns of the probe of keys and values.
pub const NORMS: usize = 4;

pub const fn kv(kind: KvType) -> i32 {
    match kind {
        KvType::F32 => 0,
        KvType::F16 => 1,
        KvType::BF16 => 2,
    }
}

pub const F32: i32 = 0;
pub const F16: i32 = 1;
pub const BF16: i32 = 2;

/// `Format` of a stored type; `None` where no kernel reads it.
pub const fn format(dtype: DType) -> Option<i32> {
    match dtype {
        DType::F32 => Some(F32),
        DType::F16 => Some(F16),
        DType::BF16 => Some(BF16),
        DType::Q4_0 => Some(3),
        DType::Q4_1 => Some(4),
        DType::Q8_0 => Some(5),
        DType::Q4K => Some(6),
        DType::Q6K => Some(7),
        DType::Q5_0 | DType::Q5_1 | DType::Q5K => None,
    }
}

pub const fn activation(kind: Activation) -> i32 {
    match kind {
        Activation::Silu => 0,
        Activation::GeluTanh => 1,
        Activation::Gelu => 2,
    }
}
