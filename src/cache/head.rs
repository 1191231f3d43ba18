//! The slots of one kv head in one layer of one lane.
//!
//! Keys lie in tiles of 16 slots, channel by channel `[n/16][D][16]`: 16 scores come out of D multiply-adds
//! without a horizontal sum. Values lie slot by slot `[n][D]`.

use half::{bf16, f16};

use super::{Holds, KvType, Strand};
use crate::backend::cpu::simd::{Cell, vectorized};

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

impl<T: Cell> Cells<T> {
    fn put(&mut self, slot: usize, dim: usize, key: &[f32], value: &[f32]) {
        // Rounded side by side first (the value's place serves), then spread over the tile.
        let values = &mut self.values[slot * dim..(slot + 1) * dim];
        T::put(key, values);
        let tile = slot / TILE * TILE * dim + slot % TILE;
        for (c, x) in values.iter().enumerate() {
            self.keys[tile + c * TILE] = *x;
        }
        T::put(value, values);
    }

    fn put_value(&mut self, slot: usize, dim: usize, value: &[f32]) {
        T::put(value, &mut self.values[slot * dim..(slot + 1) * dim]);
    }

    fn resize(&mut self, slots: usize, dim: usize, holds: Holds) {
        let slots_if = |held| if held { slots * dim } else { 0 };
        self.keys.resize(slots_if(holds == Holds::KeysAndValues), T::default());
        self.values.resize(slots_if(holds != Holds::Nothing), T::default());
        self.keys.shrink_to_fit();
        self.values.shrink_to_fit();
    }

    #[inline(always)]
    fn move_key(&mut self, from: usize, to: usize, dim: usize) {
        let place = |slot: usize| slot / TILE * TILE * dim + slot % TILE;
        for c in 0..dim {
            self.keys[place(to) + c * TILE] = self.keys[place(from) + c * TILE];
        }
    }

    /// Moves slots `from..from + len` to `to..`, to ≤ from.
    #[inline(always)]
    fn shift(&mut self, from: usize, to: usize, len: usize, dim: usize) {
        if self.values.is_empty() {
            return;
        }
        self.values.copy_within(from * dim..(from + len) * dim, to * dim);
        if self.keys.is_empty() {
            return;
        }
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

    fn key(&self, slot: usize, dim: usize, out: &mut [f32]) {
        let tile = slot / TILE * TILE * dim + slot % TILE;
        for (c, x) in out.iter_mut().enumerate() {
            *x = self.keys[tile + c * TILE].get();
        }
    }
}

#[derive(Clone)]
pub struct HeadCache {
    pub dim: usize,
    /// Original positions, ascending [n].
    pub positions: Vec<u32>,
    pub columns: Columns,
    holds: Holds,
    /// Added to every logit on a slot, nats [n]; empty where nothing is.
    pub offsets: Vec<f32>,
    /// Column sums of attention since the start, per query head of the group [group][capacity].
    pub received: Vec<Strand>,
    /// The newest query's attention, per query head of the group [group][capacity].
    pub row: Vec<Strand>,
    capacity: usize,
}

/// What brings a cache back to an earlier state: a length where nothing was evicted since, else a copy.
#[derive(Clone)]
pub enum Saved {
    Length { slots: usize, received: Vec<Vec<f32>>, row: Vec<Vec<f32>> },
    Copy(Box<HeadCache>),
}

impl HeadCache {
    pub fn new(kind: KvType, dim: usize, group: usize) -> Self {
        Self::holding(Holds::KeysAndValues, kind, dim, group)
    }

