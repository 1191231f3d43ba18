//! Slots that left while their cells stay: closing the gap of a single slot would move all keys and values behind it at
//! every step. Positions, sums and rows are closed at once; keys and values when enough gaps have come together.

use std::ops::Range;

use super::HeadCache;
use super::cells::with_cells;

/// Most cells that lie idle in one head.
const MOST: usize = 16;

impl HeadCache {
    /// Cells in use, those of slots that left included.
    pub fn cells(&self) -> usize {
        self.len() + self.holes.len()
    }

    /// Where the keys and values of a slot lie, counted in slots. Nothing is packed where there are holes.
    pub(super) fn cell(&self, slot: usize) -> usize {
        self.holes.iter().fold(slot, |cell, &hole| if hole as usize <= cell { cell + 1 } else { cell })
    }

    /// Cells from that of the first of `slots` to that of the last.
    pub fn cells_of(&self, slots: Range<usize>) -> Range<usize> {
        if slots.is_empty() || self.holes.is_empty() {
            return slots;
        }
        self.cell(slots.start)..self.cell(slots.end - 1) + 1
    }

    /// `slots` in pieces whose cells lie side by side, each with what cells are ahead of slots there.
    pub fn pieces(&self, slots: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)> + '_ {
        let mut at = slots.start;
        // of the k-th gap: the first slot behind it
        let ends = self.holes.iter().enumerate().map(|(k, &hole)| hole as usize - k).chain([usize::MAX]);
        ends.enumerate().filter_map(move |(ahead, end)| {
            let piece = at..end.min(slots.end).max(at);
            at = piece.end;
            (!piece.is_empty()).then_some((piece, ahead))
        })
    }

    /// What lies by cells, one number each, to slots: the first `len()` are meant afterwards.
    pub fn close(&self, row: &mut [f32]) {
        let last = self.cells();
        for (k, &hole) in self.holes.iter().enumerate() {
            let end = self.holes.get(k + 1).map_or(last, |&next| next as usize);
            row.copy_within(hole as usize + 1..end, hole as usize - k);
        }
    }

    /// Lets the slots that are not in `keep` leave their cells behind; whether that may be.
    pub(super) fn leave_cells(&mut self, keep: &[u32]) -> bool {
        let gone = self.len() - keep.len();
        if gone + self.holes.len() > MOST || self.packed() != (0, 0) || self.sides() != (1, 1) {
            return false;
        }
        let mut kept = keep.iter().copied().peekable();
        let left = (0..self.len() as u32).filter(|slot| kept.next_if_eq(slot).is_none());
        let left: Vec<u32> = left.map(|slot| self.cell(slot as usize) as u32).collect();
        self.holes.extend(left);
        self.holes.sort_unstable();
        true
    }

    /// Moves keys and values together.
    pub fn settle(&mut self) {
        let dim = self.dim;
        let last = self.cells();
        let holes = std::mem::take(&mut self.holes);
        for (k, &hole) in holes.iter().enumerate() {
            let (from, end) = (hole as usize + 1, holes.get(k + 1).map_or(last, |&next| next as usize));
            let (to, len) = (hole as usize - k, end - from);
            with_cells!(&mut self.columns, cells => {
                cells.shift_keys(from, to, len, dim);
                cells.shift_values(from, to, len, dim);
            });
        }
    }

    /// Forgets gaps that lie behind the last slot.
    pub(super) fn trim(&mut self) {
        let end = self.cells_of(0..self.len()).end;
        self.holes.retain(|&hole| (hole as usize) < end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::KvType;
    use proptest::prelude::*;

    fn filled(n: u32) -> HeadCache {
        let mut cache = HeadCache::new(KvType::F16, 4, 2);
        cache.reserve(n as usize);
        (0..n).for_each(|p| append(&mut cache, p));
        cache
    }

    fn append(cache: &mut HeadCache, p: u32) {
        let x = p as f32;
        cache.reserve(1);
        cache.append(p, &[x, x + 0.25, x + 0.5, -x], &[-x, 2.0 * x, 1.0, 0.5]);
        let slot = cache.len() - 1;
        cache.received[1][slot] = 10.0 * x;
        cache.row[0][slot] = x;
    }

    proptest! {
        /// A cache with gaps is the same as one that closes each at once.
        #[test]
        fn gaps_do_not_show(n in 70u32..120, gone in prop::collection::vec((0usize..120, 1usize..4), 1..30)) {
            let (mut lazy, mut eager) = (filled(n), filled(n));
            for (step, (first, count)) in (n..).zip(gone) {
                append(&mut lazy, step);
                append(&mut eager, step);
                let len = eager.len();
                let keep: Vec<u32> =
                    (0..len as u32).filter(|&slot| !(first % len..first % len + count).contains(&(slot as usize))).collect();
                lazy.retain(&keep);
                eager.retain(&keep);
                eager.settle();
                prop_assert!(lazy.holes.len() <= MOST && eager.holes.is_empty() && lazy.holes.is_sorted());
                prop_assert_eq!(&lazy.positions, &eager.positions);
                prop_assert_eq!((lazy.keys(), lazy.values()), (eager.keys(), eager.values()));
                let n = lazy.len();
                prop_assert_eq!(&lazy.received[1][..n], &eager.received[1][..n]);
                prop_assert_eq!(&lazy.row[0][..n], &eager.row[0][..n]);
                prop_assert_eq!(lazy.live_bytes(), eager.live_bytes());
                // pieces cover all slots, and their cells are those of the slots
                let slots: Vec<(usize, usize)> =
                    lazy.pieces(1..n).flat_map(|(piece, ahead)| piece.map(move |slot| (slot, slot + ahead))).collect();
                let expected: Vec<(usize, usize)> = (1..n).map(|slot| (slot, lazy.cell(slot))).collect();
                prop_assert_eq!(slots, expected);
                let mut row: Vec<f32> = vec![-1.0; lazy.cells()];
                (0..n).for_each(|slot| row[lazy.cell(slot)] = slot as f32);
                lazy.close(&mut row);
                prop_assert!(row[..n].iter().enumerate().all(|(slot, &x)| x == slot as f32));
                let gathered = lazy.gather(&[0, n as u32 - 1]);
                prop_assert_eq!(gathered.keys(), eager.gather(&[0, n as u32 - 1]).keys());
            }
            let saved = lazy.save(true);
            append(&mut lazy, 1000);
            lazy.restore(&saved);
            prop_assert_eq!(lazy.keys(), eager.keys());
            let saved = lazy.save(false);
            lazy.retain(&[0]);
            lazy.restore(&saved);
            prop_assert_eq!(lazy.values(), eager.values());
            lazy.settle();
            prop_assert_eq!((lazy.keys(), lazy.values()), (eager.keys(), eager.values()));
            let len = lazy.len();
            lazy.truncate(len / 2);
            eager.truncate(len / 2);
            append(&mut lazy, 2000);
            append(&mut eager, 2000);
            prop_assert_eq!((lazy.keys(), lazy.values()), (eager.keys(), eager.values()));
        }
    }
}
