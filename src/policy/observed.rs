//! ObservedAttention: the mean attention that an entry received (NVIDIA kvpress; related to H2O, arXiv 2306.14048).
//!
//! Score of entry t: Σ_i A[i, t] over all queries i since the start, divided by how many of them can see t
//! (newest + 1 − t); mean over the query heads of a kv head; the highest n stay. Nothing is protected: the newest
//! entries have few rows, so their means are noisy. H2O is the same without the division, and often mistaken
//! for this. Once, after the prompt, as in kvpress; `every=step` goes on with the rows of decoded tokens.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family};
use super::key::{Choice, Key, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores, group_mean};
use super::registry::REGISTERED;

static EVERY: Key<Choice<Schedule>> = every(Schedule::AfterPrefill);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "observed",
    family: Family::Scorer,
    idea: "keep what was attended to most on average by the queries that can see it",
    paper: None,
    budget: Some(Amount::percent(50)),
    keys: &[&EVERY],
    build: |spec| Part::scorer(Observed { schedule: spec.get(&EVERY) }),
};

struct Observed {
    schedule: Schedule,
}

impl Scorer for Observed {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn needs_received(&self) -> bool {
        true
    }

    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let end = view.newest() + 1;
        let observed = group_mean(view, |head| {
            let slots = view.positions(head / view.group()).iter().zip(view.received(head));
            slots.map(|(&position, sum)| sum / (end - position) as f32).collect()
        });
        Some(Scores::free(observed))
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, score, toy};

    #[test]
    fn mean_attention_of_the_toy() {
        let expected = [0.392059, 0.275075, 0.243319, 0.252705, 0.192650, 0.155577];
        close(&score("observed@3", &toy()).values[0], &expected);
        assert_eq!(after_prompt("observed@3", &toy()), [[0, 1, 3]]);
    }
}