    /// Without the columns that another layer has.
    pub fn holding(holds: Holds, kind: KvType, dim: usize, group: usize) -> Self {
        let columns = match kind {
            KvType::F32 => Columns::F32(Cells::default()),
            KvType::F16 => Columns::F16(Cells::default()),
            KvType::BF16 => Columns::BF16(Cells::default()),
        };
        let empty = vec![Strand::default(); group];
        Self {
            dim,
            positions: Vec::new(),
            columns,
            holds,
            offsets: Vec::new(),
            received: empty.clone(),
            row: empty,
            capacity: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.positions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Makes room for `more` slots beyond those held, so that a pass appends without allocating.
    pub fn reserve(&mut self, more: usize) {
        let need = self.len() + more;
        if need > self.capacity {
            let room = need + (need / 8).clamp(TILE, 512);
            self.set_capacity(room.next_multiple_of(TILE));
        }
    }

    fn set_capacity(&mut self, slots: usize) {
        self.capacity = slots;
        let (dim, holds) = (self.dim, self.holds);
        with_cells!(&mut self.columns, cells => cells.resize(slots, dim, holds));
        for sums in self.received.iter_mut().chain(&mut self.row) {
            sums.resize(slots);
        }
        self.positions.reserve_exact(slots.saturating_sub(self.positions.len()));
    }

    /// Appends one slot; `reserve` must have made room. What the cache does not hold is not looked at.
    pub fn append(&mut self, position: u32, key: &[f32], value: &[f32]) {
        let (slot, dim) = (self.len(), self.dim);
        match self.holds {
            Holds::KeysAndValues => with_cells!(&mut self.columns, cells => cells.put(slot, dim, key, value)),
            Holds::Values => with_cells!(&mut self.columns, cells => cells.put_value(slot, dim, value)),
            Holds::Nothing => {}
        }
        for sums in self.received.iter_mut().chain(&mut self.row) {
            sums[slot] = 0.0;
        }
        self.positions.push(position);
        if !self.offsets.is_empty() {
            self.offsets.push(0.0);
        }
    }

    /// Keeps the slots listed (ascending) and gives the memory of all others back.
    pub fn retain(&mut self, keep: &[u32]) {
        let dim = self.dim;
        let mut to = 0;
        for run in keep.chunk_by(|a, b| a + 1 == *b) {
            let (from, len) = (run[0] as usize, run.len());
            if from > to {
                with_cells!(&mut self.columns, cells => vectorized(
                    #[inline(always)]
                    || cells.shift(from, to, len, dim),
                ));
                for sums in self.received.iter_mut().chain(&mut self.row) {
                    sums.copy_within(from..from + len, to);
                }
                self.positions.copy_within(from..from + len, to);
                if !self.offsets.is_empty() {
                    self.offsets.copy_within(from..from + len, to);
                }
            }
            to += len;
        }
        self.positions.truncate(keep.len());
        self.offsets.truncate(keep.len());
        // One spare tile: evictors that drop a slot per step would otherwise reallocate every step.
        let tight = (keep.len() + 1).next_multiple_of(TILE);
        if self.capacity > tight + 2 * TILE {
            self.set_capacity(tight);
        }
    }

    /// A copy of the listed slots only; the rest is never copied.
    pub fn gather(&self, keep: &[u32]) -> Self {
        let mut copy = Self::holding(self.holds, self.kind(), self.dim, self.received.len());
        copy.reserve(keep.len() + 1);
        let (mut key, mut value) = (vec![0.0; self.dim], vec![0.0; self.dim]);
        for (to, &from) in keep.iter().enumerate() {
            let from = from as usize;
            with_cells!(&self.columns, cells => {
                if self.holds == Holds::KeysAndValues {
                    cells.key(from, self.dim, &mut key);
                }
                for (x, cell) in value.iter_mut().zip(cells.values.get(from * self.dim..).unwrap_or_default()) {
                    *x = cell.get();
                }
            });
            copy.append(self.positions[from], &key, &value);
            for g in 0..self.received.len() {
                copy.received[g][to] = self.received[g][from];
                copy.row[g][to] = self.row[g][from];
            }
        }
        copy.offsets = if self.offsets.is_empty() {
            Vec::new()
        } else {
            keep.iter().map(|&slot| self.offsets[slot as usize]).collect()
        };
        copy
    }

    /// New keys and values [n, D] of all slots; `None` leaves them. Only where both are held.
    pub fn overwrite(&mut self, keys: Option<&[f32]>, values: Option<&[f32]>) {
        let (old_keys, old_values) = (self.keys(), self.values());
        let (keys, values) = (keys.unwrap_or(&old_keys), values.unwrap_or(&old_values));
        let dim = self.dim;
        for (slot, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate().take(self.len()) {
            with_cells!(&mut self.columns, cells => cells.put(slot, dim, key, value));
        }
    }

    pub fn kind(&self) -> KvType {
        match self.columns {
            Columns::F32(_) => KvType::F32,
            Columns::F16(_) => KvType::F16,
            Columns::BF16(_) => KvType::BF16,
        }
    }

    /// Drops all slots from `slots` on.
    pub fn truncate(&mut self, slots: usize) {
        self.positions.truncate(slots);
        self.offsets.truncate(slots);
    }

    /// `append_only`: nothing will be evicted before `restore`, so the length is enough.
    pub fn save(&self, append_only: bool) -> Saved {
        if append_only {
            let cut = |sums: &[Strand]| sums.iter().map(|s| s[..self.len()].to_vec()).collect();
            Saved::Length { slots: self.len(), received: cut(&self.received), row: cut(&self.row) }
        } else {
            Saved::Copy(Box::new(self.gather(&(0..self.len() as u32).collect::<Vec<_>>())))
        }
    }

    pub fn restore(&mut self, saved: &Saved) {
        match saved {
            Saved::Copy(copy) => *self = (**copy).clone(),
            Saved::Length { slots, received, row } => {
                self.truncate(*slots);
                for g in 0..received.len() {
                    self.received[g][..*slots].copy_from_slice(&received[g]);
                    self.row[g][..*slots].copy_from_slice(&row[g]);
                }
            }
        }
    }

    /// Keys after rope [n, D]; empty where none are held.
    pub fn keys(&self) -> Vec<f32> {
        if self.holds != Holds::KeysAndValues {
            return Vec::new();
        }
        let mut out = vec![0.0; self.len() * self.dim];
        with_cells!(&self.columns, cells => {
            for (slot, row) in out.chunks_exact_mut(self.dim).enumerate() {
                cells.key(slot, self.dim, row);
            }
        });
        out
    }

    /// Values [n, D]; empty where none are held.
    pub fn values(&self) -> Vec<f32> {
        let n = if self.holds == Holds::Nothing { 0 } else { self.len() * self.dim };
        with_cells!(&self.columns, cells => cells.values[..n].iter().map(|c| c.get()).collect())
    }

    /// Of keys and values, how many are held.
    fn sides(&self) -> usize {
        match self.holds {
            Holds::KeysAndValues => 2,
            Holds::Values => 1,
            Holds::Nothing => 0,
        }
    }

    /// Bytes of the live keys and values.
    pub fn live_bytes(&self) -> u64 {
        (self.sides() * self.len() * self.dim * self.kind().bytes()) as u64
    }

    /// Bytes allocated: keys, values, positions and sums, spare room included.
    pub fn allocated_bytes(&self) -> u64 {
        let sums = 2 * self.received.len() * self.capacity * size_of::<f32>();
        (self.sides() * self.capacity * self.dim * self.kind().bytes() + sums + self.positions.capacity() * 4) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(kind: KvType, n: u32) -> HeadCache {
        let mut cache = HeadCache::new(kind, 4, 2);
        cache.reserve(n as usize);
        for p in 0..n {
            let x = p as f32;
            cache.append(p, &[x, x + 0.25, x + 0.5, -x], &[-x, 2.0 * x, 1.0, 0.5]);
            cache.received[1][p as usize] = x * 10.0;
        }
        cache
    }

    #[test]
    fn retain_and_gather_keep_the_same_slots_and_give_memory_back() {
        for kind in [KvType::F32, KvType::F16, KvType::BF16] {
            let full = filled(kind, 100);
            let keep = [0, 3, 17, 64, 99];
            let gathered = full.gather(&keep);
            let mut retained = full.clone();
            retained.retain(&keep);
            assert_eq!(retained.positions, keep);
            assert_eq!(gathered.positions, keep);
            assert_eq!(retained.keys(), gathered.keys());
            assert_eq!(retained.values(), gathered.values());
            assert_eq!(retained.keys()[4..8], [3.0, 3.25, 3.5, -3.0]);
            assert_eq!(retained.received[1][..5], [0.0, 30.0, 170.0, 640.0, 990.0]);
            assert_eq!(retained.live_bytes(), (5 * 2 * 4 * kind.bytes()) as u64);
            assert!(retained.allocated_bytes() < full.allocated_bytes() / 3);
        }
    }

    proptest::proptest! {
        #[test]
        fn retain_equals_gather(n in 1u32..120, drop in proptest::collection::vec(0u32..120, 0..60), every in 1u32..9) {
            let keep: Vec<u32> = (0..n).filter(|p| !drop.contains(p) && (every == 1 || p % every != 0)).collect();
            let full = filled(KvType::F16, n);
            let gathered = full.gather(&keep);
            let mut retained = full.clone();
            retained.retain(&keep);
            proptest::prop_assert_eq!(&retained.positions, &gathered.positions);
            proptest::prop_assert_eq!(retained.keys(), gathered.keys());
            proptest::prop_assert_eq!(retained.values(), gathered.values());
            proptest::prop_assert_eq!(&retained.received[1][..keep.len()], &gathered.received[1][..keep.len()]);
        }
    }

    #[test]
    fn overwriting_changes_what_it_is_given_and_nothing_else() {
        let mut cache = filled(KvType::F16, 20);
        let (keys, values) = (cache.keys(), cache.values());
        let new: Vec<f32> = values.iter().map(|v| v + 1.0).collect();
        cache.overwrite(None, Some(&new));
        assert_eq!((cache.keys(), cache.values()), (keys, new.clone()));
        cache.overwrite(Some(&values), None);
        assert_eq!((cache.keys(), cache.values()), (values, new));
    }

    #[test]
    fn what_is_not_held_takes_no_bytes_and_the_rest_is_as_ever() {
        let keep = [0, 2, 3, 40, 41, 59];
        let all = filled(KvType::F16, 60);
        for (holds, sides) in [(Holds::Values, 1), (Holds::Nothing, 0)] {
            let mut cache = HeadCache::holding(holds, KvType::F16, 4, 2);
            cache.reserve(60);
            let values = all.values();
            for (p, value) in (0..60).zip(values.chunks(4)) {
                cache.append(p, &[], value);
                cache.received[1][p as usize] = p as f32;
            }
            let mut gathered = cache.gather(&keep);
            cache.retain(&keep);
            for cache in [&cache, &gathered] {
                assert_eq!((&cache.positions[..], cache.live_bytes()), (&keep[..], sides * 6 * 4 * 2));
                assert_eq!((cache.keys(), cache.received[1][4]), (Vec::new(), 41.0));
                let held = if sides == 1 { all.gather(&keep).values() } else { Vec::new() };
                assert_eq!(cache.values(), held);
            }
            let saved = gathered.save(false);
            gathered.truncate(1);
            gathered.restore(&saved);
            assert_eq!((gathered.values(), gathered.len()), (cache.values(), 6));
        }
    }

    #[test]
    fn restore_undoes_appends_and_evictions() {
        for append_only in [true, false] {
            let mut cache = filled(KvType::F32, 20);
            let (keys, saved) = (cache.keys(), cache.save(append_only));
            cache.reserve(1);
            cache.append(20, &[9.0; 4], &[9.0; 4]);
            cache.received[1][3] = 77.0;
            if !append_only {
                cache.retain(&[1, 2]);
            }
            cache.restore(&saved);
            assert_eq!(cache.keys(), keys);
            assert_eq!(cache.received[1][3], 30.0);
        }
    }
}
