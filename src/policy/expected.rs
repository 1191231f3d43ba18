//! ExpectedAttention: the attention that queries to come will pay (Devoto et al. 2025, arXiv 2510.00636).
//!
//! Queries before rope at positions from `sinks` on have mean μ and covariance Σ (N in the divisor) per query head.
//! With R̄ the mean rotation of positions T … T + `future` − 1, a query to come is taken as normal with μ ← R̄μ,
//! Σ ← R̄ΣR̄ᵀ, so that E[exp(q·k/√D)] = exp(k·μ/√D + kᵀΣk/2D). Softmax over the entries from `sinks` on, mean over
//! the query heads of a kv head, plus `epsilon`, times ‖v_t‖₂. Sinks stay; the newest entries are not protected.
//! Once, after the prompt; it reads all its queries. Formula and defaults are kvpress'. √D is the model's own scale.

use linkme::distributed_slice;
use rayon::prelude::*;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, Real, SWITCH};
use super::part::{LayerView, Moment, Part, Scorer, Scores};
use super::quadratic::{Symmetric, dot, wide};
use super::registry::REGISTERED;
use super::rope::{Angles, mean_rotation, plain_queries, rotated};

pub(super) static FUTURE: Key<Count> =
    Key::new("future", "positions to come whose rotations are averaged", Count(1, 100_000), 512);
static SINKS: Key<Count> =
    Key::new("sinks", "first positions that always stay; their queries do not count", Count(0, 1_000_000), 4);
static COVARIANCE: Key<Choice<bool>> = Key::new("covariance", "the spread of the queries counts", SWITCH, true);
static VNORM: Key<Choice<bool>> =
    Key::new("vnorm", "scores are multiplied with the L2 norm of the value", SWITCH, true);
static EPSILON: Key<Real> = Key::new("epsilon", "added before the value's norm is multiplied", Real(0.0, 1.0), 0.0);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "expected",
    family: Family::Scorer,
    idea: "keep what future queries, guessed from the prompt's, will attend to",
    paper: Some(Paper {
        title: "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution",
        arxiv: "2510.00636",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&FUTURE, &SINKS, &COVARIANCE, &VNORM, &EPSILON],
    build: |spec| {
        Part::scorer(Expected {
            future: spec.get(&FUTURE) as u32,
            sinks: spec.get(&SINKS) as usize,
            covariance: spec.get(&COVARIANCE),
            vnorm: spec.get(&VNORM),
            epsilon: spec.get(&EPSILON),
        })
    },
};

struct Expected {
    future: u32,
    sinks: usize,
    covariance: bool,
    vnorm: bool,
    epsilon: f64,
}

impl Scorer for Expected {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        prompt
    }

    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let (dim, end) = (view.head_dim(), view.newest() + 1);
        let rotation = mean_rotation(view.turns(), end, self.future);
        let scale = view.scale() as f64;
        let angles = Angles::of(view);
        let score = |kv_head: usize| {
            let sinks = view.positions(kv_head).partition_point(|&p| (p as usize) < self.sinks);
            let mut scores = vec![0.0; view.positions(kv_head).len()];
            let keys = wide(&view.keys(kv_head)[sinks * dim..]);
            let heads = kv_head * view.group()..(kv_head + 1) * view.group();
            let queries: Vec<Vec<f64>> = heads
                .map(|head| wide(&plain_queries(view, &angles, head, (self.sinks as u32).min(end)..end)))
                .collect();
            if queries[0].is_empty() {
                return scores;
            }
            let expect = |queries: Vec<f64>| {
                let (mean, covariance) = statistics(queries, dim, self.covariance);
                let mean: Vec<f64> = (0..dim).map(|i| rotated(&rotation, i, |j| mean[j])).collect();
                let covariance = covariance.map(|c| turned(&c, &rotation, dim));
                let mut logits: Vec<f64> = keys.chunks_exact(dim).map(|k| dot(&mean, k) * scale).collect();
                if let Some(covariance) = covariance {
                    let spreads = covariance.forms(&keys);
                    logits.iter_mut().zip(spreads).for_each(|(logit, s)| *logit += s * scale * scale / 2.0);
                }
                softmax(logits)
            };
            let heads: Vec<Vec<f64>> = queries.into_par_iter().map(expect).collect();
            let values = view.values(kv_head);
            for (i, score) in scores[sinks..].iter_mut().enumerate() {
                let mean = heads.iter().map(|head| head[i]).sum::<f64>() / heads.len() as f64;
                let square = |&x: &f32| x as f64 * x as f64;
                let norm = || values[(sinks + i) * dim..][..dim].iter().map(square).sum::<f64>().sqrt();
                *score = if self.vnorm { (mean + self.epsilon) * norm() } else { mean } as f32;
            }
            scores
        };
        Some(Scores::free((0..view.kv_heads()).map(score).collect()).keep_first(self.sinks, view))
    }
}

