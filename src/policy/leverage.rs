//! Leverage: keys that no others stand for (Chari and Van Durme 2025, arXiv 2507.08143; one half of Compactor).
//!
//! Per kv head: keys before rope, their mean subtracted, times a sketch Φ [D, `sketch`] of signs ±1/√sketch → X.
//! Leverage of entry t: x_tᵀ(XᵀX + 0.01·I)⁻¹x_t. Score: its z-score over all kv heads of the layer together
//! (divisor N − 1). Nothing is protected. Once, after the prompt.
//!
//! kvpress draws Φ from a normal distribution, anew for each head and run. Signs from SplitMix64 are as good a sketch
//! and the same everywhere: entry (i, j) is the top bit of output i·sketch + j of the generator started at `seed`;
//! the reference numbers were made with seed 0. Solved in f64, where the f32 of kvpress loses three digits.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key};
use super::part::{LayerView, Moment, Part, Scorer, Scores};
use super::product::Matrix;
use super::quadratic::{Symmetric, wide};
use super::random::{INCREMENT, mix};
use super::registry::REGISTERED;
use super::rope::{Angles, plain_keys};

pub(super) static SKETCH: Key<Count> = Key::new("sketch", "columns of the sketch", Count(1, 1024), 48);
pub(super) static SEED: Key<Count> = Key::new("seed", "which of the sketches", Count(0, u64::MAX), 0).spelled_out();

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "leverage",
    family: Family::Scorer,
    idea: "keep keys that the others cannot stand for",
    paper: Some(Paper {
        title: "Compactor: Calibrated Query-Agnostic KV Cache Compression with Approximate Leverage Scores",
        arxiv: "2507.08143",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&SKETCH, &SEED],
    build: |spec| Part::scorer(Leverage { sketch: spec.get(&SKETCH) as usize, seed: spec.get(&SEED) }),
};

pub(super) struct Leverage {
    pub sketch: usize,
    pub seed: u64,
}

impl Scorer for Leverage {
    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let angles = Angles::of(view);
        let of = |kv_head| {
            self.of(wide(&plain_keys(view, &angles, kv_head, 0..view.positions(kv_head).len())), view.head_dim())
        };
        Some(Scores::free(z_scores((0..view.kv_heads()).map(of).collect())))
    }
}

impl Leverage {
    /// Leverage of each key before rope [n, dim] → [n].
    pub fn of(&self, mut keys: Vec<f64>, dim: usize) -> Vec<f64> {
        if keys.is_empty() {
            return Vec::new();
        }
        let signs = self.signs(dim);
        let mean = super::expected::mean(&keys, dim);
        keys.chunks_mut(dim).for_each(|k| k.iter_mut().zip(&mean).for_each(|(k, m)| *k -= m));
        let sketched = Matrix::of(&keys, dim).times(Matrix::of(&signs, self.sketch));
        let mut square = Symmetric::sum_of_squares(&sketched, self.sketch, |_| 1.0);
        square.add_to_diagonal(1e-2);
        match square.factor() {
            Some(factor) => factor.inverse_forms(&sketched),
            // keys so large that 0.01 is lost: no score is better than another
            None => vec![0.0; sketched.len() / self.sketch],
        }
    }

    /// Φ [dim, sketch].
    fn signs(&self, dim: usize) -> Vec<f64> {
        let size = (self.sketch as f64).sqrt().recip();
        let sign =
            |i: u64| if mix(self.seed.wrapping_add(i.wrapping_mul(INCREMENT))) >> 63 == 0 { size } else { -size };
        (0..(dim * self.sketch) as u64).map(sign).collect()
    }
}

/// (x − mean)/standard deviation over all kv heads of a layer.
pub(super) fn z_scores(scores: Vec<Vec<f64>>) -> Vec<Vec<f32>> {
    let all = || scores.iter().flatten();
    let n = all().count() as f64;
    let mean = all().sum::<f64>() / n;
    let deviation = (all().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)).sqrt().max(1e-6);
    scores.iter().map(|scores| scores.iter().map(|x| ((x - mean) / deviation) as f32).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{after_prompt, close, drawn, score};

    #[test]
    fn a_key_of_its_own_has_all_the_leverage() {
        let keys = vec![1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 9.0];
        let leverage = Leverage { sketch: 2, seed: 0 }.of(keys, 2);
        // rank one after centring: the odd one out carries ¾ of it
        assert!((leverage[3] - 0.75).abs() < 1e-3 && (leverage[0] - 1.0 / 12.0).abs() < 1e-3, "{leverage:?}");
    }

    #[test]
    fn leverages_add_up_to_the_rank() {
        let layer = drawn(20);
        let leverage = Leverage { sketch: 48, seed: 3 }.of(wide(&layer.keys[0]), 4);
        assert!((leverage.iter().sum::<f64>() - 4.0).abs() < 0.02, "{leverage:?}");
    }

    #[test]
    fn rope_does_not_count() {
        let plain = drawn(20);
        let mut layer = plain.clone();
        let turns = layer.turns.clone();
        let turn = |keys: &Vec<f32>| {
            (0..20).flat_map(|t| crate::policy::testing::turned(keys, t, &turns, t as f64).map(|x| x as f32)).collect()
        };
        layer.keys = plain.keys.iter().map(turn).collect();
        let unturned = score("leverage@5", &crate::policy::testing::Layer { turns: vec![0.0; 2], ..plain });
        let found = score("leverage@5", &layer);
        let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
        assert!(found.values.iter().flatten().zip(unturned.values.iter().flatten()).all(near));
    }

    #[test]
    fn z_scores_have_mean_zero_and_deviation_one_over_all_heads() {
        close(&z_scores(vec![vec![1.0, 2.0], vec![6.0]]).concat(), &[-0.755929, -0.377964, 1.133893]);
        assert_eq!(z_scores(vec![vec![2.0]]), [[0.0]]);
    }

    #[test]
    fn seeds_give_sketches_of_their_own() {
        assert_ne!(score("leverage@5:sketch=3", &drawn(20)), score("leverage@5:sketch=3,seed=1", &drawn(20)));
        assert_eq!(after_prompt("leverage@5", &drawn(20)).len(), 2);
        let signs = Leverage { sketch: 48, seed: 0 }.signs(64);
        assert!(signs.iter().sum::<f64>().abs() < 48.0, "{}", signs.iter().sum::<f64>());
    }
}
