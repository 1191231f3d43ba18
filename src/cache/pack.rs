//! Packing slots, and reading them whether packed or not.

use std::ops::Range;

use super::cells::{TILE, with_cells};
use super::{Code, HeadCache, Packed};
use crate::simd::vectorized;

/// What of one kv head is to be packed now; `None` leaves keys or values as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Packing {
    pub keys: Option<Pack>,
    pub values: Option<Pack>,
    /// Which slots get the wider codes, where there are two widths [n]; of slots packed already it is known.
    pub salient: Vec<bool>,
    /// What is packed is read back and packed anew together with the rest.
    pub again: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pack {
    /// So many of the oldest slots are packed afterwards; those that are stay so.
    pub to: usize,
    /// The first packing decides for all later ones.
    pub code: Code,
}

impl HeadCache {
    pub fn pack(&mut self, packing: &Packing) {
        self.settle();
        let (n, dim, kind, (keys, values)) = (self.len(), self.dim, self.kind(), self.packed());
        let span = |pack: &Pack, from: usize| {
            let to = pack.to.clamp(from, n);
            let anew = packing.again && from > 0;
            (to > from || anew).then_some((to, anew))
        };
        let salient = |slots: Range<usize>| packing.salient.get(slots).unwrap_or_default();
        if let Some(pack) = &packing.keys
            && let Some((to, anew)) = span(pack, keys)
        {
            let x = self.keys_of(if anew { 0 } else { keys }..to);
            let side = self.packed_keys.get_or_insert_with(|| Packed::new(&pack.code, dim, kind));
            push(side, x, salient(keys..to), anew);
            with_cells!(&mut self.columns, cells => cells.shift_keys(to - keys, 0, n - to, dim));
        }
        if let Some(pack) = &packing.values
            && let Some((to, anew)) = span(pack, values)
        {
            let x = self.values_of(if anew { 0 } else { values }..to);
            let side = self.packed_values.get_or_insert_with(|| Packed::new(&pack.code, dim, kind));
            push(side, x, salient(values..to), anew);
            with_cells!(&mut self.columns, cells => cells.shift_values(to - values, 0, n - to, dim));
        }
        self.tighten();
    }

    /// Keys after rope [n, D]; empty where none are held.
    pub fn keys(&self) -> Vec<f32> {
        self.keys_of(0..self.sides().0 * self.len())
    }

    /// Values [n, D]; empty where none are held.
    pub fn values(&self) -> Vec<f32> {
        self.values_of(0..self.sides().1 * self.len())
    }

    /// Keys of some slots after rope [slots, D].
    pub fn keys_of(&self, slots: Range<usize>) -> Vec<f32> {
        let mut out = vec![0.0; slots.len() * self.dim];
        let mut whole = Vec::new();
        let packed = self.packed().0;
        for (slot, row) in slots.zip(out.chunks_exact_mut(self.dim)) {
            match &self.packed_keys {
                Some(side) if slot < packed => side.read(slot, 0, row, &mut whole),
                _ => with_cells!(&self.columns, cells => cells.key(self.cell(slot) - packed, row)),
            }
        }
        out
    }

    fn values_of(&self, slots: Range<usize>) -> Vec<f32> {
        let mut out = Vec::new();
        self.read_values(slots, 0..self.dim, &mut out);
        out
    }

    /// Keys of `slots` (from a tile's first on) in tiles `[⌈slots/16⌉][D][16]`, as columns have them.
    pub fn read_keys(&self, slots: Range<usize>, out: &mut Vec<f32>) {
        let (dim, packed) = (self.dim, self.packed().0);
        out.clear();
        out.resize(slots.len().next_multiple_of(TILE) * dim, 0.0);
        let (mut row, mut whole) = (vec![0.0; dim], Vec::new());
        vectorized(
            #[inline(always)]
            || {
                for (i, slot) in slots.enumerate() {
                    match &self.packed_keys {
                        Some(side) if slot < packed => side.read(slot, 0, &mut row, &mut whole),
                        _ => with_cells!(&self.columns, cells => cells.key(self.cell(slot) - packed, &mut row)),
                    }
                    let tile = &mut out[i / TILE * TILE * dim + i % TILE..];
                    tile.iter_mut().step_by(TILE).zip(&row).for_each(|(to, x)| *to = *x);
                }
            },
        );
    }

    /// Some channels of the values of `slots` [slots, channels]; `channels` starts at a multiple of 32.
    pub fn read_values(&self, slots: Range<usize>, channels: Range<usize>, out: &mut Vec<f32>) {
        let (dim, packed) = (self.dim, self.packed().1);
        out.clear();
        out.resize(slots.len() * channels.len(), 0.0);
        let mut whole = Vec::new();
        vectorized(
            #[inline(always)]
            || {
                for (slot, row) in slots.zip(out.chunks_exact_mut(channels.len().max(1))) {
                    match &self.packed_values {
                        Some(side) if slot < packed => side.read(slot, channels.start, row, &mut whole),
                        _ => with_cells!(&self.columns, cells => {
                            cells.value(self.cell(slot) - packed, dim, channels.start, row)
                        }),
                    }
                }
            },
        );
    }
}

/// `anew`: `x` [n, D] are all slots, those held included.
fn push(side: &mut Packed, x: Vec<f32>, salient: &[bool], anew: bool) {
    if !anew {
        return side.push(x, salient);
    }
    let mut all = side.salient();
    all.extend(salient);
    side.clear();
    side.push(x, &all);
}
