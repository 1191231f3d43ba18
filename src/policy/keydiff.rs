//! KeyDiff: keep keys unlike the average key (Park et al. 2025, arXiv 2504.15364).
//!
//! Score of entry t, per kv head: −cos(k_t, m), m = mean over the held entries of k/‖k‖ (keys after rope); the
//! highest n stay. Nothing is protected: sinks survive because they are outliers. Once, after the prompt, as in
//! kvpress; the authors cut after every block of 128 prompt tokens, which gives other sets. `every=step` scores
//! all held keys again after each token.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Key, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores};
use super::registry::REGISTERED;

static EVERY: Key<Choice<Schedule>> = every(Schedule::AfterPrefill);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "keydiff",
    family: Family::Scorer,
    idea: "keep keys that differ most from the average key",
    paper: Some(Paper {
        title: "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in \
                Resource-Constrained Environments",
        arxiv: "2504.15364",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&EVERY],
    build: |spec| Part::scorer(KeyDiff { schedule: spec.get(&EVERY) }),
};

struct KeyDiff {
    schedule: Schedule,
}

impl Scorer for KeyDiff {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let dim = view.head_dim();
        let unlike = |kv_head| {
            let keys = view.keys(kv_head);
            let norms = view.key_norms(kv_head);
            let mut mean = vec![0.0f64; dim];
            for (key, norm) in keys.chunks_exact(dim).zip(&norms) {
                let norm = norm.max(1e-12) as f64;
                mean.iter_mut().zip(key).for_each(|(m, &k)| *m += k as f64 / norm);
            }
            // its length changes no order, but a zero mean must not divide
            let length = mean.iter().map(|m| m * m).sum::<f64>().sqrt().max(1e-8 * norms.len() as f64);
            let cosine = |(key, norm): (&[f32], &f32)| {
                let product: f64 = mean.iter().zip(key).map(|(m, &k)| m * k as f64).sum();
                (product / (length * norm.max(1e-8) as f64)) as f32
            };
            keys.chunks_exact(dim).zip(&norms).map(|key| -cosine(key)).collect()
        };
        Some(Scores::free((0..view.kv_heads()).map(unlike).collect()))
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, score, toy};

    #[test]
    fn cosines_of_the_toy() {
        let expected = [-0.613398, -0.797236, -0.514064, -0.371372, -0.470706, -0.909187];
        close(&score("keydiff@3", &toy()).values[0], &expected);
        assert_eq!(after_prompt("keydiff@3", &toy()), [[2, 3, 4]]);
    }

    #[test]
    fn the_mean_is_that_of_what_is_held() {
        let mut thinner = toy();
        thinner.held[0] = vec![0, 2];
        // two unit vectors at right angles: each at 45° to their mean
        close(&score("keydiff@1", &thinner).values[0], &[-std::f32::consts::FRAC_1_SQRT_2; 2]);
    }

    #[test]
    fn keys_of_zeros_are_no_numbers_to_divide_by() {
        let mut layer = toy();
        layer.keys[0].fill(0.0);
        assert_eq!(score("keydiff@1", &layer).values[0], [0.0; 6]);
    }
}
