//! Q8_0: w = d·q, q an i8, one d per 32 columns.

use bytemuck::{Pod, Zeroable};

use super::super::simd::Simd;
use super::halves::Halves;
use super::{Format, Signed8};
use crate::model::tensor::DType;

/// Byte `4·row + j` of line g holds column 4g + j.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(32))]
pub struct Q8_0 {
    q: [[u8; 64]; 8],
    d: Halves,
}

impl Format for Q8_0 {
    type Kind = Signed8;
    const DTYPE: DType = DType::Q8_0;

    fn pack(&mut self, row: usize, file: &[u8]) {
        self.d.put(row, file);
        for (line, q) in self.q.iter_mut().zip(file[2..34].chunks_exact(4)) {
            line[row * 4..row * 4 + 4].copy_from_slice(q);
        }
    }

    #[inline(always)]
    fn group<S: Simd>(&self, s: S, _block: usize, group: usize) -> S::Bytes {
        s.bytes(&self.q[group])
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, s: S, _block: usize, _span: usize) -> S::Floats {
        self.d.load(s)
    }

    #[inline(always)]
    fn min<S: Simd>(&self, s: S, _block: usize, _span: usize) -> S::Floats {
        s.splat(0.0)
    }
}