/// Mean [dim] and, if asked for, covariance of rows [n, dim], n ≥ 1.
fn statistics(mut rows: Vec<f64>, dim: usize, covariance: bool) -> (Vec<f64>, Option<Symmetric>) {
    let n = (rows.len() / dim) as f64;
    let mean = mean(&rows, dim);
    if !covariance {
        return (mean, None);
    }
    rows.chunks_mut(dim).for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m));
    let covariance = Symmetric::sum_of_squares(&rows, dim, |_| 1.0 / n);
    (mean, Some(covariance))
}

/// Mean of rows [n, dim] → [dim].
pub(super) fn mean(rows: &[f64], dim: usize) -> Vec<f64> {
    let mut mean = vec![0.0; dim];
    rows.chunks_exact(dim).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, x)| *m += x));
    mean.iter_mut().for_each(|m| *m /= (rows.len() / dim) as f64);
    mean
}

/// RΣRᵀ, R given by the mean (cosine, sine) of each channel pair.
fn turned(covariance: &Symmetric, rotation: &[(f64, f64)], dim: usize) -> Symmetric {
    let entry = |i, j| rotated(rotation, i, |i| rotated(rotation, j, |j| covariance.at(i, j)));
    Symmetric::of(dim, entry)
}

fn softmax(mut logits: Vec<f64>) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter_mut().for_each(|x| *x = (*x - highest).exp());
    let sum: f64 = logits.iter().sum();
    logits.iter_mut().for_each(|x| *x /= sum);
    logits
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{Layer, after_prompt, close, drawn, score, turned};

    /// E[exp] of the definition, with every rotation a matrix of its own.
    fn slow(layer: &Layer, head: usize, future: u32, sinks: usize, covariance: bool) -> Vec<f64> {
        let prompt = layer.newest as usize + 1;
        let rotate = |x: [f64; 4]| {
            let mut mean = [0.0; 4];
            for p in prompt as u32..prompt as u32 + future {
                let x = turned(&x.map(|x| x as f32), 0, &layer.turns, p as f64);
                (0..4).for_each(|i| mean[i] += x[i] / future as f64);
            }
            mean
        };
        let queries: Vec<[f64; 4]> =
            (sinks..prompt).map(|i| turned(&layer.queries[head], i, &layer.turns, -(i as f64))).map(rotate).collect();
        let n = queries.len() as f64;
        let mean: Vec<f64> = (0..4).map(|i| queries.iter().map(|q| q[i]).sum::<f64>() / n).collect();
        let keys = layer.keys[head / 2].chunks(4).skip(sinks);
        let logit = |k: &[f32]| {
            let along = |q: &[f64]| q.iter().zip(k).map(|(q, &k)| q * k as f64).sum::<f64>() / 2.0;
            // kᵀΣk/D is the variance of q·k/√D
            let variance = queries.iter().map(|q| (along(q) - along(&mean)).powi(2)).sum::<f64>() / n;
            (along(&mean) + if covariance { variance / 2.0 } else { 0.0 }).exp()
        };
        let powers: Vec<f64> = keys.map(logit).collect();
        let sum: f64 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    }

    #[test]
    fn equals_the_definition() {
        let layer = drawn(12);
        for (keys, sinks, future, covariance, epsilon, vnorm) in [
            ("", 4, 512, true, 0.0, true),
            (":covariance=off,vnorm=off", 4, 512, false, 0.0, false),
            (":future=3,sinks=0,epsilon=0.01", 0, 3, true, 0.01, true),
        ] {
            let scores = score(&format!("expected@6{keys}"), &layer);
            for kv_head in 0..2 {
                let heads = [0, 1].map(|h| slow(&layer, kv_head * 2 + h, future, sinks, covariance));
                let norm = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>().sqrt() as f64;
                let norms = layer.values[kv_head].chunks(4).skip(sinks).map(norm);
                let mean = heads[0].iter().zip(&heads[1]).map(|(a, b)| (a + b) / 2.0);
                let slow = mean.zip(norms).map(|(m, v)| if vnorm { (m + epsilon) * v } else { m } as f32);
                close(&scores.values[kv_head][sinks..], &slow.collect::<Vec<_>>());
                assert_eq!(scores.forced[kv_head].iter().filter(|f| **f).count(), sinks);
            }
        }
    }

    #[test]
    fn a_prompt_of_sinks_keeps_the_newest_of_them() {
        assert_eq!(after_prompt("expected@3:sinks=100", &drawn(5)), [[2, 3, 4], [2, 3, 4]]);
    }
}
