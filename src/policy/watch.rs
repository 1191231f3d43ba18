//! Looking at every row of a prompt's attention while the prompt is read: sums over rows that are not the plain column
//! sums would else have to compute all rows again.

use std::sync::Arc;

use super::view::LayerView;

/// Which row it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowAt {
    pub layer: usize,
    /// Query head.
    pub head: usize,
    /// Of the query.
    pub position: u32,
}

pub trait Watch: Send + Sync {
    /// Two with the same name give the same sums.
    fn name(&self) -> String;
    /// Adds to `sums` what a row gives to the entries that it sees, at `positions`. `row`: a copy of its probabilities,
    /// which may be overwritten; all [n].
    fn row(&self, at: RowAt, positions: &[u32], row: &mut [f32], sums: &mut [f32]);
}

/// The same sums [n] from rows that are computed again, for what `view` holds.
pub fn again(view: &dyn LayerView, layer: usize, head: usize, watch: &dyn Watch) -> Vec<f32> {
    const ROWS: u32 = 64;
    let (positions, end) = (view.positions(head / view.group()), view.newest() + 1);
    let mut sums = vec![0.0; positions.len()];
    for from in (0..end).step_by(ROWS as usize) {
        let rows = from..(from + ROWS).min(end);
        let mut all = view.rows(head, rows.clone());
        for (position, row) in rows.zip(all.chunks_exact_mut(positions.len().max(1))) {
            let seen = positions.partition_point(|&p| p <= position);
            let at = RowAt { layer, head, position };
            watch.row(at, &positions[..seen], &mut row[..seen], &mut sums[..seen]);
        }
    }
    sums
}

/// What is watched while a prompt is read.
#[derive(Clone, Default)]
pub struct Watches(pub Vec<Arc<dyn Watch>>);

impl Watches {
    pub fn place(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|watch| watch.name() == name)
    }

    /// Those of both, each once.
    pub fn or(mut self, other: Self) -> Self {
        for watch in other.0 {
            if self.place(&watch.name()).is_none() {
                self.0.push(watch);
            }
        }
        self
    }
}

impl PartialEq for Watches {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|watch| other.place(&watch.name()).is_some())
    }
}
