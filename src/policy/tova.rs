//! TOVA: keep what the newest query attends to (Oren et al. 2024, arXiv 2401.06104).
//!
//! Score of entry t: A[newest, t], mean over *all* query heads of the layer, so that every kv head keeps the same
//! set; the highest n stay, after the prompt and after each step. The authors protect nothing (`recent=0`);
//! kvpress forces the newest entry and acts once (`recent=1,every=prefill`). The default protects the newest, too:
//! a token that has just been written cannot be judged by its own row.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores};
use super::registry::REGISTERED;

static RECENT: Key<Count> = Key::new("recent", "newest entries that always stay", Count(0, 1_000_000), 1);
static EVERY: Key<Choice<Schedule>> = every(Schedule::EveryStep);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "tova",
    family: Family::Scorer,
    idea: "keep what the newest query attends to, one set per layer",
    paper: Some(Paper { title: "Transformers are Multi-State RNNs", arxiv: "2401.06104" }),
    budget: Some(Amount::percent(50)),
    keys: &[&RECENT, &EVERY],
    build: |spec| Part::scorer(Tova { recent: spec.get(&RECENT) as usize, schedule: spec.get(&EVERY) }),
};

struct Tova {
    recent: usize,
    schedule: Schedule,
}

impl Scorer for Tova {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn window(&self, _prompt: usize) -> usize {
        1
    }

    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let newest = view.newest();
        let heads = view.kv_heads() * view.group();
        // by position, not slot: kv heads need not hold the same entries [newest + 1]
        let mut sum = vec![0.0; newest as usize + 1];
        for head in 0..heads {
            let row = view.rows(head, newest..newest + 1);
            for (&p, a) in view.positions(head / view.group()).iter().zip(row) {
                sum[p as usize] += a;
            }
        }
        let mean = |kv_head| view.positions(kv_head).iter().map(|&p| sum[p as usize] / heads as f32).collect();
        Some(Scores::free((0..view.kv_heads()).map(mean).collect()).keep_newest(self.recent))
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, score, toy};

    #[test]
    fn last_row_of_the_toy() {
        let expected = [0.182732, 0.147576, 0.136688, 0.182732, 0.194695, 0.155577];
        close(&score("tova@3", &toy()).values[0], &expected);
    }

    #[test]
    fn the_newest_is_protected_unless_told_otherwise() {
        assert_eq!(after_prompt("tova@2", &toy()), [[4, 5]]);
        assert_eq!(after_prompt("tova@1:recent=0", &toy()), [[4]]);
    }
}
