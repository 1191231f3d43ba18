//! One half float per row of a tile.

use bytemuck::{Pod, Zeroable};

use super::super::simd::Simd;

/// [16] half floats as the file has them, little-endian.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub struct Halves([u8; 32]);

impl Halves {
    /// The half float at the start of `file`.
    pub fn put(&mut self, row: usize, file: &[u8]) {
        self.0[row * 2..row * 2 + 2].copy_from_slice(&file[..2]);
    }

    #[inline(always)]
    pub fn load<S: Simd>(&self, s: S) -> S::Floats {
        s.load_f16(&self.0)
    }
}
