//! Four bits of every weight of a block: [16 rows, 32 columns] in 256 bytes.

use bytemuck::{Pod, Zeroable};

use super::super::simd::Simd;

/// Byte `4·row + j` of line p holds column 8p + j in its low half and column 8p + 4 + j in its high half, so that one
/// line read feeds two groups of all 16 rows.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub struct Nibbles([[u8; 64]; 4]);

impl Nibbles {
    /// `q` < 16; the place must still be zero.
    pub fn put(&mut self, row: usize, column: usize, q: u8) {
        self.0[column / 8][row * 4 + column % 4] |= q << (column & 4);
    }

    /// One row from a ggml block's 16 bytes: low halves are columns 0..16, high halves 16..32.
    pub fn put_row(&mut self, row: usize, file: &[u8]) {
        for (i, byte) in file.iter().enumerate() {
            self.put(row, i, byte & 15);
            self.put(row, i + 16, byte >> 4);
        }
    }

    #[inline(always)]
    pub fn group<S: Simd>(&self, s: S, group: usize) -> S::Bytes {
        s.bits(s.bytes(&self.0[group / 2]), group % 2 * 4, 0, 15)
    }
}
