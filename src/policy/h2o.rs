//! H2O: heavy hitters by accumulated attention, and the most recent tokens (Zhang et al. 2023, arXiv 2306.14048).
//!
//! Score of entry t: Σ over all queries i of A[i, t], prompt and decoded rows alike, not divided by how many
//! queries could see t; mean over the query heads of a kv head. Budget n: ⌊recent⌋ of it for the newest entries,
//! the rest for the highest sums. An evicted entry takes its sum with it.
//!
//! The authors' code works on multi-head attention and masks instead of removing, so that a token can come back
//! at the edge of the window; here it is gone. Dividing by the count gives ObservedAttention, another policy.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Key, OfBudget, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores, group_mean};
use super::registry::REGISTERED;

static RECENT: Key<OfBudget> =
    Key::new("recent", "part of the budget that belongs to the newest entries", OfBudget, Amount::percent(50));
static EVERY: Key<Choice<Schedule>> = every(Schedule::EveryStep);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "h2o",
    family: Family::Scorer,
    idea: "keep what all queries so far attended to most, and the most recent tokens",
    paper: Some(Paper {
        title: "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
        arxiv: "2306.14048",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&RECENT, &EVERY],
    build: |spec| Part::scorer(H2o { recent: spec.get(&RECENT), schedule: spec.get(&EVERY) }),
};

struct H2o {
    recent: Amount,
    schedule: Schedule,
}

impl Scorer for H2o {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn needs_received(&self) -> bool {
        true
    }

    fn score(&self, _at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let received = group_mean(view, |head| view.received(head).to_vec());
        Some(Scores::free(received).keep_newest(self.recent.of(budget)))
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, mean, score, toy};

    #[test]
    fn column_sums_of_the_toy() {
        let heads = [
            [2.185159, 1.289173, 0.990892, 0.939118, 0.425547, 0.170111],
            [2.519547, 1.461582, 0.955662, 0.577114, 0.345053, 0.141043],
        ];
        close(&score("h2o@4", &toy()).values[0], &mean(&heads));
    }

    #[test]
    fn half_of_the_budget_is_recent() {
        assert_eq!(after_prompt("h2o@4", &toy()), [[0, 1, 4, 5]]);
        assert_eq!(after_prompt("h2o@3", &toy()), [[0, 1, 5]]);
        assert_eq!(after_prompt("h2o@4:recent=3", &toy()), [[0, 3, 4, 5]]);
        assert_eq!(after_prompt("h2o@3:recent=0%", &toy()), [[0, 1, 2]]);
    }
}
