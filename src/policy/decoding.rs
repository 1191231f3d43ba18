//! Evict while generating: every N steps the cache is cut to its budget (kvpress' DecodingPress).
//!
//! The prompt stays whole, unless another evictor stands in front: `snapkv@50%+decoding:every=8+knorm@190`. After each
//! `every` decoded tokens the scorer behind decides; between them the cache grows. Its budget is a number of tokens,
//! or a share of the prompt, or with `of=seen` of all tokens read so far, evicted ones included (kvpress'
//! CompressionRatioDecodingPress), so that it grows with the text.
//!
//! every = 512. Only scorers that need no more than the newest query's row: kvpress keeps up to 256 hidden states
//! for the others.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family};
use super::key::{Choice, Count, Key};
use super::part::{Part, Schedule, Whole};
use super::registry::REGISTERED;

static EVERY: Key<Count> = Key::new("every", "decoded tokens from one eviction to the next", Count(1, 1_000_000), 512);
static OF: Key<Choice<Whole>> = Key::new(
    "of",
    "what a budget in percent is a share of: the prompt, or all tokens so far",
    Choice(&[("prompt", Whole::Prompt), ("seen", Whole::Seen)]),
    Whole::Prompt,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "decoding",
    family: Family::Wrapper,
    idea: "cut the cache to its budget every few decoded tokens",
    paper: None,
    budget: None,
    keys: &[&EVERY, &OF],
    build: |spec| Part::Schedule(Schedule::Decoding { every: spec.get(&EVERY) as u32, of: spec.get(&OF) }),
};

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::error::Problem;
    use crate::policy::testing::{Layer, moment, random_layer};

    /// Entries held after each of 31 steps from a prompt of 32.
    fn held(spec: &str) -> Vec<usize> {
        let policy = Policy::parse(spec).unwrap();
        let whole = random_layer(2, (2, 2), 4, 63);
        let mut layer = Layer::from_queries(&whole.queries, whole.keys.clone(), whole.values.clone(), 4, 32);
        let held = (0..=31).map(|step| {
            if step > 0 {
                layer.step();
            }
            for stage in 0..policy.stages() {
                let decision = policy.decide(stage, moment(32, step), &layer.alone()).remove(0);
                decision.iter().for_each(|decision| layer.keep(decision));
            }
            layer.held[0].len()
        });
        held.collect::<Vec<_>>()[1..].to_vec()
    }

    fn saw(first: usize, after: [usize; 3]) -> Vec<usize> {
        let from = |n| n..n + 8;
        (first..first + 7).chain(after.into_iter().flat_map(from)).collect()
    }

    /// kvpress' cache lengths for a prompt of 32 tokens.
    #[test]
    fn the_cache_grows_and_is_cut_every_eighth_step() {
        assert_eq!(held("decoding:every=8+knorm@16"), saw(33, [16, 16, 16]));
        assert_eq!(held("decoding:every=8+streaming@50%:sinks=4"), saw(33, [16, 16, 16]));
        assert_eq!(held("decoding:every=8,of=seen+knorm@50%"), saw(33, [20, 24, 28]));
        assert_eq!(held("snapkv@50%:window=8+decoding:every=8+knorm@16"), saw(17, [16, 16, 16]));
        assert_eq!(held("decoding:every=1+tova@16"), [16; 31]);
    }

    #[test]
    fn shares_of_all_tokens_grow() {
        let policy = Policy::parse("decoding:every=8,of=seen+knorm@50%").unwrap();
        assert_eq!((policy.budget_at(0, 166, 8), policy.budget_at(0, 465, 24)), (Some(87), Some(244)));
        let policy = Policy::parse("decoding:every=8+knorm@50%").unwrap();
        assert_eq!(policy.budget_at(0, 166, 8), Some(83));
    }

    #[test]
    fn what_needs_several_rows_is_refused() {
        let error = Policy::parse("decoding+snapkv@50%").unwrap_err();
        assert_eq!(error.problem(), &Problem::NotInDecode("decoding"));
        assert!(matches!(
            Policy::parse("decoding+decoding:every=3+knorm@5").unwrap_err().problem(),
            Problem::BothDecide { .. }
        ));
    }
}
