//! Value norm: entries with large values stay. The half of VATP that needs no attention, and a baseline for scorers of keys.
//!
//! s_t = ‖v_t‖₂, once after the prompt or at every step; nothing is protected.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family};
use super::key::{Choice, Key, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores};
use super::registry::REGISTERED;

static EVERY: Key<Choice<Schedule>> = every(Schedule::AfterPrefill);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "vnorm",
    family: Family::Scorer,
    idea: "keep entries whose values are long",
    paper: None,
    budget: Some(Amount::percent(50)),
    keys: &[&EVERY],
    build: |spec| Part::scorer(ValueNorm { schedule: spec.get(&EVERY) }),
};

struct ValueNorm {
    schedule: Schedule,
}

impl Scorer for ValueNorm {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
        let of = |kv_head| view.values(kv_head).chunks_exact(view.head_dim()).map(norm).collect();
        Some(Scores::free((0..view.kv_heads()).map(of).collect()))
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{after_prompt, close, score, toy};

    #[test]
    fn long_values_stay() {
        let expected = [5f32.sqrt(), 1.0, 3.0, 2.0, 2.0, 0.5];
        close(&score("vnorm@3", &toy()).values[0], &expected);
        assert_eq!(after_prompt("vnorm@2", &toy()), [[0, 2]]);
    }
}
