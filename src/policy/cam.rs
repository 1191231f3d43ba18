//! CaM: an evicted value may be spread over the entries behind it (Zhang et al. 2024, ICML, "CaM: Cache Merging for
//! Memory-efficient LLMs Inference").
//!
//! Per kv head, for evicted e and the next `merge` kept entries behind it (fewer at the end): with probability
//! min(1, a_e / mean a of those), a = attention received so far (mean over the query heads), each of them gets
//! v_e / (their number) added to its value. Keys stay. The draw is a pure function of (seed, layer, kv head, position).
//!
//! merge = 32 (kvpress' CAMPress; the authors evict one entry a step). It acts whenever what it wraps evicts; kvpress'
//! schedule is `cam+decoding:every=512+…@2048`. kvpress evicts the same positions in all heads of a layer, counts only
//! attention since decoding began, and after a long prompt merges no more entries than were decoded since.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family};
use super::key::{Count, Key};
use super::part::{LayerView, Moment, Part, Rewriter, Rewritten, group_mean};
use super::random::{mix, uniform};
use super::registry::REGISTERED;

static MERGE: Key<Count> = Key::new("merge", "kept entries that share an evicted value", Count(1, 1_000_000), 32);
static SEED: Key<Count> = Key::new("seed", "which of the random draws", Count(0, u64::MAX), 0).spelled_out();

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "cam",
    family: Family::Wrapper,
    idea: "spread evicted values over the next kept ones, by chance and attention",
    paper: None,
    budget: None,
    keys: &[&MERGE, &SEED],
    build: |spec| Part::rewriter(Cam { merge: spec.get(&MERGE) as usize, seed: spec.get(&SEED) }),
};

struct Cam {
    merge: usize,
    seed: u64,
}

impl Rewriter for Cam {
    fn needs_received(&self) -> bool {
        true
    }

    fn rewrite(&self, at: Moment, kept: &[Vec<u32>], view: &dyn LayerView) -> Vec<Rewritten> {
        let received = group_mean(view, |head| view.received(head).to_vec());
        let stream = mix(mix(self.seed) ^ at.layer as u64);
        let one = |(kv_head, (kept, received)): (usize, (&Vec<u32>, Vec<f32>))| {
            let stream = mix(stream ^ kv_head as u64);
            let draw = |slot: usize| uniform(mix(stream ^ view.positions(kv_head)[slot] as u64));
            let values = self.merged(kept, &received, &view.values(kv_head), view.head_dim(), draw);
            Rewritten { values: Some(values), ..Rewritten::default() }
        };
        kept.iter().zip(received).enumerate().map(one).collect()
    }
}

impl Cam {
    /// Values of what stays [kept, dim]; `draw` gives each slot a number in [0, 1).
    fn merged(
        &self,
        kept: &[u32],
        received: &[f32],
        values: &[f32],
        dim: usize,
        draw: impl Fn(usize) -> f32,
    ) -> Vec<f32> {
        let row = |slot: usize| &values[slot * dim..(slot + 1) * dim];
        let mut merged: Vec<f32> = kept.iter().flat_map(|&slot| row(slot as usize)).copied().collect();
        let mut behind = 0;
        for (slot, &own) in received.iter().enumerate() {
            if kept.get(behind).is_some_and(|&next| next as usize == slot) {
                behind += 1;
                continue;
            }
            let hosts = behind..(behind + self.merge).min(kept.len());
            let count = hosts.len() as f32;
            let mean = kept[hosts.clone()].iter().map(|&host| received[host as usize]).sum::<f32>() / count;
            // 0/0 is not above anything
            if !hosts.is_empty() && own / mean > draw(slot) {
                for host in merged[hosts.start * dim..hosts.end * dim].chunks_exact_mut(dim) {
                    host.iter_mut().zip(row(slot)).for_each(|(host, v)| *host += v / count);
                }
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::testing::{close, decide, moment, toy};

    /// Five entries of one number each; 0, 1 and 3 leave.
    fn merged(merge: usize, received: [f32; 5], draw: f32) -> Vec<f32> {
        Cam { merge, seed: 0 }.merged(&[2, 4], &received, &[8.0, 4.0, 1.0, 2.0, 10.0], 1, |_| draw)
    }

    #[test]
    fn values_are_spread_over_the_next_kept_ones() {
        // all more attended than what follows: 8 and 4 go to both, 2 to the last alone
        assert_eq!(merged(32, [9.0, 9.0, 1.0, 9.0, 1.0], 0.99), [1.0 + 4.0 + 2.0, 10.0 + 4.0 + 2.0 + 2.0]);
        assert_eq!(merged(1, [9.0, 9.0, 1.0, 9.0, 1.0], 0.99), [1.0 + 8.0 + 4.0, 10.0 + 2.0]);
    }

    #[test]
    fn the_chance_is_the_ratio_of_attention() {
        // ratios .5/1, 0/1, .2/1
        assert_eq!(merged(32, [0.5, 0.0, 1.0, 0.2, 1.0], 0.3), [1.0 + 4.0, 10.0 + 4.0]);
        assert_eq!(merged(32, [0.5, 0.0, 1.0, 0.2, 1.0], 0.1), [1.0 + 4.0, 10.0 + 4.0 + 2.0]);
        assert_eq!(merged(32, [0.5, 0.5, 1.0, 0.5, 1.0], 0.5), [1.0, 10.0]);
        // nobody attends to anything
        assert_eq!(merged(32, [0.0; 5], 0.0), [1.0, 10.0]);
    }

    #[test]
    fn evicted_entries_of_the_toy() {
        let policy = Policy::parse("cam+streaming@3:sinks=1").unwrap();
        assert!(policy.needs_received());
        let decision = decide(&policy, moment(6, 0), &toy()).unwrap();
        assert_eq!(decision.kept, [[0, 4, 5]]);
        // 1, 2 and 3 received more (1.38 .97 .76) than the mean of 4 and 5 (.27): all merge, for any draw
        let values = decision.rewritten[0].values.as_ref().unwrap();
        let sum = [1.0, 2.0, 4.0, 1.0].map(|x| x / 2.0);
        close(&values[..4], &[1.0, 2.0, 0.0, 0.0]);
        close(&values[4..8], &[sum[0], sum[1], sum[2], -2.0 + sum[3]]);
        close(&values[8..], &[0.5 + sum[0], sum[1], sum[2], sum[3]]);
    }
}
