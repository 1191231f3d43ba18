//! Random eviction: the control that every policy has to beat.
//!
//! Score of an entry: uniform in [0, 1), a pure function of (seed, layer, kv head, original position), so that it
//! never changes between steps, on rewinding, or with what else is held. kvpress protects nothing, as here; with
//! sinks and recent tokens protected the control is far stronger (`sinks=4,recent=16`).

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family};
use super::key::{Choice, Count, Key, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores};
use super::registry::REGISTERED;

static SEED: Key<Count> = Key::new("seed", "which of the random orders", Count(0, u64::MAX), 0).spelled_out();
static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(0, 1_000_000), 0);
static RECENT: Key<Count> = Key::new("recent", "newest entries that always stay", Count(0, 1_000_000), 0);
static EVERY: Key<Choice<Schedule>> = every(Schedule::EveryStep);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "random",
    family: Family::Scorer,
    idea: "keep a random set: the control that every policy has to beat",
    paper: None,
    budget: Some(Amount::percent(50)),
    keys: &[&SEED, &SINKS, &RECENT, &EVERY],
    build: |spec| {
        Part::scorer(Random {
            seed: spec.get(&SEED),
            sinks: spec.get(&SINKS) as usize,
            recent: spec.get(&RECENT) as usize,
            schedule: spec.get(&EVERY),
        })
    },
};

struct Random {
    seed: u64,
    sinks: usize,
    recent: usize,
    schedule: Schedule,
}

impl Scorer for Random {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let head = |kv_head| {
            let stream = mix(mix(mix(self.seed) ^ at.layer as u64) ^ kv_head as u64);
            view.positions(kv_head).iter().map(|&p| uniform(mix(stream ^ p as u64))).collect()
        };
        let scores = Scores::free((0..view.kv_heads()).map(head).collect());
        Some(scores.keep_first(self.sinks, view).keep_newest(self.recent))
    }
}

/// What the state of SplitMix64 grows by between two outputs.
pub(super) const INCREMENT: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64: one step of the generator as a hash (Steele et al. 2014).
#[inline(always)]
pub(super) fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(INCREMENT);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The upper 24 bits as a number in [0, 1): all that an f32 holds exactly.
pub(super) fn uniform(bits: u64) -> f32 {
    (bits >> 40) as f32 / (1u32 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{after_prompt, moment, score, toy};

    #[test]
    fn splitmix_gives_its_published_sequence() {
        // first outputs for seed 0: state advances by the increment itself
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(mix(INCREMENT), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn scores_are_uniform_and_differ_by_seed_layer_and_head() {
        let mean = (0..10_000).map(|p| uniform(mix(p))).sum::<f32>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let first = score("random@3", &toy()).values;
        assert_ne!(first, score("random@3:seed=1", &toy()).values);
        assert!(first[0].iter().all(|u| (0.0..1.0).contains(u)));
        let random = Random { seed: 0, sinks: 0, recent: 0, schedule: Schedule::EveryStep };
        let deeper = Moment { layer: 1, layers: 2, ..moment(6, 0) };
        assert_ne!(Some(first), random.score(deeper, 3, &toy()).map(|s| s.values));
    }

    #[test]
    fn a_score_depends_only_on_the_position() {
        let mut thinner = toy();
        thinner.held[0] = vec![1, 4, 5];
        let all = &score("random@2", &toy()).values[0];
        assert_eq!(score("random@2", &thinner).values[0], [all[1], all[4], all[5]]);
    }

    #[test]
    fn protection_is_optional() {
        assert_eq!(after_prompt("random@3:sinks=1,recent=2", &toy()), [[0, 4, 5]]);
    }
}
