//! L2 norm: keys with a small norm are attended to later (Devoto et al. 2024, arXiv 2406.11430).
//!
//! Score of entry t: −‖k_t‖₂ per kv head (rope keeps norms); the n smallest norms stay. kvpress acts once, on all
//! layers, as here; the authors skip layers 0 and 1 and prune again while decoding (`skip=2,every=step`). Nothing
//! is protected. Models with QK-norm (Qwen 3, Gemma 3) have nearly equal norms: close to random there.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores};
use super::registry::REGISTERED;

static SKIP: Key<Count> = Key::new("skip", "first layers that keep everything", Count(0, 1000), 0);
static EVERY: Key<Choice<Schedule>> = every(Schedule::AfterPrefill);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "knorm",
    family: Family::Scorer,
    idea: "keep keys with a small L2 norm",
    paper: Some(Paper {
        title: "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression",
        arxiv: "2406.11430",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&SKIP, &EVERY],
    build: |spec| Part::scorer(Knorm { skip: spec.get(&SKIP) as usize, schedule: spec.get(&EVERY) }),
};

struct Knorm {
    skip: usize,
    schedule: Schedule,
}

impl Scorer for Knorm {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let negated = |kv_head| view.key_norms(kv_head).into_iter().map(|norm| -norm).collect();
        (at.layer >= self.skip).then(|| Scores::free((0..view.kv_heads()).map(negated).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::FRAC_1_SQRT_2;

    use crate::policy::Policy;
    use crate::policy::testing::{after_prompt, close, decide, moment, score, toy};

    #[test]
    fn norms_of_the_toy() {
        let expected = [-1.0, -FRAC_1_SQRT_2, -1.0, -2.0, -1.0, -0.547723];
        close(&score("knorm@3", &toy()).values[0], &expected);
        assert_eq!(after_prompt("knorm@2", &toy()), [[1, 5]]);
    }

    #[test]
    fn equal_norms_go_to_the_newer_position() {
        assert_eq!(after_prompt("knorm@3", &toy()), [[1, 4, 5]]);
        let decision = decide(&Policy::parse("knorm@3").unwrap(), moment(6, 0), &toy()).unwrap();
        assert_eq!(decision.ties(0), 2);
    }

    #[test]
    fn skipped_layers_keep_everything() {
        let policy = Policy::parse("knorm@3:skip=2").unwrap();
        let layer = |layer| crate::policy::part::Moment { layer, layers: 4, ..moment(6, 0) };
        assert!(decide(&policy, layer(1), &toy()).is_none());
        assert!(decide(&policy, layer(2), &toy()).is_some());
    }
}
