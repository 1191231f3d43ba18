//! Key re-rotation: what stays moves together. Kept keys are turned from their original positions to 0, 1, 2, …, and
//! decoding goes on at the position after them ("cache positions").
//!
//! Channel pair (i, i + D/2) of the key in slot s, from original position p, is turned by (s − p) · turns[i]. As
//! kvpress' KeyRerotation, and as Finch and StreamingLLM use it. Where the model has layers with a sliding window of
//! their own, which are left alone, decoding goes on at the original positions, as kvpress' pipeline does.
//!
//! Once, after the prompt: what a policy evicts later leaves a gap. `streaming:positions=cache` moves keys at every step.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::part::{LayerView, Moment, Part, Rewriter, Rewritten};
use super::registry::REGISTERED;

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "rerotate",
    family: Family::Wrapper,
    idea: "turn what stays to neighbouring positions and go on after it",
    paper: Some(Paper {
        title: "Finch: Prompt-guided Key-Value Cache Compression for Large Language Models",
        arxiv: "2408.00167",
    }),
    budget: None,
    keys: &[],
    build: |_| Part::rewriter(Rerotate),
};

struct Rerotate;

impl Rewriter for Rerotate {
    fn rewrite(&self, at: Moment, kept: &[Vec<u32>], view: &dyn LayerView) -> Vec<Rewritten> {
        match at.step {
            0 => moved(kept, view, |kv_head, slot| view.positions(kv_head)[slot]),
            _ => vec![Rewritten::default(); kept.len()],
        }
    }

    fn cache_positions(&self) -> bool {
        true
    }
}

/// The same at every step, for policies that keep as many entries in every head: the keys then always lie at the
/// numbers of their slots, the newest one too.
pub(super) struct Slots;

impl Rewriter for Slots {
    fn rewrite(&self, _at: Moment, kept: &[Vec<u32>], view: &dyn LayerView) -> Vec<Rewritten> {
        moved(kept, view, |_, slot| slot as u32)
    }

    fn cache_positions(&self) -> bool {
        true
    }

    fn always_cache_positions(&self) -> bool {
        true
    }
}

/// Keys turned to their new slots; `from` tells where that of a slot of a kv head lies.
fn moved(kept: &[Vec<u32>], view: &dyn LayerView, from: impl Fn(usize, usize) -> u32) -> Vec<Rewritten> {
    let (dim, turns) = (view.head_dim(), view.turns());
    let head = |(kv_head, kept): (usize, &Vec<u32>)| {
        let all = view.keys(kv_head);
        let mut keys = Vec::with_capacity(kept.len() * dim);
        for (to, &slot) in kept.iter().enumerate() {
            let key = &all[slot as usize * dim..(slot as usize + 1) * dim];
            match to as f32 - from(kv_head, slot as usize) as f32 {
                0.0 => keys.extend(key),
                by => keys.extend(turned(key, by, turns)),
            }
        }
        Rewritten { keys: Some(keys), ..Rewritten::default() }
    };
    kept.iter().enumerate().map(head).collect()
}

/// Pairs (i, i + D/2) turned by `by` positions.
fn turned(key: &[f32], by: f32, turns: &[f32]) -> Vec<f32> {
    let (a, b) = key.split_at(turns.len());
    let pair = |i: usize| {
        let (sin, cos) = (by * turns[i]).sin_cos();
        (a[i] * cos - b[i] * sin, b[i] * cos + a[i] * sin)
    };
    let (first, second): (Vec<f32>, Vec<f32>) = (0..turns.len()).map(pair).unzip();
    [first, second].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::testing::{close, decide, moment, toy};

    #[test]
    fn one_pair_turns_as_written() {
        close(&turned(&[1.0, 0.0], 7.0, &[1.0]), &[0.753902, 0.656987]);
        close(&turned(&[0.753902, 0.656987], -4.0, &[1.0]), &[-0.989992, 0.141120]);
    }

    #[test]
    fn kept_keys_move_to_their_slots() {
        let mut layer = toy();
        layer.turns = vec![1.0, 0.1];
        let decision = decide(&Policy::parse("rerotate+streaming@3:sinks=1").unwrap(), moment(6, 0), &layer).unwrap();
        assert_eq!(decision.kept, [[0, 4, 5]]);
        let keys = decision.rewritten[0].keys.as_ref().unwrap();
        close(&keys[..4], &[1.0, 0.0, 0.0, 0.0]);
        // (0, 0, 0, 1) moves three positions back: the second pair turns by −0.3.
        close(&keys[4..8], &[0.0, 0.3f32.sin(), 0.0, 0.3f32.cos()]);
    }

    /// Behind a policy that goes on evicting, keys are turned once.
    #[test]
    fn later_evictions_leave_a_gap() {
        let policy = Policy::parse("rerotate+streaming@3:sinks=1").unwrap();
        assert_eq!(decide(&policy, moment(4, 2), &toy()).unwrap().rewritten, [Rewritten::default()]);
        assert!(
            Policy::parse("rerotate+decoding+knorm@5").is_err()
                && Policy::parse("decoding+rerotate+knorm@5").is_err()
                && Policy::parse("rerotate+blockwise+knorm@5").is_err()
        );
    }
}
