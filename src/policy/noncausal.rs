//! Non-causal attention: what a chunk's queries look at, later keys included (Chari and Van Durme 2025, arXiv
//! 2507.08143; the other half of Compactor).
//!
//! Entries in chunks of `chunk`; per query head, softmax of q·k (no 1/√D) over all keys of the query's chunk, before
//! and after it, summed over the queries; mean over the query heads of a kv head, times ‖v_t‖₂, mean with both
//! neighbours (a missing one counts as 0). Score: the z-score of that over all kv heads of the layer (divisor N − 1).
//! Nothing is protected. Once, after the prompt; it reads all its queries.
//!
//! kvpress fills the last chunk with zeros, and they take part: a key of zeros gets logit −1e-9 where −1e9 was meant,
//! and a query of zeros adds 1/chunk to every key. That is the default here, `padding=none` leaves them out.

use std::ops::Range;

use linkme::distributed_slice;
use rayon::prelude::*;

use super::registry::REGISTERED;
use crate::simd::{self, vectorized};

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key};
use super::leverage::z_scores;
use super::part::{LayerView, Moment, Part, Scorer, Scores};
use super::product::Matrix;

pub(super) static CHUNK: Key<Count> = Key::new("chunk", "entries that see each other", Count(1, 65_536), 256);
pub(super) static PADDING: Key<Choice<bool>> = Key::new(
    "padding",
    "whether zeros fill the last chunk and take part",
    Choice(&[("zero", true), ("none", false)]),
    true,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "noncausal",
    family: Family::Scorer,
    idea: "keep what queries of the same chunk would look at, before or after them",
    paper: Some(Paper {
        title: "Compactor: Calibrated Query-Agnostic KV Cache Compression with Approximate Leverage Scores",
        arxiv: "2507.08143",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&CHUNK, &PADDING],
    build: |spec| Part::scorer(NonCausal { chunk: spec.get(&CHUNK) as usize, padding: spec.get(&PADDING) }),
};

pub(super) struct NonCausal {
    pub chunk: usize,
    pub padding: bool,
}

impl Scorer for NonCausal {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        prompt
    }

    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let of = |kv_head| self.of(view, kv_head, 0..view.positions(kv_head).len());
        Some(Scores::free(z_scores((0..view.kv_heads()).map(of).collect())))
    }
}

impl NonCausal {
    /// Before the z-score: slots `slots` of a kv head alone [slots].
    pub fn of(&self, view: &dyn LayerView, kv_head: usize, slots: Range<usize>) -> Vec<f64> {
        let (dim, group) = (view.head_dim(), view.group());
        let held = slots.start * dim..slots.end * dim;
        let keys = &view.keys(kv_head)[held.clone()];
        let heads = kv_head * group..(kv_head + 1) * group;
        let queries: Vec<Vec<f32>> = heads.map(|head| queries(view, head, slots.clone())).collect();
        let sums: Vec<Vec<f64>> = queries.par_iter().map(|queries| self.received(queries, keys, dim)).collect();
        let values = &view.values(kv_head)[held];
        let norm = |v: &[f32]| v.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt();
        let carried = values.chunks_exact(dim).enumerate().map(|(t, v)| {
            let mean = sums.iter().map(|sums| sums[t]).sum::<f64>() / group as f64;
            mean * norm(v)
        });
        let carried: Vec<f64> = carried.collect();
        let near = |t: usize| &carried[t.saturating_sub(1)..(t + 2).min(carried.len())];
        (0..carried.len()).map(|t| near(t).iter().sum::<f64>() / 3.0).collect()
    }

