//! CriticalKV: attention alone does not tell what a lost entry costs (Feng et al. 2025, arXiv 2502.03805).
//!
//! An entry's budget has two stages. First the top ⌊first · n⌋ by the scorer behind (at least one) are safe. Then the
//! rest are ranked by (s_t + ε) · m_t, m_t the mean of ‖W_O,h v_t‖₁ over the query heads h of the kv head: a bound on
//! how much the layer's output moves without them.
//!
//! first = 50 %, ε = 10⁻⁴: authors and kvpress. With `adakv` in front this is kvpress' CriticalAdaKV: budgets of the
//! heads by the scorer alone, then both stages in each head. kvpress multiplies the stand-in score of a forced entry
//! (SnapKV's window) by m_t, too, so that one outside the first stage can leave; here forced is forced. Scores that
//! already contain norms of values (`vatp`, `expected` with its value norm) count them twice.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Key, OfBudget, Real};
use super::part::{LayerView, Moment, Norm, Part, Refiner, Scores, group_mean};
use super::registry::REGISTERED;
use super::select::select;

static EPSILON: Key<Real> =
    Key::new("epsilon", "added to a score, so that a zero still weighs its value", Real(0.0, 1000.0), 1e-4);
static FIRST: Key<OfBudget> =
    Key::new("first", "part of the budget that the scorer alone decides", OfBudget, Amount::percent(50));

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "criticalkv",
    family: Family::Wrapper,
    idea: "weigh scores by what the values do to the layer's output",
    paper: Some(Paper {
        title: "Identify Critical KV Cache in LLM Inference from an Output Perturbation Perspective",
        arxiv: "2502.03805",
    }),
    budget: None,
    keys: &[&EPSILON, &FIRST],
    build: |spec| Part::refiner(CriticalKv { epsilon: spec.get(&EPSILON) as f32, first: spec.get(&FIRST) }),
};

struct CriticalKv {
    epsilon: f32,
    first: Amount,
}

impl Refiner for CriticalKv {
    fn refine(&self, _at: Moment, budgets: &[usize], mut scores: Scores, view: &dyn LayerView) -> Scores {
        let weights = group_mean(view, |head| view.projected(head, Norm::L1));
        let heads = scores.values.iter_mut().zip(&mut scores.forced).zip(&weights);
        for (((values, forced), weights), &budget) in heads.zip(budgets) {
            let first = match self.first {
                none if none.is_zero() => 0,
                some => some.of(budget).max(1),
            };
            select(values, forced, first).into_iter().for_each(|slot| forced[slot as usize] = true);
            values.iter_mut().zip(weights).for_each(|(s, m)| *s = (*s + self.epsilon) * m);
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{Layer, after_prompt, random_layer, score};

    /// Slow, in f64, on positions: what stays of `n` by `score` when `first` of them are settled.
    fn reference(layer: &Layer, kv_head: usize, score: &[f32], forced: &[bool], n: usize, first: usize) -> Vec<u32> {
        let weight = |t: usize| {
            let heads = kv_head * layer.group..(kv_head + 1) * layer.group;
            let norm = |h: usize| {
                let rows = layer.output[h].chunks(layer.dim);
                let v = &layer.values[kv_head][t * layer.dim..(t + 1) * layer.dim];
                rows.map(|w| w.iter().zip(v).map(|(&w, &v)| w as f64 * v as f64).sum::<f64>().abs()).sum::<f64>()
            };
            heads.map(norm).sum::<f64>() / layer.group as f64
        };
        let by = |key: &dyn Fn(usize) -> f64| {
            let mut order: Vec<usize> = (0..score.len()).collect();
            order.sort_by(|&a, &b| (forced[b], key(b)).partial_cmp(&(forced[a], key(a))).unwrap());
            order
        };
        let mut kept: Vec<usize> = by(&|t| score[t] as f64).into_iter().take(first).collect();
        for t in by(&|t| (score[t] as f64 + 1e-4) * weight(t)) {
            if kept.len() < n && !kept.contains(&t) {
                kept.push(t);
            }
        }
        kept.sort();
        kept.into_iter().map(|t| t as u32).collect()
    }

    #[test]
    fn both_stages_equal_a_slow_reference() {
        for seed in 0..20 {
            let layer = random_layer(seed, (2, 3), 4, 30);
            let base = score("snapkv@12:window=3,kernel=3", &layer);
            let ours = after_prompt("criticalkv+snapkv@12:window=3,kernel=3", &layer);
            for (head, ours) in ours.iter().enumerate() {
                let expected = reference(&layer, head, &base.values[head], &base.forced[head], 12, 6);
                assert_eq!(ours, &expected, "seed {seed}");
            }
            assert_ne!(ours, after_prompt("snapkv@12:window=3,kernel=3", &layer), "seed {seed}");
        }
    }

    /// Budgets of the heads and the safe fifth of an even budget come from the scorer, as in CriticalAdaKV.
    #[test]
    fn with_adakv_in_front_budgets_come_from_the_scorer_alone() {
        for seed in 0..20 {
            let layer = random_layer(seed, (3, 2), 4, 30);
            let base = score("snapkv@12:window=2,kernel=3", &layer);
            let budgets: Vec<usize> =
                after_prompt("adakv+snapkv@12:window=2,kernel=3", &layer).iter().map(Vec::len).collect();
            assert_eq!(budgets.iter().sum::<usize>(), 36);
            for spec in ["adakv+criticalkv+snapkv@12:window=2,kernel=3", "criticalkv+adakv+snapkv@12:window=2,kernel=3"]
            {
                for (head, ours) in after_prompt(spec, &layer).iter().enumerate() {
                    let first = (budgets[head] / 2).max(12 / 5);
                    let (values, forced) = (&base.values[head], &base.forced[head]);
                    assert_eq!(ours, &reference(&layer, head, values, forced, budgets[head], first), "{spec} {seed}");
                }
            }
        }
    }

    #[test]
    fn all_in_the_first_stage_is_the_scorer_itself() {
        let layer = random_layer(1, (2, 2), 4, 20);
        assert_eq!(after_prompt("criticalkv:first=100%+tova@7", &layer), after_prompt("tova@7", &layer));
        assert_ne!(after_prompt("criticalkv:first=0%+tova@7", &layer), after_prompt("tova@7", &layer));
    }
}
