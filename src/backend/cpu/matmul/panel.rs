//! Many rows: a panel of the tile's columns is decoded once and stays in the first-level cache for all of them.

use std::marker::PhantomData;

use super::format::{Format, Kind};
use super::kernel::{Packed, TileColumns};
use super::simd::Simd;

/// Blocks of a panel: with four activation rows beside it, it fills half to three quarters of a 32 KiB cache.
pub(super) const PANEL: usize = 24;

/// Bytes of all groups, then scale and min of each span.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Decoded {
    q: [[u8; 64]; 8],
    scale: [[f32; 16]; 2],
    min: [[f32; 16]; 2],
}

pub(super) struct Panel<K> {
    blocks: usize,
    decoded: [Decoded; PANEL],
    kind: PhantomData<K>,
}

impl<K: Kind> Panel<K> {
    pub fn new() -> Self {
        let zero = Decoded { q: [[0; 64]; 8], scale: [[0.0; 16]; 2], min: [[0.0; 16]; 2] };
        Self { blocks: 0, decoded: [zero; PANEL], kind: PhantomData }
    }

    /// Takes over blocks `from..to` of a tile, PANEL at most.
    #[inline(always)]
    pub fn decode<S: Simd, F: Format<Kind = K>>(&mut self, s: S, tile: &Packed<F>, from: usize, to: usize) {
        self.blocks = to - from;
        for (block, out) in (from..to).zip(&mut self.decoded) {
            tile.prefetch(s, block);
            for (group, line) in out.q.iter_mut().enumerate() {
                s.store_bytes(tile.group(s, block, group), line);
            }
            for span in 0..K::SPANS {
                s.store(tile.scale(s, block, span), &mut out.scale[span]);
                if K::HAS_MIN {
                    s.store(tile.min(s, block, span), &mut out.min[span]);
                }
            }
        }
    }
}

impl<K: Kind> TileColumns for Panel<K> {
    type Kind = K;

    #[inline(always)]
    fn blocks(&self) -> usize {
        self.blocks
    }

    #[inline(always)]
    fn group<S: Simd>(&self, s: S, block: usize, group: usize) -> S::Bytes {
        s.bytes(&self.decoded[block].q[group])
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats {
        s.load(&self.decoded[block].scale[span])
    }

    #[inline(always)]
    fn min<S: Simd>(&self, s: S, block: usize, span: usize) -> S::Floats {
        s.load(&self.decoded[block].min[span])
    }

    #[inline(always)]
    fn prefetch<S: Simd>(&self, _s: S, _block: usize) {}
}
