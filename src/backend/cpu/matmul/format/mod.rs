//! The stored formats, one a file: how the blocks of 16 rows lie packed in memory, and how they are read.
//!
//! A *tile* is 16 weight rows, a *block* 32 columns of a tile, a *group* 4 columns of a block, a *span* the columns
//! of a block that share a scale (all 32, or 16 in Q6_K). A weight is scale·q + min with a small integer q. File
//! layouts are ggml's; the bits and the scales stay those of the file, only their order changes.

mod bit_plane;
mod halves;
mod k_scales;
mod nibble;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;

pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4K;
pub use q5_0::Q5_0;
pub use q5_1::Q5_1;
pub use q5_k::Q5K;
pub use q6_k::Q6K;
pub use q8_0::Q8_0;

use bytemuck::Pod;

use super::simd::Simd;
use crate::model::tensor::DType;

/// What the arithmetic has to know of a format.
pub trait Kind: 'static {
    /// Scales per row of a block.
    const SPANS: usize = 1;
    /// Groups that are summed in one go: 2, 4 or 8, half a span at least. If q is unsigned 16 bits must hold them for
    /// sure: RUN · 2 · 127 · q_max ≤ 32767.
    const RUN: usize;
    /// Whether q is an i8; else it is unsigned.
    const SIGNED: bool = false;
    /// Whether `min` is more than zero.
    const HAS_MIN: bool = true;
}

/// q < 16: 8 · 2 · 127 · 15 = 30480.
pub struct Bits4;
impl Kind for Bits4 {
    const RUN: usize = 8;
}

/// q < 32: 4 · 2 · 127 · 31 = 31496.
pub struct Bits5;
impl Kind for Bits5 {
    const RUN: usize = 4;
}

/// q < 64 with a scale per 16 columns: 2 · 2 · 127 · 63 = 32004.
pub struct Bits6;
impl Kind for Bits6 {
    const SPANS: usize = 2;
    const RUN: usize = 2;
}

/// −128 ≤ q ≤ 127: summed in 32 bits.
pub struct Signed8;
impl Kind for Signed8 {
    const RUN: usize = 8;
    const SIGNED: bool = true;
    const HAS_MIN: bool = false;
}

/// The packed form of one file block (32 or 256 columns) of 16 rows.
pub trait Format: Pod + Send + Sync {
    type Kind: Kind;
    const DTYPE: DType;
    /// Blocks of 32 columns.
    const BLOCKS: usize = 1;

    /// Puts one row's file block (of `DTYPE.block().1` bytes) in place.
    fn pack(&mut self, row: usize, file: &[u8]);
    /// Integers of 4 columns; `block` < BLOCKS, `group` < 8.
    fn group<S: Simd>(&self, s: S, block: usize, group: usize) -> S::Bytes;
    fn scale<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats;
    /// Asked for only if the kind has one.
    fn min<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats;
}
