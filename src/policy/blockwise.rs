//! Evict while the prompt is read: never more than the budget and one block (KeyDiff, Park et al. 2025, arXiv
//! 2504.15364; Batch-Max, Metel et al. 2024, arXiv 2412.05693).
//!
//! Each block of `size` prompt tokens attends to what is kept and to itself, then the scorer behind cuts kept ∪ block to
//! the budget; after the last block decoding begins. Late blocks compete with survivors, never with what has left.
//! What later tokens compute is changed by what is gone, so keys, values and the first token differ from a dense
//! prompt's. The lane reads the prompt itself; the others share theirs. Rows of past queries are those that were
//! computed, over what was held then. size = 128. The `block` part only simulates this after a dense prompt, as
//! kvpress' BlockPress does.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key};
use super::part::{Part, Schedule};
use super::registry::REGISTERED;

static SIZE: Key<Count> = Key::new("size", "prompt tokens between two evictions", Count(1, 1_000_000), 128);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "blockwise",
    family: Family::Wrapper,
    idea: "evict while the prompt is read, block by block (reads the prompt on its own)",
    paper: Some(Paper {
        title: "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained \
                Environments",
        arxiv: "2504.15364",
    }),
    budget: None,
    keys: &[&SIZE],
    build: |spec| Part::Schedule(Schedule::Blocks { size: spec.get(&SIZE) as u32 }),
};

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::part::Schedule;

    #[test]
    fn it_acts_while_the_prompt_is_read_and_never_later() {
        let policy = Policy::parse("blockwise:size=64+keydiff@50%").unwrap();
        assert_eq!((policy.schedule(0), policy.block()), (Schedule::Blocks { size: 64 }, Some(64)));
        assert!(!policy.acts_in_decode() && policy.budget(0, 1000) == Some(500));
        assert_eq!(Policy::parse("keydiff@50%").unwrap().block(), None);
        let both = Policy::parse("blockwise+keydiff@50%+decoding:every=8+knorm@100").unwrap();
        assert!(both.acts_in_decode() && both.block() == Some(128));
    }
}
