//! Q5_0: w = d·(q − 16), q of 5 bits, one d per 32 columns.

use bytemuck::{Pod, Zeroable};

use super::super::simd::Simd;
use super::bit_plane::BitPlane;
use super::halves::Halves;
use super::nibble::Nibbles;
use super::{Bits5, Format};
use crate::model::tensor::DType;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(32))]
pub struct Q5_0 {
    low: Nibbles,
    high: BitPlane,
    d: Halves,
}

impl Format for Q5_0 {
    type Kind = Bits5;
    const DTYPE: DType = DType::Q5_0;

    fn pack(&mut self, row: usize, file: &[u8]) {
        self.d.put(row, file);
        self.high.put_row(row, &file[2..6]);
        self.low.put_row(row, &file[6..22]);
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
        s.mul(self.d.load(s), s.splat(-16.0))
    }
}
