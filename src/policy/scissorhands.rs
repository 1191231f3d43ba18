//! Scissorhands: what was pivotal stays pivotal (Liu et al. 2023, arXiv 2305.17118).
//!
//! Score of entry t: in how many of the last `window` rows it received at least the average, 1 / entries that the row's
//! query sees; mean over the query heads of a kv head. When more than the budget B is held, B − m stay: m = `drop` of B
//! leave at once, so that the cache grows again before the next cut. The `recent` newest never leave, unless B − m is
//! less. Every step.
//!
//! window = 400, recent = 10, drop = 50 %: the paper's. After a long prompt one cut leaves B − m, too. The authors'
//! code (OPT) tests against the 90th percentile instead of the average; VATP's copy takes the mean of the last 400
//! rows. With grouped heads, counts of one kv head are averaged, not united.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, OfBudget, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores, group_mean};
use super::registry::REGISTERED;

static WINDOW: Key<Count> = Key::new("window", "last rows that are counted", Count(1, 100_000), 400);
static RECENT: Key<Count> = Key::new("recent", "newest entries that always stay", Count(0, 1_000_000), 10);
static DROP: Key<OfBudget> =
    Key::new("drop", "part of the budget that leaves at once when it is full", OfBudget, Amount::percent(50));
static EVERY: Key<Choice<Schedule>> = every(Schedule::EveryStep);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "scissorhands",
    family: Family::Scorer,
    idea: "keep what was often attended to more than average; when full, drop half at once",
    paper: Some(Paper {
        title: "Scissorhands: Exploiting the Persistence of Importance Hypothesis for LLM KV Cache Compression at Test \
                Time",
        arxiv: "2305.17118",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&WINDOW, &RECENT, &DROP, &EVERY],
    build: |spec| {
        Part::scorer(Scissorhands {
            window: spec.get(&WINDOW) as usize,
            recent: spec.get(&RECENT) as usize,
            drop: spec.get(&DROP),
            schedule: spec.get(&EVERY),
        })
    },
};

struct Scissorhands {
    window: usize,
    recent: usize,
    drop: Amount,
    schedule: Schedule,
}

impl Scorer for Scissorhands {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn history(&self) -> usize {
        self.window
    }

    fn window(&self, prompt: usize) -> usize {
        self.window.min(prompt)
    }

    fn score(&self, _at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let counts = group_mean(view, |head| {
            view.above_average(head, self.window).into_iter().map(|count| count as f32).collect()
        });
        let left = budget.saturating_sub(self.drop.of(budget)).max(1);
        let held = |kv_head| view.positions(kv_head).len();
        let own = (0..view.kv_heads()).map(|h| if held(h) > budget { left } else { held(h) }).collect();
        Some(Scores { own: Some(own), ..Scores::free(counts).keep_newest(self.recent) })
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::testing::{Layer, after_prompt, moment, score, toy};

    #[test]
    fn above_average_rows_are_counted() {
        // one head, four positions; averages 1, 1/2, 1/3, 1/4
        let map = vec![1.0, 0.0, 0.0, 0.0, 0.4, 0.6, 0.0, 0.0, 0.5, 0.1, 0.4, 0.0, 0.2, 0.3, 0.25, 0.25];
        let layer = Layer::new(vec![map], vec![vec![0.0; 8]], vec![vec![0.0; 8]], 2, 4);
        assert_eq!(score("scissorhands@2:recent=0", &layer).values, [[2.0, 2.0, 2.0, 1.0]]);
        assert_eq!(score("scissorhands@2:window=2,recent=0", &layer).values, [[1.0, 1.0, 2.0, 1.0]]);
        // two of four stay: the higher count, then the newer of equals
        assert_eq!(after_prompt("scissorhands@2:window=2,recent=0,drop=0%", &layer), [[2, 3]]);
        assert_eq!(after_prompt("scissorhands@2:window=2,recent=0", &layer), [[2]]);
    }

    #[test]
    fn the_cache_saws_between_half_and_all_of_its_budget() {
        let whole = crate::policy::testing::random_layer(5, (2, 2), 4, 30);
        let mut layer = Layer::from_queries(&whole.queries, whole.keys.clone(), whole.values.clone(), 4, 10);
        let policy = Policy::parse("scissorhands@8:recent=2").unwrap();
        let mut sizes = Vec::new();
        for step in 0..=12 {
            if step > 0 {
                layer.step();
            }
            if let Some(decision) = crate::policy::testing::decide(&policy, moment(10, step), &layer) {
                let newest = layer.newest;
                layer.keep(&decision);
                assert!(layer.held.iter().all(|held| held.ends_with(&[newest - 1, newest])));
            }
            sizes.push(layer.held[0].len());
        }
        assert_eq!(sizes, [4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4, 5, 6]);
    }

    #[test]
    fn recent_entries_stay() {
        assert_eq!(after_prompt("scissorhands@4:recent=1,drop=1", &toy())[0].len(), 3);
        assert_eq!(after_prompt("scissorhands@4:recent=10", &toy()), [[4, 5]]);
        assert_eq!(Policy::parse("scissorhands").unwrap().history(), 400);
    }
}
