//! StreamingLLM: attention sinks and the most recent tokens (Xiao et al. 2023, arXiv 2309.17453).
//!
//! Budget n: the first `sinks` positions and the n − sinks newest entries stay. At n ≤ sinks the newest entry
//! still stays, beside the n − 1 first ones.
//!
//! positions = original: keys keep their rotation, as in kvpress. positions = cache: as in the authors' code the keys
//! lie at 0 … n − 1 at every step and the next token at n, so that the model never sees a distance above the budget.
//! The authors hold keys before rope and rotate all of them; here a moved key is turned on by the distance that it
//! moves, which differs by rounding. sinks = 4: theirs; their budgets are 4 + 512 to 4 + 2044 tokens.

use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, every};
use super::part::{LayerView, Moment, Part, Rewriter, Schedule, Scorer, Scores};
use super::registry::REGISTERED;
use super::rerotate::Slots;
use super::window::recency;

static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(0, 1_000_000), 4);
static POSITIONS: Key<Choice<bool>> = Key::new(
    "positions",
    "where keys lie: at their places in the text, or in the cache",
    Choice(&[("original", false), ("cache", true)]),
    false,
);
static EVERY: Key<Choice<Schedule>> = every(Schedule::EveryStep);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "streaming",
    family: Family::Scorer,
    idea: "keep the first tokens (attention sinks) and the most recent ones",
    paper: Some(Paper { title: "Efficient Streaming Language Models with Attention Sinks", arxiv: "2309.17453" }),
    budget: Some(Amount::percent(50)),
    keys: &[&SINKS, &POSITIONS, &EVERY],
    build: |spec| {
        Part::scorer(Streaming {
            sinks: spec.get(&SINKS) as usize,
            in_cache: spec.get(&POSITIONS),
            schedule: spec.get(&EVERY),
        })
    },
};

struct Streaming {
    sinks: usize,
    in_cache: bool,
    schedule: Schedule,
}

impl Scorer for Streaming {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn score(&self, _at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let sinks = self.sinks.min(budget.saturating_sub(1));
        Some(Scores::free(recency(view)).keep_first(sinks, view))
    }

    fn rewriter(&self) -> Option<Arc<dyn Rewriter>> {
        self.in_cache.then(|| Arc::new(Slots) as Arc<dyn Rewriter>)
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::testing::{Layer, after_prompt, close, decide, drawn, moment, toy, turned};

    #[test]
    fn sinks_and_recent_stay() {
        assert_eq!(after_prompt("streaming@5", &toy()), [[0, 1, 2, 3, 5]]);
        assert_eq!(after_prompt("streaming@4:sinks=1", &toy()), [[0, 3, 4, 5]]);
        assert_eq!(after_prompt("streaming@2:sinks=0", &toy()), [[4, 5]]);
    }

    #[test]
    fn the_newest_stays_when_sinks_fill_the_budget() {
        assert_eq!(after_prompt("streaming@3", &toy()), [[0, 1, 5]]);
        assert_eq!(after_prompt("streaming@1", &toy()), [[5]]);
    }

    /// Step after step, a key lies where it would if it had been turned there from before rope.
    #[test]
    fn keys_follow_their_slots() {
        let policy = Policy::parse("streaming@5:sinks=2,positions=cache").unwrap();
        assert!(policy.cache_positions() && policy.always_cache_positions());
        let whole = drawn(14);
        let mut layer = Layer::from_queries(&whole.queries, whole.keys.clone(), whole.values.clone(), 4, 8);
        layer.turns = whole.turns.clone();
        for step in 0..=6 {
            if step > 0 {
                // the engine turns the new key to the number of entries held, not to its place in the text
                layer.step();
                let (new, slot) = (layer.newest as usize, layer.held[0].len() as f64 - 1.0);
                for (keys, original) in layer.keys.iter_mut().zip(&whole.keys) {
                    let key = turned(original, new, &whole.turns, slot - new as f64).map(|x| x as f32);
                    keys[new * 4..new * 4 + 4].copy_from_slice(&key);
                }
            }
            let decision = decide(&policy, moment(8, step), &layer).unwrap();
            layer.keep(&decision);
            for (kv_head, new) in decision.rewritten.iter().enumerate() {
                let moved = new.keys.as_ref().unwrap();
                for (slot, &position) in layer.held[kv_head].iter().enumerate() {
                    let at = position as usize;
                    let by = slot as f64 - position as f64;
                    let expected = turned(&whole.keys[kv_head], at, &whole.turns, by).map(|x| x as f32);
                    close(&moved[slot * 4..slot * 4 + 4], &expected);
                }
            }
            assert_eq!(layer.held[0][..2], [0, 1]);
        }
    }

    #[test]
    fn cache_positions_want_heads_of_one_length_and_no_other_evictor() {
        for spec in ["adakv+streaming:positions=cache", "rerotate+streaming:positions=cache"] {
            assert!(Policy::parse(spec).unwrap_err().to_string().contains("both"), "{spec}");
        }
        assert!(Policy::parse("snapkv@50%+streaming@20%:positions=cache").is_err());
        assert!(Policy::parse("protect+streaming:positions=cache").is_ok());
        assert!(!Policy::parse("streaming").unwrap().cache_positions());
    }
}