    /// Attention that each key receives from the queries of its chunk: `queries` and `keys` [n, dim] → [n].
    fn received(&self, queries: &[f32], keys: &[f32], dim: usize) -> Vec<f64> {
        let mut sums = Vec::with_capacity(keys.len() / dim);
        for (queries, keys) in queries.chunks(self.chunk * dim).zip(keys.chunks(self.chunk * dim)) {
            let n = keys.len() / dim;
            let zeros = if self.padding { self.chunk - n } else { 0 };
            let mut received = vec![zeros as f64 / self.chunk as f64; n];
            let zero = if zeros > 0 { -1e-9 } else { f32::NEG_INFINITY };
            let mut logits = Matrix::of(queries, dim).times(Matrix::of(keys, dim).turned());
            vectorized(
                #[inline(always)]
                || {
                    for row in logits.chunks_exact_mut(n) {
                        let highest = simd::max(row).max(zero);
                        row.iter_mut().for_each(|x| *x = simd::exp(*x - highest));
                        let sum = simd::sum(row) + zeros as f32 * simd::exp(zero - highest);
                        received.iter_mut().zip(&*row).for_each(|(r, x)| *r += (x / sum) as f64);
                    }
                },
            );
            sums.extend(received);
        }
        sums
    }
}

/// Queries at the positions of slots `slots` [slots, D].
fn queries(view: &dyn LayerView, head: usize, slots: Range<usize>) -> Vec<f32> {
    let positions = &view.positions(head / view.group())[slots];
    let (Some(&first), Some(&last)) = (positions.first(), positions.last()) else { return Vec::new() };
    let all = view.queries(head, first..last + 1);
    let row = |&p: &u32| &all[(p - first) as usize * view.head_dim()..][..view.head_dim()];
    positions.iter().flat_map(row).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{close, drawn, score};

    /// Σ over the queries of the chunk, straight from the definition.
    fn slow(queries: &[f32], keys: &[f32], chunk: usize, padding: bool) -> Vec<f64> {
        let n = keys.len() / 4;
        let product = |i: usize, t: usize| (0..4).map(|c| (queries[i * 4 + c] * keys[t * 4 + c]) as f64).sum::<f64>();
        let received = |t: usize| {
            let first = t / chunk * chunk;
            let zeros = if padding { (first + chunk).saturating_sub(n) } else { 0 };
            let share = |i: usize| {
                let others: f64 = (first..(first + chunk).min(n)).map(|u| product(i, u).exp()).sum();
                product(i, t).exp() / (others + zeros as f64)
            };
            (first..(first + chunk).min(n)).map(share).sum::<f64>() + zeros as f64 / chunk as f64
        };
        (0..n).map(received).collect()
    }

    #[test]
    fn equals_the_definition() {
        let layer = drawn(11);
        for (keys, chunk, padding) in [("", 256, true), (":chunk=4", 4, true), (":chunk=4,padding=none", 4, false)] {
            let smooth = |kv_head: usize| {
                let heads = [0, 1].map(|h| slow(&layer.queries[kv_head * 2 + h], &layer.keys[kv_head], chunk, padding));
                let norm =
                    |t: usize| layer.values[kv_head][t * 4..][..4].iter().map(|&v| (v * v) as f64).sum::<f64>().sqrt();
                let carried: Vec<f64> = (0..11).map(|t| (heads[0][t] + heads[1][t]) / 2.0 * norm(t)).collect();
                let at = |t: i32| carried.get(t as usize).copied().unwrap_or(0.0);
                (0..11).map(|t| (at(t - 1) + at(t) + at(t + 1)) / 3.0).collect()
            };
            let expected = z_scores(vec![smooth(0), smooth(1)]);
            close(&score(&format!("noncausal@5{keys}"), &layer).values.concat(), &expected.concat());
        }
    }

    #[test]
    fn only_what_is_held_takes_part() {
        let mut thinner = drawn(11);
        thinner.held = vec![vec![1, 2, 6], vec![0, 5, 10]];
        let non_causal = NonCausal { chunk: 8, padding: true };
        let rows = |x: &[f32]| [5, 10].iter().flat_map(|t| x[t * 4..][..4].to_vec()).collect::<Vec<f32>>();
        assert_eq!(queries(&thinner, 2, 1..3), rows(&thinner.queries[2]));
        assert_eq!(non_causal.of(&thinner, 1, 1..3).len(), 2);
    }

    #[test]
    fn logits_far_below_zero_are_distributions_too() {
        let non_causal = NonCausal { chunk: 2, padding: true };
        let received = non_causal.received(&[-30.0, -30.0], &[30.0, 30.0], 1);
        assert!(received.iter().all(|&r| (r - 1.0).abs() < 1e-6), "{received:?}");
    }
}
