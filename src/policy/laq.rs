//! Lookahead Q-Cache: cut once with SnapKV, write a few tokens with what is left, and let their queries vote on the whole
//! prompt (Wang et al. 2025, arXiv 2505.20334).
//!
//! The draft is greedy and has `tokens` tokens; its keys and values are forgotten, its queries are what decoding's will
//! be like. Votes: mean over them of the softmax over all prompt entries, pooled along the prompt (kernel, average),
//! mean over the query heads of a kv head. `with=window` lets the last prompt queries vote, too (LAQ++); their
//! entries always stay, as in SnapKV. The idea is the paper's, its constants (8 tokens, kernel 5) are ours: unconfirmed.

use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key};
use super::oracle::write_on;
use super::part::{LaneView, LayerView, Moment, Part, Scorer, Scores, Start, group_mean};
use super::registry::REGISTERED;
use super::select::select;
use super::snapkv::{KERNEL, Pool, SnapKv, WINDOW};
use super::surveyed::{Surveyed, held};

static TOKENS: Key<Count> = Key::new("tokens", "tokens of the draft", Count(1, 1024), 8);
static WITH: Key<Choice<bool>> =
    Key::new("with", "who votes beside the draft", Choice(&[("nobody", false), ("window", true)]), true);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "laq",
    family: Family::Scorer,
    idea: "queries of a short draft vote for what stays (writes a few tokens first)",
    paper: Some(Paper {
        title: "Lookahead Q-Cache: Achieving More Consistent KV Cache Eviction via Pseudo Query",
        arxiv: "2505.20334",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&TOKENS, &WITH, &WINDOW, &KERNEL],
    build: |spec| {
        let (window, kernel) = (spec.get(&WINDOW).map(|w| w as usize), spec.get(&KERNEL) as usize);
        Part::scorer(Laq {
            tokens: spec.get(&TOKENS) as usize,
            with_window: spec.get(&WITH),
            snapkv: SnapKv { window, kernel, pool: Pool::Average },
        })
    },
};

struct Laq {
    tokens: usize,
    with_window: bool,
    snapkv: SnapKv,
}

impl Scorer for Laq {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        self.snapkv.window(prompt)
    }

    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, at: Moment, mean: f64, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        let kept = self.first_cut(at, (mean as usize).max(1), lane);
        let mut drafted: Vec<Vec<Vec<f32>>> = vec![Vec::new(); at.layers];
        let (next, first) = (lane.next(), lane.tokens().len() as u32);
        lane.ahead(Start::Kept(&kept), &mut |ahead| {
            write_on(ahead, next, self.tokens);
            ahead.lane(&mut |lane| {
                for (layer, drafted) in drafted.iter_mut().enumerate() {
                    lane.layer(layer, &mut |view| {
                        let heads = 0..view.kv_heads() * view.group();
                        *drafted = heads.map(|head| view.queries(head, first..view.newest() + 1)).collect();
                    });
                }
            });
        });
        let mut layers = held(lane, at.layers);
        for (layer, known) in layers.iter_mut().enumerate() {
            let Some(known) = known else { continue };
            lane.layer(layer, &mut |view| known.scores = self.votes(Moment { layer, ..at }, view, &drafted[layer]));
        }
        Some(Arc::new(Surveyed { layers }))
    }

    fn score(&self, _: Moment, _: usize, _: &dyn LayerView) -> Option<Scores> {
        None
    }
}

impl Laq {
    /// What SnapKV leaves the draft [layer][kv head].
    fn first_cut(&self, at: Moment, budget: usize, lane: &dyn LaneView) -> Vec<Option<Vec<Vec<u32>>>> {
        let one = |layer| {
            let mut kept = None;
            lane.layer(layer, &mut |view| {
                let scores = self.snapkv.score(Moment { layer, ..at }, budget, view);
                kept = scores.map(|scores| {
                    let heads = scores.values.iter().zip(&scores.forced);
                    heads.map(|(values, forced)| select(values, forced, budget)).collect()
                });
            });
            kept
        };
        (0..at.layers).map(one).collect()
    }

    /// `drafted` [H][tokens · D].
    fn votes(&self, at: Moment, view: &dyn LayerView, drafted: &[Vec<f32>]) -> Scores {
        let w = self.snapkv.window(at.prompt);
        let end = view.newest() + 1;
        let keys: Vec<_> = (0..view.kv_heads()).map(|kv_head| view.keys(kv_head)).collect();
        let votes = group_mean(view, |head| {
            let n = view.positions(head / view.group()).len();
            let mut rows = Vec::new();
            for q in drafted[head].chunks_exact(view.head_dim()) {
                rows.extend(softmax(q, &keys[head / view.group()], view.scale()));
            }
            if self.with_window {
                rows.extend(view.rows(head, end.saturating_sub(w as u32)..end));
            }
            let mut votes = vec![0.0; n];
            for row in rows.chunks_exact(n.max(1)) {
                votes.iter_mut().zip(row).for_each(|(v, a)| *v += a);
            }
            let count = (rows.len() / n.max(1)).max(1) as f32;
            votes.iter_mut().for_each(|v| *v /= count);
            let prefix = n.saturating_sub(w);
            let pooled = Pool::Average.along(&votes[..prefix], self.snapkv.kernel);
            votes[..prefix].copy_from_slice(&pooled);
            votes
        });
        Scores::free(votes).keep_newest(w)
    }
}

/// Of a query [D] over all keys [n, D] → [n].
fn softmax(q: &[f32], keys: &[f32], scale: f32) -> Vec<f32> {
    let dot = |k: &[f32]| q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>() * scale;
    let mut row: Vec<f32> = keys.chunks_exact(q.len()).map(dot).collect();
    let most = row.iter().copied().fold(f32::MIN, f32::max);
    row.iter_mut().for_each(|s| *s = (*s - most).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|a| *a /= sum);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{after_prompt, random_layer};

    #[test]
    fn a_row_is_a_softmax_over_all_keys() {
        let row = softmax(&[1.0, 0.0], &[2.0, 9.0, 0.0, 5.0], 0.5);
        assert!((row[0] / row[1] - 1f32.exp()).abs() < 1e-5 && (row[0] + row[1] - 1.0).abs() < 1e-6);
    }

    /// With a whole budget for the draft and no window but the newest, the votes are the next rows.
    #[test]
    fn the_draft_votes_for_the_prompt() {
        let mut layer = random_layer(9, (1, 1), 4, 24);
        layer.held = vec![(0..20).collect()];
        layer.newest = 19;
        let kept = after_prompt("laq@50%:tokens=2,with=nobody,window=1,kernel=1", &layer);
        let weight = |t: usize| {
            let row = |i: usize| softmax(&layer.queries[0][i * 4..][..4], &layer.keys[0][..80], 0.5)[t];
            row(20) + row(21)
        };
        let mut order: Vec<u32> = (0..19).collect();
        order.sort_by(|&a, &b| weight(b as usize).total_cmp(&weight(a as usize)));
        let mut expected: Vec<u32> = order[..9].iter().copied().chain([19]).collect();
        expected.sort_unstable();
        assert_eq!(kept, [expected]);
    }
}
