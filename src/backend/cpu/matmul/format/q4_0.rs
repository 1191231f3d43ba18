//! Q4_0: w = d·(q − 8), q of 4 bits, one d per 32 columns.

use bytemuck::{Pod, Zeroable};

use super::super::simd::Simd;
use super::halves::Halves;
use super::nibble::Nibbles;
use super::{Bits4, Format};
use crate::model::tensor::DType;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(32))]
pub struct Q4_0 {
    q: Nibbles,
    d: Halves,
}

impl Format for Q4_0 {
    type Kind = Bits4;
    const DTYPE: DType = DType::Q4_0;

    fn pack(&mut self, row: usize, file: &[u8]) {
        self.d.put(row, file);
        self.q.put_row(row, &file[2..18]);
    }

    #[inline(always)]
    fn group<S: Simd>(&self, s: S, _block: usize, group: usize) -> S::Bytes {
        self.q.group(s, group)
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, s: S, _block: usize, _span: usize) -> S::Floats {
        self.d.load(s)
    }

    #[inline(always)]
    fn min<S: Simd>(&self, s: S, _block: usize, _span: usize) -> S::Floats {
        s.mul(self.d.load(s), s.splat(-8.0))
    }
}
