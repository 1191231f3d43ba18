//! A part of a layer, shown as if it were all of it: for policies that ask a scorer about chunks or blocks.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::Range;

use super::part::{LayerView, Norm};
use super::watch::{Watch, again};

/// Some slots of another view. Attention rows are a softmax over these slots alone: the row of the whole, divided by
/// what these slots hold of it. Column sums (`received`) stay those of the whole: rows of the past are not taken again.
pub struct Subset<'a> {
    whole: &'a dyn LayerView,
    /// Ascending, of the whole [kv heads][m]
    slots: Vec<Vec<u32>>,
    /// [kv heads][m]
    positions: Vec<Vec<u32>>,
    newest: u32,
    /// [H][m], once asked for
    received: Vec<OnceCell<Vec<f32>>>,
    /// [kv heads][m], once asked for
    offsets: Vec<OnceCell<Vec<f32>>>,
}

impl<'a> Subset<'a> {
    /// `slots` of `whole`, ascending [kv heads][m]; `newest` is the position of the last query that has a row.
    pub fn new(whole: &'a dyn LayerView, slots: Vec<Vec<u32>>, newest: u32) -> Self {
        let positions = slots.iter().enumerate().map(|(kv_head, slots)| {
            let all = whole.positions(kv_head);
            slots.iter().map(|&slot| all[slot as usize]).collect()
        });
        let positions = positions.collect();
        let received = vec![OnceCell::new(); whole.kv_heads() * whole.group()];
        let offsets = vec![OnceCell::new(); whole.kv_heads()];
        Self { whole, slots, positions, newest, received, offsets }
    }

    /// Rows of `width` numbers for the slots of `kv_head` out of those for all slots.
    fn gather(&self, all: &[f32], kv_head: usize, width: usize) -> Vec<f32> {
        let rows = self.slots[kv_head].iter().map(|&slot| &all[slot as usize * width..][..width]);
        rows.flatten().copied().collect()
    }
}

impl LayerView for Subset<'_> {
    fn kv_heads(&self) -> usize {
        self.whole.kv_heads()
    }
    fn group(&self) -> usize {
        self.whole.group()
    }
    fn head_dim(&self) -> usize {
        self.whole.head_dim()
    }
    fn scale(&self) -> f32 {
        self.whole.scale()
    }
    fn positions(&self, kv_head: usize) -> &[u32] {
        &self.positions[kv_head]
    }
    fn keys(&self, kv_head: usize) -> Cow<'_, [f32]> {
        Cow::Owned(self.gather(&self.whole.keys(kv_head), kv_head, self.head_dim()))
    }
    fn values(&self, kv_head: usize) -> Cow<'_, [f32]> {
        Cow::Owned(self.gather(&self.whole.values(kv_head), kv_head, self.head_dim()))
    }
    fn key_norms(&self, kv_head: usize) -> Vec<f32> {
        self.gather(&self.whole.key_norms(kv_head), kv_head, 1)
    }
    fn rows(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        let kv_head = head / self.group();
        let n = self.whole.positions(kv_head).len();
        let whole = self.whole.rows(head, rows);
        if self.slots[kv_head].len() == n {
            return whole;
        }
        let row = |row: &[f32]| {
            let mut part = self.gather(row, kv_head, 1);
            let mass: f32 = part.iter().sum();
            if mass > 0.0 {
                part.iter_mut().for_each(|a| *a /= mass);
            }
            part
        };
        whole.chunks_exact(n.max(1)).flat_map(row).collect()
    }
    fn newest(&self) -> u32 {
        self.newest
    }
    fn seen(&self) -> u32 {
        self.whole.seen()
    }
    fn received(&self, head: usize) -> &[f32] {
        self.received[head].get_or_init(|| self.gather(self.whole.received(head), head / self.group(), 1))
    }
    fn above_average(&self, head: usize, rows: usize) -> Vec<u32> {
        let all = self.whole.above_average(head, rows);
        self.slots[head / self.group()].iter().map(|&slot| all[slot as usize]).collect()
    }
    fn inputs(&self) -> &[f32] {
        self.whole.inputs()
    }
    fn input(&self, position: u32) -> Option<&[f32]> {
        self.whole.input(position)
    }
    fn offsets(&self, kv_head: usize) -> &[f32] {
        self.offsets[kv_head].get_or_init(|| match self.whole.offsets(kv_head) {
            [] => Vec::new(),
            all => self.gather(all, kv_head, 1),
        })
    }
    fn queries(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        self.whole.queries(head, rows)
    }
    fn turns(&self) -> &[f32] {
        self.whole.turns()
    }
    fn watched(&self, layer: usize, head: usize, watch: &dyn Watch) -> Vec<f32> {
        again(self, layer, head, watch)
    }

    fn projected(&self, head: usize, norm: Norm) -> Vec<f32> {
        self.gather(&self.whole.projected(head, norm), head / self.group(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{Layer, close, random_layer, toy};

    /// The same entries in a cache that never held more.
    #[test]
    fn a_part_looks_like_a_thinner_cache() {
        let layer = random_layer(3, (2, 3), 4, 12);
        let slots = vec![vec![0, 2, 3, 7, 9], vec![1, 4, 5, 6, 9]];
        let part = Subset::new(&layer, slots.clone(), 9);
        let thin = Layer { held: slots, newest: 9, ..layer.clone() };
        for kv_head in 0..2 {
            assert_eq!(part.positions(kv_head), thin.positions(kv_head));
            assert_eq!(part.keys(kv_head), thin.keys(kv_head));
            assert_eq!(part.values(kv_head), thin.values(kv_head));
            assert_eq!(part.key_norms(kv_head), thin.key_norms(kv_head));
        }
        for head in 0..6 {
            close(&part.rows(head, 7..10), &thin.rows(head, 7..10));
            assert_eq!(part.projected(head, Norm::L2), thin.projected(head, Norm::L2));
            let whole = layer.received(head);
            let expected: Vec<f32> = part.slots[head / 3].iter().map(|&slot| whole[slot as usize]).collect();
            assert_eq!(part.received(head), expected);
        }
        assert_eq!((part.newest(), part.seen()), (9, 12));
    }

    #[test]
    fn rows_sum_to_one_and_a_query_that_sees_nothing_of_it_has_none() {
        let toy = toy();
        let part = Subset::new(&toy, vec![vec![3, 4]], 4);
        close(&part.rows(0, 1..2), &[0.0, 0.0]);
        let row = part.rows(0, 4..5);
        close(&[row[0] + row[1]], &[1.0]);
        // e^½ to e^0: query (1, 0, 1, 0) on keys (0, 0, 2, 0) and (0, 0, 0, 1)
        close(&[row[0] / row[1]], &[1f32.exp()]);
    }
}
