//! Delta attention: reads the prompt sparsely and repairs what that does to the output (Willette et al. 2025,
//! arXiv 2505.11254).
//!
//! While the prompt is read, a query sees the first `sinks` positions and the `window` newest. Every `gamma`-th query
//! sees everything too, and what its output gains by that, Δ = dense − sparse, is added to the outputs of the gamma − 1
//! queries after it. The last T mod gamma + max(128, gamma) queries of the prompt see everything. Steps read
//! everything, and the cache is not smaller: later layers read keys of repaired outputs, so that the lane reads the
//! prompt on its own and even its first token may be another.
//!
//! Defaults: 1024 sinks, window 2048, gamma 64: prompts within 3072 tokens are read whole. `repair=recompute` leaves the
//! dense rows where they are and repairs no other, `repair=off` reads all rows sparsely, the last ones too: both as in
//! the authors' code, to see what the repair is worth. Layers with a window of their own are left alone. Outputs are
//! sums of values with the rows' probabilities, so that Δ is added to those instead.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key};
use super::part::Part;
use super::registry::REGISTERED;

static SINKS: Key<Count> = Key::new("sinks", "first positions that every query sees", Count(0, 1_000_000), 1024);
static WINDOW: Key<Count> = Key::new("window", "newest positions that a query sees", Count(1, 1_000_000), 2048);
static GAMMA: Key<Count> = Key::new("gamma", "every so many queries one sees everything", Count(1, 64), 64);
const REPAIRS: &[(&str, Repair)] = &[("delta", Repair::Delta), ("recompute", Repair::Recompute), ("off", Repair::Off)];
static REPAIR: Key<Choice<Repair>> =
    Key::new("repair", "what becomes of the queries between the dense ones", Choice(REPAIRS), Repair::Delta);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "delta",
    family: Family::Reader,
    idea: "read the prompt sparsely, repair the output from every so many dense queries",
    paper: Some(Paper {
        title: "Delta Attention: Fast and Accurate Sparse Attention Inference by Delta Correction",
        arxiv: "2505.11254",
    }),
    budget: None,
    keys: &[&SINKS, &WINDOW, &GAMMA, &REPAIR],
    build: |spec| {
        Part::Prefill(Sparse {
            sinks: spec.get(&SINKS) as u32,
            window: spec.get(&WINDOW) as u32,
            gamma: spec.get(&GAMMA) as u32,
            repair: spec.get(&REPAIR),
        })
    },
};

/// What the dense rows are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// What they gain is added to the rows that follow.
    Delta,
    /// They stand for themselves.
    Recompute,
    /// There are none.
    Off,
}

/// How the rows of a prompt attend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sparse {
    pub sinks: u32,
    pub window: u32,
    pub gamma: u32,
    pub repair: Repair,
}

/// How one row attends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    Dense,
    Sparse,
    /// Sparse, and what the dense row at this position gains is added.
    Repaired(u32),
}

/// Dense rows at the end, at least.
const LAST: u32 = 128;

impl Sparse {
    /// Of the query at `position` of a prompt of `prompt` tokens.
    pub fn row(self, position: u32, prompt: u32) -> RowKind {
        let whole = prompt - prompt % self.gamma;
        let end = whole.saturating_sub(LAST.max(self.gamma)) / self.gamma * self.gamma;
        let leader = position - position % self.gamma;
        match self.repair {
            Repair::Off => RowKind::Sparse,
            _ if position >= end || position == leader => RowKind::Dense,
            Repair::Recompute => RowKind::Sparse,
            Repair::Delta => RowKind::Repaired(leader),
        }
    }

    /// Whether the sparse row at `position` sees `other`, which is no newer.
    pub fn sees(self, position: u32, other: u32) -> bool {
        other < self.sinks || other as u64 + self.window as u64 > position as u64
    }

    /// Entries that the row at `position` reads: what a row that is repaired borrows is counted with the dense one.
    pub fn entries(self, position: u32, prompt: u32) -> u64 {
        let all = position as u64 + 1;
        match self.row(position, prompt) {
            RowKind::Dense => all,
            _ => all.min(self.sinks as u64 + self.window as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_dense_where_the_authors_are() {
        let delta = |repair| Sparse { sinks: 4, window: 8, gamma: 16, repair };
        let row = |repair, position| delta(repair).row(position, 300);
        // 300 mod 16 + 128 = 140 at the end
        assert_eq!(row(Repair::Delta, 160), RowKind::Dense);
        assert_eq!(row(Repair::Delta, 159), RowKind::Repaired(144));
        assert_eq!([0, 16, 144].map(|p| row(Repair::Delta, p)), [RowKind::Dense; 3]);
        assert_eq!((row(Repair::Recompute, 144), row(Repair::Recompute, 145)), (RowKind::Dense, RowKind::Sparse));
        assert_eq!([0, 16, 299].map(|p| row(Repair::Off, p)), [RowKind::Sparse; 3]);
        assert_eq!(delta(Repair::Delta).row(5, 100), RowKind::Dense);
    }

    #[test]
    fn a_sparse_row_sees_sinks_and_window() {
        let delta = Sparse { sinks: 2, window: 3, gamma: 4, repair: Repair::Off };
        let seen = |position| (0..=position).filter(|&p| delta.sees(position, p)).collect::<Vec<u32>>();
        assert_eq!(seen(9), [0, 1, 7, 8, 9]);
        assert_eq!(seen(3), [0, 1, 2, 3]);
        for position in 0..20 {
            assert_eq!(delta.entries(position, 20), seen(position).len() as u64);
        }
    }
}
