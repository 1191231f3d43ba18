//! Compactor: leverage of the keys and non-causal attention together (Chari and Van Durme 2025, arXiv 2507.08143).
//!
//! Over the entries but the first `sinks` positions and the newest `recent`, which stay: score = `blend` · leverage +
//! non-causal attention, both z-scores over all kv heads of the layer (see `leverage` and `noncausal`). `blend=auto`
//! is the share that leaves, 1 − budget/T, as in kvpress (there the ratio as asked for, before rounding to tokens).
//! Once, after the prompt; it reads all its queries. The authors solve with a singular value decomposition.

use std::ops::Range;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, Count, Key, Real};
use super::leverage::{Leverage, SEED, SKETCH, z_scores};
use super::noncausal::{CHUNK, NonCausal, PADDING};
use super::part::{LayerView, Moment, Part, Scorer, Scores};
use super::quadratic::wide;
use super::registry::REGISTERED;
use super::rope::{Angles, plain_keys};

static BLEND: Key<Auto<Real>> =
    Key::new("blend", "how much the leverage counts", Auto(Real(0.0, 100.0), "the share that leaves"), None);
static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(0, 1_000_000), 8);
static RECENT: Key<Count> = Key::new("recent", "newest entries that always stay", Count(0, 1_000_000), 4);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "compactor",
    family: Family::Scorer,
    idea: "keep keys that the others cannot stand for, and what nearby queries look at",
    paper: Some(Paper {
        title: "Compactor: Calibrated Query-Agnostic KV Cache Compression with Approximate Leverage Scores",
        arxiv: "2507.08143",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&BLEND, &SINKS, &RECENT, &CHUNK, &PADDING, &SKETCH, &SEED],
    build: |spec| {
        Part::scorer(Compactor {
            blend: spec.get(&BLEND),
            sinks: spec.get(&SINKS) as usize,
            recent: spec.get(&RECENT) as usize,
            attention: NonCausal { chunk: spec.get(&CHUNK) as usize, padding: spec.get(&PADDING) },
            leverage: Leverage { sketch: spec.get(&SKETCH) as usize, seed: spec.get(&SEED) },
        })
    },
};

struct Compactor {
    blend: Option<f64>,
    sinks: usize,
    recent: usize,
    attention: NonCausal,
    leverage: Leverage,
}

impl Scorer for Compactor {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        prompt
    }

    fn score(&self, at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let leaving = 1.0 - budget.min(at.prompt) as f64 / at.prompt.max(1) as f64;
        let blend = self.blend.unwrap_or(leaving) as f32;
        let middle = |kv_head: usize| -> Range<usize> {
            let positions = view.positions(kv_head);
            let first = positions.partition_point(|&p| (p as usize) < self.sinks);
            first..positions.len().saturating_sub(self.recent).max(first)
        };
        let heads = 0..view.kv_heads();
        let angles = Angles::of(view);
        let keys = |kv_head| wide(&plain_keys(view, &angles, kv_head, middle(kv_head)));
        let leverage = z_scores(heads.clone().map(|g| self.leverage.of(keys(g), view.head_dim())).collect());
        let attention = z_scores(heads.clone().map(|g| self.attention.of(view, g, middle(g))).collect());
        let mut scores = Scores::default();
        for (kv_head, (leverage, attention)) in heads.zip(leverage.iter().zip(attention)) {
            let (n, middle) = (view.positions(kv_head).len(), middle(kv_head));
            let (mut values, mut forced) = (vec![0.0; n], vec![true; n]);
            forced[middle.clone()].fill(false);
            let blended = leverage.iter().zip(attention).map(|(l, a)| blend * l + a);
            values[middle].iter_mut().zip(blended).for_each(|(value, score)| *value = score);
            scores.values.push(values);
            scores.forced.push(forced);
        }
        Some(scores)
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, drawn, score};

    #[test]
    fn the_two_halves_are_blended() {
        let layer = drawn(20);
        let free = |spec: &str| score(spec, &layer).values.concat();
        let (leverage, attention) = (free("leverage@5"), free("noncausal@5"));
        let blended = |by: f32| leverage.iter().zip(&attention).map(|(l, a)| by * l + a).collect::<Vec<_>>();
        close(&free("compactor@5:sinks=0,recent=0,blend=2"), &blended(2.0));
        close(&free("compactor@5:sinks=0,recent=0"), &blended(0.75));
    }

    #[test]
    fn sinks_and_the_newest_stay_and_do_not_take_part() {
        let layer = drawn(20);
        let mut other = layer.clone();
        other.keys.iter_mut().for_each(|keys| keys[..8 * 4].fill(3.0));
        let scores = score("compactor@14", &layer);
        assert_eq!(scores.values, score("compactor@14", &other).values);
        assert!(scores.forced.iter().all(|f| (0..20).all(|t| f[t] != (8..16).contains(&t))));
        assert_eq!(after_prompt("compactor@6", &drawn(9)), [[3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8]]);
    }
}
