//! Block by block, after a dense prompt: what would stay if the prompt had been cut while it was read (kvpress'
//! BlockPress, after KeyDiff, Park et al. 2025, arXiv 2504.15364).
//!
//! The first n entries fill the budget; then each block of `size` entries comes in, the scorer sees kept ∪ block and
//! nothing else, and the n best stay. Later blocks compete with survivors, never with what has left.
//!
//! size = 128. This is a simulation: the prompt was read with all of its cache, so keys, values and queries are exact.
//! Reading a prompt block by block over a cut cache changes them from the second layer on, and is another policy.
//! kvpress rebuilds queries from hidden states that it mixes by kv head, so its numbers mean something for scorers of
//! keys and values only; here rows are those of the block's own last queries over kept ∪ block.

use linkme::distributed_slice;

use super::chunk::{best_of, whole_prompt};
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key};
use super::part::{Ask, Chooser, LayerView, Part};
use super::registry::REGISTERED;

static SIZE: Key<Count> = Key::new("size", "entries of a block", Count(1, 1_000_000), 128);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "block",
    family: Family::Wrapper,
    idea: "evict as if the prompt came in blocks (simulated after a dense prompt)",
    paper: Some(Paper {
        title: "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained \
                Environments",
        arxiv: "2504.15364",
    }),
    budget: None,
    keys: &[&SIZE],
    build: |spec| Part::chooser(Block { size: spec.get(&SIZE) as usize }),
};

struct Block {
    size: usize,
}

impl Chooser for Block {
    fn choose(&self, ask: Ask<'_>, view: &dyn LayerView) -> Vec<Vec<u32>> {
        let held: Vec<u32> = (0..view.kv_heads()).map(|head| view.positions(head).len() as u32).collect();
        let mut read: Vec<u32> = held.iter().zip(ask.budgets).map(|(&n, &budget)| n.min(budget as u32)).collect();
        let mut kept: Vec<Vec<u32>> = read.iter().map(|&n| (0..n).collect()).collect();
        while read != held {
            for ((kept, read), &n) in kept.iter_mut().zip(&mut read).zip(&held) {
                let end = read.saturating_add(self.size as u32).min(n);
                kept.extend(*read..end);
                *read = end;
            }
            kept = best_of(ask, view, kept, ask.budgets);
        }
        kept
    }

    fn window(&self, prompt: usize, scorers: usize) -> usize {
        whole_prompt(prompt, scorers)
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{Layer, after_prompt, random_layer, score};

    /// One block after the other on caches that really hold no more, for a scorer whose numbers depend on what else
    /// is there.
    #[test]
    fn equals_eviction_from_ever_longer_caches() {
        let whole = random_layer(4, (2, 2), 4, 29);
        for scorer in ["tova@9", "snapkv@9:window=2,kernel=3"] {
            let mut held: Vec<Vec<u32>> = vec![(0..9).collect(); 2];
            for end in [14, 19, 24, 29] {
                held.iter_mut().for_each(|held| held.extend(end - 5.min(end - 9)..end));
                let cache = Layer { held: held.clone(), newest: end - 1, ..whole.clone() };
                let kept = after_prompt(scorer, &cache);
                held = held.iter().zip(kept).map(|(h, k)| k.into_iter().map(|s| h[s as usize]).collect()).collect();
            }
            assert_eq!(after_prompt(&format!("block:size=5+{scorer}"), &whole), held, "{scorer}");
            assert_ne!(after_prompt(scorer, &whole), held, "{scorer}");
        }
    }

    /// Where a score does not depend on the others, blocks change nothing; heads may differ in budget.
    #[test]
    fn the_best_survive_every_block() {
        let layer = random_layer(7, (3, 1), 4, 40);
        assert!(score("knorm@10", &layer).values[0].iter().all(|s| *s < 0.0));
        assert_eq!(after_prompt("block:size=7+knorm@10", &layer), after_prompt("knorm@10", &layer));
        assert_eq!(after_prompt("adakv+block:size=7+knorm@10", &layer), after_prompt("adakv+knorm@10", &layer));
        assert_eq!(after_prompt("block:size=100+tova@10", &layer), after_prompt("tova@10", &layer));
    }
}
