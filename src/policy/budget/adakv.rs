//! Ada-KV: the kv heads of a layer compete for one budget (Feng et al. 2024, arXiv 2407.11550).
//!
//! A layer of H kv heads has H · n entries to keep. The ⌊α · n⌋ best of each head (at least one) are safe; then the
//! scores of all heads [H, T] lie in one list, and the highest stay. Entries that the scorer forces come before all
//! others. Equal scores of two heads go to the entry nearer the end of its head, then to the first head.
//!
//! α = 0.2 is kvpress' (README of the authors: 0.5). The scores of the heads have to be comparable: attention is,
//! norms of keys are not. kvpress masks what it drops and holds it still; here it leaves, and heads differ in length.
//! The authors pool after the group mean and may rescale each head by its mass; kvpress does neither, as here.

use linkme::distributed_slice;

use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Key, Real};
use crate::policy::part::{Allocator, Divide, Level, Part, Scores};
use crate::policy::registry::REGISTERED;
use crate::policy::select::{rank, select};
use crate::policy::spec::PartSpec;

static ALPHA: Key<Real> = Key::new("alpha", "part of an even budget that each head surely gets", Real(0.0, 1.0), 0.2);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "adakv",
    family: Family::Budget,
    idea: "the kv heads of a layer compete for one budget",
    paper: Some(Paper {
        title: "Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM Inference",
        arxiv: "2407.11550",
    }),
    budget: None,
    keys: &[&ALPHA],
    build: |spec: &PartSpec| Part::allocator(AdaKv { alpha: spec.get(&ALPHA) }),
};

struct AdaKv {
    alpha: f64,
}

impl Allocator for AdaKv {
    fn level(&self) -> Level {
        Level::Heads
    }

    fn allocate(&self, _ask: Divide<'_>, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]) {
        for (scores, budgets) in scores.iter_mut().zip(budgets) {
            if let Some(scores) = scores {
                self.divide(scores, budgets);
            }
        }
    }
}

impl AdaKv {
    fn divide(&self, scores: &mut Scores, budgets: &mut [usize]) {
        let heads = scores.values.iter().zip(&mut scores.forced);
        for ((values, forced), &budget) in heads.zip(&*budgets) {
            let safe = ((budget as f64 * self.alpha) as usize).max(1);
            select(values, forced, safe).into_iter().for_each(|slot| forced[slot as usize] = true);
        }
        let ranks = scores.values.iter().zip(&scores.forced).enumerate().flat_map(|(head, (values, forced))| {
            let ages = (0..values.len() as u32).map(move |slot| values.len() as u32 - slot);
            let entries = values.iter().zip(forced).zip(ages);
            entries.map(move |((&value, &forced), age)| (rank(value, forced, u32::MAX - age), usize::MAX - head))
        });
        let mut ranks: Vec<(u64, usize)> = ranks.collect();
        let total = budgets.iter().sum::<usize>().min(ranks.len());
        let dropped = ranks.len() - total;
        if dropped > 0 {
            ranks.select_nth_unstable(dropped - 1);
        }
        budgets.fill(0);
        ranks[dropped..].iter().for_each(|(_, head)| budgets[usize::MAX - head] += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divide(alpha: f64, budget: usize, values: &[&[f32]], newest: usize) -> (Vec<usize>, Scores) {
        let mut scores = Scores::free(values.iter().map(|v| v.to_vec()).collect()).keep_newest(newest);
        let mut budgets = vec![budget; values.len()];
        AdaKv { alpha }.divide(&mut scores, &mut budgets);
        (budgets, scores)
    }

    const TOY: [&[f32]; 2] = [&[0.9, 0.8, 0.7, 0.1], &[0.6, 0.2, 0.05, 0.01]];

    #[test]
    fn heads_of_the_toy_compete() {
        assert_eq!(divide(0.2, 2, &TOY, 0).0, [3, 1]);
        assert_eq!(divide(1.0, 2, &TOY, 0).0, [2, 2]);
    }

    #[test]
    fn no_head_is_left_empty() {
        let (budgets, scores) = divide(0.0, 1, &[&[0.5, 0.9, 0.8], &[0.1, 0.0, 0.2]], 0);
        assert_eq!((budgets, scores.forced), (vec![1, 1], vec![vec![false, true, false], vec![false, false, true]]));
    }

    #[test]
    fn what_the_scorer_forces_comes_first() {
        let values: [&[f32]; 2] = [&[0.9, 0.8, 0.7, 0.6, 0.5], &[0.3, 0.1, 0.1, 0.0, 0.0]];
        assert_eq!(divide(0.2, 3, &values, 0).0, [5, 1]);
        assert_eq!(divide(0.2, 3, &values, 2).0, [4, 2]);
        // more forced than there is room for: the newest of all heads
        assert_eq!(divide(0.2, 1, &values, 5).0, [1, 1]);
    }

    #[test]
    fn equal_scores_go_to_the_newer_entry() {
        assert_eq!(divide(0.0, 2, &[&[0.0, 0.0, 0.0], &[0.0, 0.0, 0.0]], 0).0, [2, 2]);
        assert_eq!(divide(0.0, 1, &[&[0.0, 0.0], &[0.0, 0.0], &[0.0, 0.0]], 0).0, [1, 1, 1]);
    }
}
