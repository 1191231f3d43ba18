//! Sliding window: the most recent tokens, every layer and head alike.
//!
//! Budget n: the n newest of the T held entries stay, at their original positions. Beltagy et al. 2020
//! (arXiv 2004.05150) band the mask during the prompt; here the prompt is read with dense attention and cut
//! afterwards, which is another policy: rows of the prompt saw tokens that a banded mask hides.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Key, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores};
use super::registry::REGISTERED;

static EVERY: Key<Choice<Schedule>> = every(Schedule::EveryStep);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "window",
    family: Family::Scorer,
    idea: "keep the most recent tokens",
    paper: Some(Paper { title: "Longformer: The Long-Document Transformer", arxiv: "2004.05150" }),
    budget: Some(Amount::percent(50)),
    keys: &[&EVERY],
    build: |spec| Part::scorer(Window { schedule: spec.get(&EVERY) }),
};

struct Window {
    schedule: Schedule,
}

impl Scorer for Window {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        Some(Scores::free(recency(view)))
    }
}

/// The position itself as a score: newer is higher [kv heads][n].
pub(super) fn recency(view: &dyn LayerView) -> Vec<Vec<f32>> {
    (0..view.kv_heads()).map(|kv_head| view.positions(kv_head).iter().map(|&p| p as f32).collect()).collect()
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, toy};

    #[test]
    fn the_newest_stay() {
        assert_eq!(after_prompt("window@2", &toy()), [[4, 5]]);
        assert_eq!(after_prompt("window@50%", &toy()), [[3, 4, 5]]);
    }
}
