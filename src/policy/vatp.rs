//! VATP: attention counts by the size of the value that it carries (Guo et al. 2024, arXiv 2406.12335).
//!
//! Score of entry t: (Σ over all queries i of A[i, t]) · ‖v_t‖₁, the sum being H2O's; mean over the query heads of a
//! kv head. The first `sinks` positions stay (much attention, tiny values), the newest `recent` entries too; where
//! both exceed the budget, fewer sinks do. The highest scores fill the rest. The authors also put it on top of
//! Scissorhands, mask instead of removing, and know one set per query head.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, OfBudget, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores, group_mean};
use super::registry::REGISTERED;

static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(0, 1_000_000), 20);
static RECENT: Key<OfBudget> =
    Key::new("recent", "part of the budget that belongs to the newest entries", OfBudget, Amount::percent(50));
static EVERY: Key<Choice<Schedule>> = every(Schedule::EveryStep);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "vatp",
    family: Family::Scorer,
    idea: "keep what received most attention times the size of its value",
    paper: Some(Paper {
        title: "Attention Score is not All You Need for Token Importance Indicator in KV Cache Reduction: Value \
                Also Matters",
        arxiv: "2406.12335",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&SINKS, &RECENT, &EVERY],
    build: |spec| {
        Part::scorer(Vatp { sinks: spec.get(&SINKS) as usize, recent: spec.get(&RECENT), schedule: spec.get(&EVERY) })
    },
};

struct Vatp {
    sinks: usize,
    recent: Amount,
    schedule: Schedule,
}

impl Scorer for Vatp {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn needs_received(&self) -> bool {
        true
    }

    fn score(&self, _at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let mut scores = group_mean(view, |head| view.received(head).to_vec());
        for (kv_head, scores) in scores.iter_mut().enumerate() {
            let values = view.values(kv_head);
            let sizes = values.chunks_exact(view.head_dim()).map(|v| v.iter().map(|x| x.abs()).sum::<f32>());
            scores.iter_mut().zip(sizes).for_each(|(score, size)| *score *= size);
        }
        let recent = self.recent.of(budget);
        let sinks = self.sinks.min(budget.saturating_sub(recent));
        Some(Scores::free(scores).keep_first(sinks, view).keep_newest(recent))
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, score, toy};

    #[test]
    fn attention_times_value_of_the_toy() {
        // head 0 alone
        let mut layer = toy();
        layer.group = 1;
        layer.received.truncate(1);
        let expected = [6.555478, 1.289173, 2.972677, 3.756471, 0.851094, 0.085056];
        close(&score("vatp@4:sinks=0", &layer).values[0], &expected);
    }

    #[test]
    fn sinks_and_recent_stay() {
        assert_eq!(after_prompt("vatp@3:sinks=0,recent=1", &toy()), [[0, 3, 5]]);
        assert_eq!(after_prompt("vatp@4:recent=1", &toy()), [[0, 1, 2, 5]]);
        assert_eq!(after_prompt("vatp@4:sinks=2", &toy()), [[0, 1, 4, 5]]);
        assert_eq!(after_prompt("vatp@4:recent=100%", &toy()), [[2, 3, 4, 5]]);
    }
}
