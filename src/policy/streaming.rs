//! StreamingLLM: attention sinks and the most recent tokens (Xiao et al. 2023, arXiv 2309.17453).
//!
//! Budget n: the first `sinks` positions and the n − sinks newest entries stay. At n ≤ sinks the newest entry
//! still stays, beside the n − 1 first ones. Entries keep their original positions, as in kvpress; the authors'
//! code instead holds keys before rope and rotates them to slot numbers at every step.

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores};
use super::window::recency;

static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(0, 1_000_000), 4);
static EVERY: Key<Choice<Schedule>> = every(Schedule::EveryStep);

pub static POLICY: Descriptor = Descriptor {
    name: "streaming",
    family: Family::Scorer,
    idea: "keep the first tokens (attention sinks) and the most recent ones",
    paper: Some(Paper { title: "Efficient Streaming Language Models with Attention Sinks", arxiv: "2309.17453" }),
    budget: Some(Amount::percent(50)),
    keys: &[&SINKS, &EVERY],
    build: |spec| Part::scorer(Streaming { sinks: spec.get(&SINKS) as usize, schedule: spec.get(&EVERY) }),
};

struct Streaming {
    sinks: usize,
    schedule: Schedule,
}

impl Scorer for Streaming {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn score(&self, _at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let sinks = self.sinks.min(budget.saturating_sub(1));
        Some(Scores::free(recency(view)).keep_first(sinks, view))
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, toy};

    #[test]
    fn sinks_and_recent_stay() {
        assert_eq!(after_prompt("streaming@5", &toy()), [[0, 1, 2, 3, 5]]);
        assert_eq!(after_prompt("streaming@4:sinks=1", &toy()), [[0, 3, 4, 5]]);
        assert_eq!(after_prompt("streaming@2:sinks=0", &toy()), [[4, 5]]);
    }

    #[test]
    fn the_newest_stays_when_sinks_fill_the_budget() {
        assert_eq!(after_prompt("streaming@3", &toy()), [[0, 1, 5]]);
        assert_eq!(after_prompt("streaming@1", &toy()), [[5]]);
    }
}
