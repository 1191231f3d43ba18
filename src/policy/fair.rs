//! Fair shares along the prompt: equal spans keep equal parts of the budget.
//!
//! The entries of a kv head are cut into k spans of equal length (the first ones longer by one where they do not
//! divide); each keeps its part of the budget, so that no instruction is lost because another one scores higher
//! throughout. Scores are those of the whole
//! layer, unlike `chunk`. Forced entries all stay first, inside the part of their span; where they need more than that,
//! the other spans give, in equal measure.

use linkme::distributed_slice;

use super::budget::apportion;
use super::descriptor::{Descriptor, Family};
use super::key::{Count, Key};
use super::part::{Ask, Chooser, LayerView, Part};
use super::registry::REGISTERED;
use super::select::select;

static SPANS: Key<Count> = Key::new("spans", "equal spans that the entries are cut into", Count(1, 1_000_000), 4);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "fair",
    family: Family::Wrapper,
    idea: "equal spans of the prompt keep equal shares",
    paper: None,
    budget: None,
    keys: &[&SPANS],
    build: |spec| Part::chooser(Fair { spans: spec.get(&SPANS) as usize }),
};

struct Fair {
    spans: usize,
}

impl Chooser for Fair {
    fn choose(&self, ask: Ask<'_>, _view: &dyn LayerView) -> Vec<Vec<u32>> {
        let heads = ask.scores.values.iter().zip(&ask.scores.forced).zip(ask.budgets);
        heads.map(|((values, forced), &budget)| self.head(values, forced, budget)).collect()
    }
}

impl Fair {
    fn head(&self, values: &[f32], forced: &[bool], budget: usize) -> Vec<u32> {
        let count = |forced: &[bool]| forced.iter().filter(|&&forced| forced).count();
        let protected = count(forced);
        if protected >= budget {
            return select(values, forced, budget);
        }
        let lengths =
            apportion(values.len(), &vec![1.0; self.spans.min(values.len())], &vec![values.len(); self.spans]);
        let mut from = 0;
        let spans = lengths.iter().map(|length| {
            from += length;
            from - length..from
        });
        let spans: Vec<std::ops::Range<usize>> = spans.collect();
        let own: Vec<usize> = spans.iter().map(|span| count(&forced[span.clone()])).collect();
        let free: Vec<usize> = lengths.iter().zip(&own).map(|(length, own)| length - own).collect();
        let part = budget as f64 / spans.len() as f64;
        let lack: Vec<f64> = own.iter().map(|&own| (part - own as f64).max(0.0)).collect();
        let mut shares = apportion(budget - protected, &lack, &free);
        // spans that are full already take what is left
        let left = budget - protected - shares.iter().sum::<usize>();
        let room: Vec<usize> = free.iter().zip(&shares).map(|(free, share)| free - share).collect();
        let more = apportion(left, &vec![1.0; spans.len()], &room);
        shares.iter_mut().zip(more).for_each(|(share, more)| *share += more);
        let kept = spans.into_iter().zip(shares.iter().zip(own)).flat_map(|(span, (share, own))| {
            let best = select(&values[span.clone()], &forced[span.clone()], share + own);
            best.into_iter().map(move |slot| span.start as u32 + slot)
        });
        kept.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{after_prompt, toy};
    use proptest::prelude::*;

    #[test]
    fn spans_of_the_toy_keep_the_same() {
        // −1 −.71 −1 | −2 −1 −.55
        assert_eq!(after_prompt("fair:spans=2+knorm@4", &toy()), [[1, 2, 4, 5]]);
        assert_eq!(after_prompt("knorm@4", &toy()), [[1, 2, 4, 5]]);
        assert_eq!(after_prompt("fair:spans=3+knorm@3", &toy()), [[1, 2, 5]]);
    }

    #[test]
    fn forced_entries_count_in_their_span() {
        let values = [9.0, 8.0, 7.0, 6.0, 0.0, 0.0, 0.0, 0.0];
        let forced = [false, false, false, false, false, true, true, true];
        assert_eq!(Fair { spans: 2 }.head(&values, &[false; 8], 4), [0, 1, 6, 7]);
        assert_eq!(Fair { spans: 2 }.head(&values, &forced, 6), [0, 1, 2, 5, 6, 7]);
        assert_eq!(Fair { spans: 2 }.head(&values, &forced, 5), [0, 1, 5, 6, 7]);
        assert_eq!(Fair { spans: 2 }.head(&values, &forced, 2), [6, 7]);
    }

    proptest! {
        #[test]
        fn parts_differ_by_one_at_most_and_the_budget_is_met(n in 1usize..60, spans in 1usize..9, budget in 1usize..60) {
            let values: Vec<f32> = (0..n).map(|i| (i * 7 % 11) as f32).collect();
            let kept = Fair { spans }.head(&values, &vec![false; n], budget);
            prop_assert_eq!(kept.len(), budget.min(n));
            if n % spans == 0 {
                let part = |s: usize| kept.iter().filter(|&&slot| slot as usize / (n / spans) == s).count();
                let parts: Vec<usize> = (0..spans).map(part).collect();
                prop_assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1, "{:?}", parts);
            }
        }
    }
}
