//! The slots of one kv head in one layer of one lane.
//!
//! The oldest slots may be packed ([`Packed`]), keys and values not equally far; the rest lies in columns of the
//! cache's number type.

use super::cells::{Columns, TILE, room, with_cells};
use super::{Holds, KvType, Packed, Strand};

#[derive(Clone)]
pub struct HeadCache {
    pub dim: usize,
    /// Original positions, ascending [n].
    pub positions: Vec<u32>,
    /// Of the slots that are not packed.
    pub columns: Columns,
    holds: Holds,
    /// Added to every logit on a slot, nats [n]; empty where nothing is.
    pub offsets: Vec<f32>,
    /// Column sums of attention since the start, per query head of the group [group][capacity].
    pub received: Vec<Strand>,
    /// The newest query's attention, per query head of the group [group][capacity].
    pub row: Vec<Strand>,
    /// Cells of slots that left, ascending.
    pub(super) holes: Vec<u32>,
    pub(super) packed_keys: Option<Packed>,
    pub(super) packed_values: Option<Packed>,
    capacity: usize,
}

impl HeadCache {
    pub fn new(kind: KvType, dim: usize, group: usize) -> Self {
        Self::holding(Holds::KeysAndValues, kind, dim, group)
    }

    /// Without the columns that another layer has. Only what holds both may be packed or overwritten.
    pub fn holding(holds: Holds, kind: KvType, dim: usize, group: usize) -> Self {
        let empty = vec![Strand::default(); group];
        Self {
            dim,
            positions: Vec::new(),
            columns: Columns::new(kind),
            holds,
            offsets: Vec::new(),
            received: empty.clone(),
            row: empty,
            holes: Vec::new(),
            packed_keys: None,
            packed_values: None,
            capacity: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.positions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Whether keys and whether values are held here: 1 or 0.
    pub(super) fn sides(&self) -> (usize, usize) {
        match self.holds {
            Holds::KeysAndValues => (1, 1),
            Holds::Values => (0, 1),
            Holds::Nothing => (0, 0),
        }
    }

    /// Makes room for `more` slots beyond those held, so that a pass appends without allocating.
    pub fn reserve(&mut self, more: usize) {
        let (need, dim, (keys, values)) = (self.cells() + more, self.dim, self.packed());
        if need > self.capacity {
            self.set_capacity(room(need));
        }
        let (k, v) = self.sides();
        with_cells!(&mut self.columns, cells => cells.reserve(k * (need - keys), v * (need - values), dim));
    }

    fn set_capacity(&mut self, slots: usize) {
        self.capacity = slots;
        for sums in self.received.iter_mut().chain(&mut self.row) {
            sums.resize(slots);
        }
        self.positions.reserve_exact(slots.saturating_sub(self.positions.len()));
    }

    /// Gives the memory of slots back that are not needed, but for a spare tile.
    pub(super) fn tighten(&mut self) {
        let (n, dim, (keys, values)) = (self.cells(), self.dim, self.packed());
        let tight = (n + 1).next_multiple_of(TILE);
        if self.capacity > tight + 2 * TILE {
            self.set_capacity(tight);
        }
        let (k, v) = self.sides();
        with_cells!(&mut self.columns, cells => cells.tighten(k * (n - keys), v * (n - values), dim));
    }

    /// Appends one slot; `reserve` must have made room. What is not held here is not looked at.
    pub fn append(&mut self, position: u32, key: &[f32], value: &[f32]) {
        let (slot, cell, dim, (keys, values)) = (self.len(), self.cells(), self.dim, self.packed());
        match self.holds {
            Holds::KeysAndValues => {
                with_cells!(&mut self.columns, cells => cells.put(cell - keys, cell - values, dim, key, value))
            }
            Holds::Values => with_cells!(&mut self.columns, cells => cells.put_value(cell - values, dim, value)),
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

    /// Keeps the slots listed (ascending) and gives the memory of all others back, but for a few cells.
    pub fn retain(&mut self, keep: &[u32]) {
        if !self.leave_cells(keep) {
            self.settle();
            self.retain_cells(keep);
        }
        for_moves(keep, 0, |from, to, len| {
            for sums in self.received.iter_mut().chain(&mut self.row) {
                sums.copy_within(from..from + len, to);
            }
            self.positions.copy_within(from..from + len, to);
            if !self.offsets.is_empty() {
                self.offsets.copy_within(from..from + len, to);
            }
        });
        self.truncate(keep.len());
        self.tighten();
    }

    /// The same of keys and values, packed or not, without holes.
    fn retain_cells(&mut self, keep: &[u32]) {
        let (dim, (keys, values)) = (self.dim, self.packed());
        for (packed, held) in [(&mut self.packed_keys, keys), (&mut self.packed_values, values)] {
            if let Some(packed) = packed {
                packed.retain(&keep[..keep.partition_point(|&slot| (slot as usize) < held)]);
            }
        }
        let (k, v) = self.sides();
        if k > 0 {
            for_moves(keep, keys, |from, to, len| {
                with_cells!(&mut self.columns, cells => cells.shift_keys(from, to, len, dim));
            });
        }
        if v > 0 {
            for_moves(keep, values, |from, to, len| {
                with_cells!(&mut self.columns, cells => cells.shift_values(from, to, len, dim));
            });
        }
    }

    /// A copy of the listed slots only; the rest is never copied, but for where slots are packed.
    pub fn gather(&self, keep: &[u32]) -> Self {
        // also where all packed slots have left: what was learnt from them goes on
        if self.packed_keys.is_some() || self.packed_values.is_some() {
            let mut copy = self.clone();
            copy.retain(keep);
            return copy;
        }
        let (k, v) = self.sides();
        let mut copy = Self::holding(self.holds, self.kind(), self.dim, self.received.len());
        copy.reserve(keep.len() + 1);
        let (mut key, mut value) = (vec![0.0; self.dim], vec![0.0; self.dim]);
        for (to, &from) in keep.iter().enumerate() {
            let (from, cell) = (from as usize, self.cell(from as usize));
            with_cells!(&self.columns, cells => {
                if k > 0 {
                    cells.key(cell, &mut key);
                }
                if v > 0 {
                    cells.value(cell, self.dim, 0, &mut value);
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

    /// New keys and values [n, D] of all slots; `None` leaves them. Nothing may be packed.
    pub fn overwrite(&mut self, keys: Option<&[f32]>, values: Option<&[f32]>) {
        self.settle();
        let (old_keys, old_values) = (self.keys(), self.values());
        let (keys, values) = (keys.unwrap_or(&old_keys), values.unwrap_or(&old_values));
        let dim = self.dim;
        for (slot, (key, value)) in keys.chunks_exact(dim).zip(values.chunks_exact(dim)).enumerate().take(self.len()) {
            with_cells!(&mut self.columns, cells => cells.put(slot, slot, dim, key, value));
        }
    }

    pub fn kind(&self) -> KvType {
        self.columns.kind()
    }

    /// Drops all slots from `slots` on, none of them packed.
    pub fn truncate(&mut self, slots: usize) {
        self.positions.truncate(slots);
        self.offsets.truncate(slots);
        self.trim();
    }

    /// Slots whose keys and whose values are packed: so many of the oldest.
    pub fn packed(&self) -> (usize, usize) {
        let len = |packed: &Option<Packed>| packed.as_ref().map_or(0, Packed::slots);
        (len(&self.packed_keys), len(&self.packed_values))
    }

    /// Bytes of the live keys and values: codes with their scales and zero points, and what is not packed.
    pub fn live_bytes(&self) -> u64 {
        let (n, (keys, values)) = (self.len(), self.packed());
        let (k, v) = self.sides();
        let plain = (k * (n - keys) + v * (n - values)) * self.dim * self.kind().bytes();
        let packed: usize = [&self.packed_keys, &self.packed_values].into_iter().flatten().map(Packed::bytes).sum();
        (plain + packed) as u64
    }

    /// Bytes allocated: keys, values, positions and sums, spare room included.
    pub fn allocated_bytes(&self) -> u64 {
        let sums = 2 * self.received.len() * self.capacity * size_of::<f32>();
        let cells = with_cells!(&self.columns, cells => cells.keys.capacity() + cells.values.capacity());
        let packed: usize = [&self.packed_keys, &self.packed_values].into_iter().flatten().map(Packed::allocated).sum();
        (cells * self.kind().bytes() + packed + sums + self.positions.capacity() * 4) as u64
    }
}

/// Runs of kept slots from `first` on that have to move down, both counted from there: `each(from, to, len)`.
fn for_moves(keep: &[u32], first: usize, mut each: impl FnMut(usize, usize, usize)) {
    let keep = &keep[keep.partition_point(|&slot| (slot as usize) < first)..];
    let mut to = 0;
    for run in keep.chunk_by(|a, b| a + 1 == *b) {
        let from = run[0] as usize - first;
        if from > to {
            each(from, to, run.len());
        }
        to += run.len();
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
