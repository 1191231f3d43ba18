//! The draw behind the head: the rows of logits are made first, since nothing is spared here by not making them.

use std::sync::Arc;

use crate::backend::draw::{CANDIDATES, Draw, Drawn};

use super::CpuBackend;
use super::program::{Exec, Items, Op};

impl CpuBackend {
    /// Draws from the rows of logits that the head before leaves.
    pub(super) fn record_draw(&mut self, draws: &[Draw]) {
        self.drawn = vec![Drawn::of(&[], &Draw::GREEDY, 0); draws.len()];
        let draws: Arc<[Draw]> = draws.into();
        let bytes = (draws.len() * self.shape.vocab * 4) as u64;
        self.push("draw", Op::Draw { draws }, bytes, 0);
    }
}

/// One row after the other, a thread on each.
pub fn draw(exec: &Exec<'_>, items: Items<'_>, draws: &[Draw]) {
    items.each(draws.len(), 1, |r| {
        // SAFETY: one thread per row; this operation writes no logits.
        let (row, drawn) = unsafe { (exec.logits.row(r), exec.drawn[r].get()) };
        *drawn = Drawn::of(row, &draws[r], CANDIDATES);
    });
}
