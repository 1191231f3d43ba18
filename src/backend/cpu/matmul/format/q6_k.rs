//! Q6_K: w = d·sc·(q − 32), q of 6 bits; sc an i8 per 16 columns, d per 256.

use bytemuck::{Pod, Zeroable};

use super::super::simd::Simd;
use super::halves::Halves;
use super::nibble::Nibbles;
use super::{Bits6, Format};
use crate::model::tensor::DType;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(32))]
pub struct Q6K {
    d: Halves,
    blocks: [Block; 8],
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Block {
    low: Nibbles,
    /// Line h: bits 2i and 2i + 1 of byte `4·row + j` are the top bits of column 16h + 4i + j.
    high: [[u8; 64]; 2],
    scale: [[i8; 16]; 2],
}

impl Format for Q6K {
    type Kind = Bits6;
    const DTYPE: DType = DType::Q6K;
    const BLOCKS: usize = 8;

    fn pack(&mut self, row: usize, file: &[u8]) {
        let (low, rest) = file.split_at(128);
        let (high, scales) = rest.split_at(64);
        self.d.put(row, &scales[16..]);
        for (b, block) in self.blocks.iter_mut().enumerate() {
            for span in 0..2 {
                block.scale[span][row] = scales[2 * b + span] as i8;
            }
            // Of each 128 columns: blocks 0 and 2 share one run of 32 low bytes, 1 and 3 the other; all share `high`.
            let (half, part) = (b / 4, b % 4);
            let low = &low[half * 64 + part % 2 * 32..][..32];
            let high = &high[half * 32..][..32];
            for column in 0..32 {
                block.low.put(row, column, low[column] >> (part / 2 * 4) & 15);
                block.high[column / 16][row * 4 + column % 4] |=
                    (high[column] >> (part * 2) & 3) << (column % 16 / 4 * 2);
            }
        }
    }

    #[inline(always)]
    fn group<S: Simd>(&self, s: S, block: usize, group: usize) -> S::Bytes {
        let block = &self.blocks[block];
        let high = s.bits(s.bytes(&block.high[group / 4]), group % 4 * 2, 4, 48);
        s.or(block.low.group(s, group), high)
    }

    /// Exact: 11 bits × 7 bits.
    #[inline(always)]
    fn scale<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats {
        s.mul(self.d.load(s), s.load_i8(&self.blocks[block].scale[span]))
    }

    #[inline(always)]
    fn min<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats {
        s.mul(self.scale(s, block, span), s.splat(-32.0))
    }
}
