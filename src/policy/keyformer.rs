//! Keyformer: attention with Gumbel noise, so that what leaves is not always the same (Adnan et al. 2024, arXiv
//! 2403.09054).
//!
//! Per query head and prompt query i: y = softmax((x + g)/`tau`) over the entries that i sees, x the attention logits,
//! g = −ln(−ln u) noise; score of entry t: Σ_i y_t, mean over the query heads of a kv head. The newest `recent` part
//! of the budget stays. u is a pure function of (seed, layer, query head, both positions).
//!
//! The authors go on while decoding with τ from 1 to 2, know multi-head attention only, and add noise to masked
//! entries too. Here once, after the prompt: noise is drawn per pair, so every row is looked at, while the prompt is read.

use linkme::distributed_slice;
use std::sync::Arc;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key, OfBudget, Real};
use super::part::{LayerView, Moment, Part, Scorer, Scores, group_mean};
use super::random::mix;
use super::registry::REGISTERED;
use super::watch::{RowAt, Watch};
use crate::simd::{exp, ln, sum, vectorized};

static RECENT: Key<OfBudget> =
    Key::new("recent", "part of the budget that belongs to the newest entries", OfBudget, Amount::percent(30));
static TAU: Key<Real> = Key::new("tau", "temperature of the noisy softmax", Real(0.01, 100.0), 1.0);
static SEED: Key<Count> = Key::new("seed", "which of the noises", Count(0, u64::MAX), 0).spelled_out();

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "keyformer",
    family: Family::Scorer,
    idea: "keep what received most attention under random noise, and the most recent tokens",
    paper: Some(Paper {
        title: "Keyformer: KV Cache Reduction through Key Tokens Selection for Efficient Generative Inference",
        arxiv: "2403.09054",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&RECENT, &TAU, &SEED],
    build: |spec| {
        Part::scorer(Keyformer { recent: spec.get(&RECENT), tau: spec.get(&TAU) as f32, seed: spec.get(&SEED) })
    },
};

#[derive(Clone, Copy)]
struct Keyformer {
    recent: Amount,
    tau: f32,
    seed: u64,
}

impl Scorer for Keyformer {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        prompt
    }

    fn watch(&self) -> Option<Arc<dyn Watch>> {
        Some(Arc::new(*self))
    }

    fn score(&self, at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let received = group_mean(view, |head| view.watched(at.layer, head, self));
        Some(Scores::free(received).keep_newest(self.recent.of(budget)))
    }
}

impl Watch for Keyformer {
    fn name(&self) -> String {
        format!("keyformer tau={} seed={}", self.tau, self.seed)
    }

    fn row(&self, at: RowAt, positions: &[u32], row: &mut [f32], sums: &mut [f32]) {
        let stream = mix(mix(mix(mix(self.seed) ^ at.layer as u64) ^ at.head as u64) ^ at.position as u64);
        vectorized(
            #[inline(always)]
            || {
                self.disturb(row, positions, stream);
                sums.iter_mut().zip(&*row).for_each(|(sum, y)| *sum += y);
            },
        );
    }
}

impl Keyformer {
    /// Probabilities p [n] become softmax((ln p + g)/τ): ln p differs from the logits by a constant, which a softmax
    /// does not see, and e^g = 1/(−ln u).
    #[inline(always)]
    fn disturb(&self, row: &mut [f32], positions: &[u32], stream: u64) {
        for (p, &position) in row.iter_mut().zip(positions) {
            // strictly between 0 and 1
            let u = ((mix(stream ^ position as u64) >> 41) as i32 as f32 + 0.5) / (1u32 << 23) as f32;
            *p /= -ln(u);
        }
        if self.tau != 1.0 {
            let power = self.tau.recip();
            row.iter_mut().for_each(|y| *y = if *y > f32::MIN_POSITIVE { exp(ln(*y) * power) } else { 0.0 });
        }
        let sum = sum(row);
        if sum > 0.0 {
            row.iter_mut().for_each(|y| *y /= sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{after_prompt, close, mean, score, toy};

    #[test]
    fn equals_the_noisy_softmax_over_logits() {
        let layer = toy();
        let noisy = |head: usize| -> [f32; 6] {
            let mut sums = [0.0; 6];
            for i in 0..6 {
                let stream = mix(mix(mix(mix(7)) ^ head as u64) ^ i as u64);
                let power = |t: usize| {
                    let product: f32 = (0..4).map(|c| layer.queries[head][i * 4 + c] * layer.keys[0][t * 4 + c]).sum();
                    let u = ((mix(stream ^ t as u64) >> 41) as f32 + 0.5) / 8_388_608.0;
                    ((product / 2.0 - (-u.ln()).ln()) / 1.5).exp()
                };
                let sum: f32 = (0..=i).map(power).sum();
                (0..=i).for_each(|t| sums[t] += power(t) / sum);
            }
            sums
        };
        let found = score("keyformer@4:tau=1.5,seed=7", &layer).values[0].clone();
        close(&found, &mean(&[noisy(0), noisy(1)]));
        // every row is a distribution
        assert!((found.iter().sum::<f32>() - 6.0).abs() < 1e-5);
    }

    #[test]
    fn noise_has_its_own_order_and_the_recent_stay() {
        assert_ne!(score("keyformer@4", &toy()), score("keyformer@4:seed=1", &toy()));
        assert_eq!(after_prompt("keyformer@4:recent=75%", &toy())[0][1..], [3, 4, 5]);
    }
}
