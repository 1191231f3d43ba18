//! CapKV: entries that carry what the others cannot (Tang et al. 2026, arXiv 2604.25975).
//!
//! Per query head, over the entries from `sinks` on: w_t = exp(`tau`·(cos(q̄, k_t) − largest cosine)), q̄ = the mean
//! query before rope from position `sinks` on, turned by the mean rotation of the next `future` positions;
//! M = I + Σ (w_t + 1e-6)·v_t v_tᵀ; score w_t·v_tᵀM⁻¹v_t, mean over the query heads of a kv head. Sinks stay, the
//! newest are not protected. Once, after the prompt; it reads all its queries. This is kvpress' formula with its
//! defaults; the paper takes q̄·k_t as it is, without lengths divided out, and knows no rope.

use linkme::distributed_slice;
use rayon::prelude::*;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::expected::{FUTURE, mean};
use super::key::{Count, Key, Real};
use super::part::{LayerView, Moment, Part, Scorer, Scores};
use super::quadratic::{Symmetric, dot, wide};
use super::registry::REGISTERED;
use super::rope::{Angles, mean_rotation, plain_queries, rotated};

static TAU: Key<Real> = Key::new("tau", "how sharply the likeness to the mean query counts", Real(0.0, 1000.0), 5.0);
static SINKS: Key<Count> =
    Key::new("sinks", "first positions that always stay; their queries do not count", Count(0, 1_000_000), 4);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "cap",
    family: Family::Scorer,
    idea: "keep values that the others cannot stand for, where queries look",
    paper: Some(Paper {
        title: "Rethinking KV Cache Eviction via a Unified Information-Theoretic Objective",
        arxiv: "2604.25975",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&TAU, &FUTURE, &SINKS],
    build: |spec| {
        Part::scorer(Cap { tau: spec.get(&TAU), future: spec.get(&FUTURE) as u32, sinks: spec.get(&SINKS) as usize })
    },
};

struct Cap {
    tau: f64,
    future: u32,
    sinks: usize,
}

impl Scorer for Cap {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        prompt
    }

    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let (dim, end) = (view.head_dim(), view.newest() + 1);
        let rotation = mean_rotation(view.turns(), end, self.future);
        let angles = Angles::of(view);
        let score = |kv_head: usize| {
            let sinks = view.positions(kv_head).partition_point(|&p| (p as usize) < self.sinks);
            let mut scores = vec![0.0; view.positions(kv_head).len()];
            let mut keys = wide(&view.keys(kv_head)[sinks * dim..]);
            keys.chunks_exact_mut(dim).for_each(normalise);
            let values = wide(&view.values(kv_head)[sinks * dim..]);
            let anchor = |head| {
                let mean = mean(&wide(&plain_queries(view, &angles, head, self.sinks as u32..end)), dim);
                let mut anchor: Vec<f64> = (0..dim).map(|i| rotated(&rotation, i, |j| mean[j])).collect();
                normalise(&mut anchor);
                anchor
            };
            if self.sinks >= end as usize || keys.is_empty() {
                return scores;
            }
            let heads = kv_head * view.group()..(kv_head + 1) * view.group();
            let anchors: Vec<Vec<f64>> = heads.map(anchor).collect();
            let heads: Vec<Vec<f64>> = anchors.par_iter().map(|anchor| self.of(anchor, &keys, &values)).collect();
            for (i, score) in scores[sinks..].iter_mut().enumerate() {
                *score = (heads.iter().map(|head| head[i]).sum::<f64>() / heads.len() as f64) as f32;
            }
            scores
        };
        Some(Scores::free((0..view.kv_heads()).map(score).collect()).keep_first(self.sinks, view))
    }
}

impl Cap {
    /// Scores for one query head: `anchor` [D] and `keys` [n, D] of length one, `values` [n, D] → [n].
    fn of(&self, anchor: &[f64], keys: &[f64], values: &[f64]) -> Vec<f64> {
        let dim = anchor.len();
        let likeness: Vec<f64> = keys.chunks_exact(dim).map(|key| dot(anchor, key).clamp(-1.0, 1.0)).collect();
        let highest = likeness.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = likeness.iter().map(|x| (self.tau * (x - highest)).exp()).collect();
        let mut capacity = Symmetric::sum_of_squares(values, dim, |t| weights[t] + 1e-6);
        capacity.add_to_diagonal(1.0);
        let Some(factor) = capacity.factor() else { return vec![f64::NAN; weights.len()] };
        weights.iter().zip(factor.inverse_forms(values)).map(|(weight, form)| weight * form).collect()
    }
}

/// To length one; zeros stay zeros.
fn normalise(x: &mut [f64]) {
    let length = dot(x, x).sqrt().max(1e-12);
    x.iter_mut().for_each(|x| *x /= length);
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, drawn, score, turned};

    /// x with Mx = b, by elimination without pivots.
    fn solve(mut m: Vec<[f64; 4]>, mut b: [f64; 4]) -> [f64; 4] {
        for i in 0..4 {
            for r in (0..4).filter(|&r| r != i) {
                let factor = m[r][i] / m[i][i];
                let row = m[i];
                m[r].iter_mut().zip(row).for_each(|(x, y)| *x -= factor * y);
                b[r] -= factor * b[i];
            }
        }
        std::array::from_fn(|i| b[i] / m[i][i])
    }

    #[test]
    fn equals_the_definition() {
        let layer = drawn(11);
        let scores = score("cap@6:tau=3,future=5,sinks=2", &layer);
        for kv_head in 0..2 {
            let row = |x: &[f32], t: usize| -> [f64; 4] { std::array::from_fn(|i| x[t * 4 + i] as f64) };
            let (keys, values) = (&layer.keys[kv_head], &layer.values[kv_head]);
            let mut expected = vec![0.0f32; 9];
            for head in [0, 1] {
                let mut anchor = [0.0; 4];
                for (t, p) in (2..11).flat_map(|t| (11..16).map(move |p| (t, p))) {
                    let ahead = turned(&layer.queries[kv_head * 2 + head], t, &layer.turns, p as f64 - t as f64);
                    anchor.iter_mut().zip(ahead).for_each(|(a, x)| *a += x);
                }
                let length = |x: [f64; 4]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
                let product = |a: [f64; 4], b: [f64; 4]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let cosine = |t| product(anchor, row(keys, t)) / length(anchor) / length(row(keys, t));
                let highest = (2..11).map(cosine).fold(-1.0, f64::max);
                let weight = |t| (3.0 * (cosine(t) - highest)).exp();
                let cell = |i: usize, j: usize| {
                    let sum: f64 = (2..11).map(|t| (weight(t) + 1e-6) * row(values, t)[i] * row(values, t)[j]).sum();
                    sum + if i == j { 1.0 } else { 0.0 }
                };
                let matrix: Vec<[f64; 4]> = (0..4).map(|i| std::array::from_fn(|j| cell(i, j))).collect();
                for t in 2..11 {
                    let carried = product(row(values, t), solve(matrix.clone(), row(values, t)));
                    expected[t - 2] += (weight(t) * carried / 2.0) as f32;
                }
            }
            close(&scores.values[kv_head][2..], &expected);
            assert!(scores.forced[kv_head][..2].iter().all(|f| *f));
        }
    }

    #[test]
    fn a_prompt_of_sinks_keeps_the_newest_of_them() {
        assert_eq!(after_prompt("cap@3:sinks=100", &drawn(5)), [[2, 3, 4], [2, 3, 4]]);
    }
}
