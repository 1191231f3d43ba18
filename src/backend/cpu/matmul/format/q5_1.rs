//! Q5_1: w = d·q + m, q of 5 bits, one d and m per 32 columns.

use bytemuck::{Pod, Zeroable};

use super::super::simd::Simd;
use super::bit_plane::BitPlane;
use super::halves::Halves;
use super::nibble::Nibbles;
use super::{Bits5, Format};
use crate::model::tensor::DType;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(32))]
pub struct Q5_1 {
    low: Nibbles,
    high: BitPlane,
    d: Halves,
    m: Halves,
}

impl Format for Q5_1 {
    type Kind = Bits5;
    const DTYPE: DType = DType::Q5_1;

    fn pack(&mut self, row: usize, file: &[u8]) {
        self.d.put(row, file);
        self.m.put(row, &file[2..]);
        self.high.put_row(row, &file[4..8]);
        self.low.put_row(row, &file[8..24]);
    }

    #[inline(always)]
    fn group<S: Simd>(&self, s: S, _block: usize, group: usize) -> S::Bytes {
        s.or(self.low.group(s, group), self.high.group(s, group))
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, s: S, _block: usize, _span: usize) -> S::Floats {
        self.d.load(s)
    }

    #[inline(always)]
    fn min<S: Simd>(&self, s: S, _block: usize, _span: usize) -> S::Floats {
        self.m.load(s)
    }
}
