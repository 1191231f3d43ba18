//! Drawing the next token. A draw depends on (seed, lane, step) alone, so that going back and forward again draws
//! the same token.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use super::frame::Candidate;
use crate::probe::distribution::{Logits, top_k};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampler {
    /// 0 = greedy.
    pub temperature: f32,
    /// 0 = off.
    pub top_k: usize,
    /// Smallest set of tokens with at least this mass; 1 = off.
    pub top_p: f32,
    /// Tokens below `min_p` times the largest probability are cut; 0 = off.
    pub min_p: f32,
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

/// Candidates that a frame shows.
const SHOWN: usize = 20;

impl Sampler {
    /// The token to feed next and the most probable candidates, best first.
    pub fn draw(&self, row: &Logits, lane: u32, step: u32) -> (u32, Vec<Candidate>) {
        let (logits, all) = (&row.values[..], &row.all);
        let mut shown: Vec<Candidate> = top_k(logits, SHOWN)
            .into_iter()
            .map(|(id, logit)| Candidate { id, logit, prob: (logit - all.lse).exp(), sampled_prob: 0.0 })
            .collect();
        if self.temperature <= 0.0 {
            shown[0].sampled_prob = 1.0;
            return (shown[0].id, shown);
        }
        let kept = self.truncated(logits);
        let total: f32 = kept.iter().map(|(_, p)| p).sum();
        for c in &mut shown {
            c.sampled_prob = kept.iter().find(|(id, _)| *id == c.id).map_or(0.0, |(_, p)| p / total);
        }
        let mut rng = ChaCha12Rng::seed_from_u64(self.seed);
        rng.set_stream(lane as u64);
        rng.set_word_pos(step as u128 * 16);
        let mut at = rng.random::<f32>() * total;
        for (id, p) in &kept {
            at -= p;
            if at < 0.0 {
                return (*id, shown);
            }
        }
        (kept[kept.len() - 1].0, shown)
    }

    /// (token, weight) after temperature, top-k, top-p and min-p, best first; never empty.
    fn truncated(&self, logits: &[f32]) -> Vec<(u32, f32)> {
        let k = if self.top_k == 0 { logits.len() } else { self.top_k };
        let mut kept: Vec<(u32, f32)> = if k < logits.len() {
            top_k(logits, k)
        } else {
            let mut all: Vec<(u32, f32)> = logits.iter().enumerate().map(|(i, &l)| (i as u32, l)).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            all
        };
        let best = kept[0].1;
        kept.iter_mut().for_each(|(_, l)| *l = ((*l - best) / self.temperature).exp());
        let total: f32 = kept.iter().map(|(_, p)| p).sum();
        if self.top_p < 1.0 {
            let mut mass = 0.0;
            let needed = kept.iter().take_while(|(_, p)| {
                let enough = mass >= self.top_p * total;
                mass += p;
                !enough
            });
            let n = needed.count().max(1);
            kept.truncate(n);
        }
        if self.min_p > 0.0 {
            let n = kept.iter().take_while(|(_, p)| *p >= self.min_p).count().max(1);
            kept.truncate(n);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(sampler: &Sampler, logits: &[f32], n: u32) -> Vec<u32> {
        let row = Logits::from(logits);
        (0..n).map(|step| sampler.draw(&row, 1, step).0).collect()
    }

    #[test]
    fn greedy_takes_the_largest_and_says_so() {
        let logits = [0.0, 3.0, 1.0];
        let (id, shown) = Sampler::default().draw(&Logits::from(&logits[..]), 0, 0);
        assert_eq!((id, shown[0].id, shown[0].sampled_prob, shown[1].sampled_prob), (1, 1, 1.0, 0.0));
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let sampler = Sampler { temperature: 1.0, seed: 7, ..Sampler::default() };
        let logits = [1.0f32.ln(), 2.0f32.ln(), 5.0f32.ln()];
        let ids = draws(&sampler, &logits, 20_000);
        for (id, p) in [(0, 0.125), (1, 0.25), (2, 0.625)] {
            let share = ids.iter().filter(|i| **i == id).count() as f64 / 20_000.0;
            assert!((share - p).abs() < 0.015, "{id}: {share}");
        }
        assert_eq!(ids, draws(&sampler, &logits, 20_000));
        assert_ne!(ids, draws(&Sampler { seed: 8, ..sampler }, &logits, 20_000));
    }

    #[test]
    fn truncation_cuts_what_it_should() {
        let logits = [4.0f32.ln(), 3.0f32.ln(), 2.0f32.ln(), 1.0f32.ln()];
        let only = |sampler: Sampler| {
            let mut ids = draws(&Sampler { temperature: 1.0, ..sampler }, &logits, 2000);
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(only(Sampler { top_k: 2, ..Sampler::default() }), [0, 1]);
        assert_eq!(only(Sampler { top_p: 0.65, ..Sampler::default() }), [0, 1]);
        assert_eq!(only(Sampler { top_p: 0.75, ..Sampler::default() }), [0, 1, 2]);
        assert_eq!(only(Sampler { min_p: 0.6, ..Sampler::default() }), [0, 1]);
        assert_eq!(only(Sampler { top_p: 0.0, ..Sampler::default() }), [0]);
    }
}
