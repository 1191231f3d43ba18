//! One more bit of every weight of a block: [16 rows, 32 columns] in 64 bytes.

use bytemuck::{Pod, Zeroable};

use super::super::simd::Simd;

/// Bit g of byte `4·row + j` belongs to column 4g + j.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub struct BitPlane([u8; 64]);

impl BitPlane {
    /// `bit` < 2; the place must still be zero.
    pub fn put(&mut self, row: usize, column: usize, bit: u8) {
        self.0[row * 4 + column % 4] |= bit << (column / 4);
    }

    /// One row from a ggml block's 32 bits, column 0 lowest.
    pub fn put_row(&mut self, row: usize, file: &[u8]) {
        for column in 0..32 {
            self.put(row, column, file[column / 8] >> (column % 8) & 1);
        }
    }

    /// The bits of four columns as 16s: the fifth bit of a byte.
    #[inline(always)]
    pub fn group<S: Simd>(&self, s: S, group: usize) -> S::Bytes {
        s.bits(s.bytes(&self.0), group, 4, 16)
    }
}
