//! Q4_K: w = d·sc·q − dmin·m, q of 4 bits; sc and m of 6 bits per 32 columns, d and dmin per 256.

use bytemuck::{Pod, Zeroable};

use super::super::simd::Simd;
use super::halves::Halves;
use super::k_scales::scale_and_min;
use super::nibble::Nibbles;
use super::{Bits4, Format};
use crate::model::tensor::DType;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(32))]
pub struct Q4K {
    d: Halves,
    dmin: Halves,
    blocks: [Block; 8],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Block {
    q: Nibbles,
    scale: [u8; 16],
    min: [u8; 16],
}

impl Format for Q4K {
    type Kind = Bits4;
    const DTYPE: DType = DType::Q4K;
    const BLOCKS: usize = 8;

    fn pack(&mut self, row: usize, file: &[u8]) {
        self.d.put(row, file);
        self.dmin.put(row, &file[2..]);
        for (b, block) in self.blocks.iter_mut().enumerate() {
            (block.scale[row], block.min[row]) = scale_and_min(b, &file[4..16]);
            // Blocks 2i and 2i + 1 are the low and the high halves of the same 32 bytes.
            for (column, byte) in file[16 + b / 2 * 32..][..32].iter().enumerate() {
                block.q.put(row, column, byte >> (b % 2 * 4) & 15);
            }
        }
    }

    #[inline(always)]
    fn group<S: Simd>(&self, s: S, block: usize, group: usize) -> S::Bytes {
        self.blocks[block].q.group(s, group)
    }

    /// Exact: 11 bits × 6 bits.
    #[inline(always)]
    fn scale<S: Simd>(&self, s: S, block: usize, _span: usize) -> S::Floats {
        s.mul(self.d.load(s), s.load_u8(&self.blocks[block].scale))
    }

    #[inline(always)]
    fn min<S: Simd>(&self, s: S, block: usize, _span: usize) -> S::Floats {
        s.mul(s.mul(self.dmin.load(s), s.splat(-1.0)), s.load_u8(&self.blocks[block].min))
    }
}
