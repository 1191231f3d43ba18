//! Keys and values in one number type.
//!
//! Keys lie in tiles of 16 slots, channel by channel `[n/16][D][16]`: 16 scores come out of D multiply-adds
//! without a horizontal sum. Values lie slot by slot `[n][D]`.

use half::{bf16, f16};

use super::KvType;
use crate::simd::{Cell, vectorized};

/// Slots per key tile.
pub const TILE: usize = 16;

#[derive(Clone, Default)]
pub struct Cells<T> {
    pub keys: Vec<T>,
    pub values: Vec<T>,
}

/// Keys and values in the cache's number type.
#[derive(Clone)]
pub enum Columns {
    F32(Cells<f32>),
    F16(Cells<f16>),
    BF16(Cells<bf16>),
}

/// Evaluates `$body` with `$cells` bound to the typed cells.
macro_rules! with_cells {
    ($columns:expr, $cells:ident => $body:expr) => {
        match $columns {
            $crate::cache::Columns::F32($cells) => $body,
            $crate::cache::Columns::F16($cells) => $body,
            $crate::cache::Columns::BF16($cells) => $body,
        }
    };
}
pub(crate) use with_cells;

/// Room for `need` slots and some more, so that appending seldom moves anything.
pub fn room(need: usize) -> usize {
    (need + (need / 8).clamp(TILE, 512)).next_multiple_of(TILE)
}

impl Columns {
    pub fn new(kind: KvType) -> Self {
        match kind {
            KvType::F32 => Columns::F32(Cells::default()),
            KvType::F16 => Columns::F16(Cells::default()),
            KvType::BF16 => Columns::BF16(Cells::default()),
        }
    }

    pub fn kind(&self) -> KvType {
        match self {
            Columns::F32(_) => KvType::F32,
            Columns::F16(_) => KvType::F16,
            Columns::BF16(_) => KvType::BF16,
        }
    }
}

/// Where channel 0 of a slot's key lies.
fn key_at(slot: usize, dim: usize) -> usize {
    slot / TILE * TILE * dim + slot % TILE
}

impl<T: Cell> Cells<T> {
    pub(super) fn put(&mut self, key_slot: usize, value_slot: usize, dim: usize, key: &[f32], value: &[f32]) {
        // Rounded side by side first (the value's place serves), then spread over the tile.
        let values = &mut self.values[value_slot * dim..(value_slot + 1) * dim];
        T::put(key, values);
        let tile = key_at(key_slot, dim);
        for (c, x) in values.iter().enumerate() {
            self.keys[tile + c * TILE] = *x;
        }
        T::put(value, values);
    }

    /// A value alone, where keys are not held.
    pub(super) fn put_value(&mut self, slot: usize, dim: usize, value: &[f32]) {
        T::put(value, &mut self.values[slot * dim..(slot + 1) * dim]);
    }

    /// Room for at least so many slots of keys and of values.
    pub(super) fn reserve(&mut self, keys: usize, values: usize, dim: usize) {
        for (cells, need) in [(&mut self.keys, keys), (&mut self.values, values)] {
            if need * dim > cells.len() {
                resize(cells, room(need) * dim);
            }
        }
    }

    /// Gives the room beyond so many slots back, but for a spare tile: where a slot leaves per step, memory would
    /// otherwise move every step.
    pub(super) fn tighten(&mut self, keys: usize, values: usize, dim: usize) {
        for (cells, held) in [(&mut self.keys, keys), (&mut self.values, values)] {
            let tight = (held + 1).next_multiple_of(TILE);
            if cells.len() > (tight + 2 * TILE) * dim {
                resize(cells, tight * dim);
            }
        }
    }

    #[inline(always)]
    fn move_key(&mut self, from: usize, to: usize, dim: usize) {
        for c in 0..dim {
            self.keys[key_at(to, dim) + c * TILE] = self.keys[key_at(from, dim) + c * TILE];
        }
    }

    /// Moves the values of slots `from..from + len` to `to..`.
    pub(super) fn shift_values(&mut self, from: usize, to: usize, len: usize, dim: usize) {
        self.values.copy_within(from * dim..(from + len) * dim, to * dim);
    }

    /// Moves the keys of slots `from..from + len` to `to..`, to ≤ from.
    pub(super) fn shift_keys(&mut self, from: usize, to: usize, len: usize, dim: usize) {
        vectorized(
            #[inline(always)]
            || self.shift_tiles(from, to, len, dim),
        );
    }

    #[inline(always)]
    fn shift_tiles(&mut self, from: usize, to: usize, len: usize, dim: usize) {
        let (head, body) = (len.min(to.next_multiple_of(TILE) - to), (to + len) / TILE * TILE);
        (0..head).for_each(|i| self.move_key(from + i, to + i, dim));
        // Whole tiles: the 16 slots of a channel come from two neighbouring tiles. Both are read where the slots would
        // lie if the tiles were one, and what belongs to other channels is dropped.
        for target in (to + head..body).step_by(TILE) {
            let source = target - to + from;
            let (tile, turn) = (source / TILE * TILE * dim, source % TILE);
            for c in 0..dim {
                let at = tile + c * TILE + turn;
                let mut slots = [T::default(); TILE];
                slots.copy_from_slice(&self.keys[at..at + TILE]);
                if turn > 0 {
                    let next = &self.keys[at + TILE * (dim - 1)..][..TILE];
                    for j in 0..TILE {
                        slots[j] = if j < TILE - turn { slots[j] } else { next[j] };
                    }
                }
                self.keys[target * dim + c * TILE..][..TILE].copy_from_slice(&slots);
            }
        }
        (body.max(to + head) - to..len).for_each(|i| self.move_key(from + i, to + i, dim));
    }

    /// Key of a slot [D].
    pub(super) fn key(&self, slot: usize, out: &mut [f32]) {
        let at = key_at(slot, out.len());
        for (c, x) in out.iter_mut().enumerate() {
            *x = self.keys[at + c * TILE].get();
        }
    }

    /// Some channels of a slot's value.
    #[inline(always)]
    pub(super) fn value(&self, slot: usize, dim: usize, channel: usize, out: &mut [f32]) {
        for (x, cell) in out.iter_mut().zip(&self.values[slot * dim + channel..]) {
            *x = cell.get();
        }
    }
}

fn resize<T: Cell>(cells: &mut Vec<T>, len: usize) {
    cells.reserve_exact(len.saturating_sub(cells.len()));
    cells.resize(len, T::default());
    cells.shrink_to_fit();
}
