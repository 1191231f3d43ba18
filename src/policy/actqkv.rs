//! ActQKV-like: looks for blocks with a probe made of the recent queries that deviate most (after Xiao et al. 2025,
//! arXiv 2502.13542).
//!
//! The paper is clear about the parts and not about their constants, and there is no public code: this is a reading of
//! it, not a reproduction. Per query head the probe is Σ w_i q_i over its last `window` queries (after rope), w_i the
//! distance of q_i from their mean, divided by the sum of all distances. Blocks are `block` held entries that follow
//! each other, each stands for itself by its mean key; its score is the probe's logit on that, mean over the group, so
//! that a kv head reads the same for all its query heads. How many blocks are read follows from how the scores
//! spread: e^H, H the entropy of their softmax in nats, at most B / block. The first block and the last are always
//! read. Layers before `dense` read everything, as does the prompt.
//!
//! Defaults: B = 2048, window 64, block 16, two dense layers. A mean key weighs half an entry.

use std::collections::VecDeque;
use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key};
use super::pages::{Pages, slots};
use super::part::{LaneView, Part};
use super::quest::DENSE;
use super::reader::{Choice, HeadReader, Reader, Setting, Sight};
use super::registry::REGISTERED;
use super::select::select;

static BLOCK: Key<Count> = Key::new("block", "entries of a block", Count(1, 4096), 16);
static WINDOW: Key<Count> = Key::new("window", "recent queries of which the probe is made", Count(1, 4096), 64);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "actqkv",
    family: Family::Reader,
    idea: "ActQKV-like: look for blocks with the recent queries that deviate most",
    paper: Some(Paper {
        title: "Activation-aware Probe-Query: Effective Key-Value Retrieval for Long-Context LLMs Inference",
        arxiv: "2502.13542",
    }),
    budget: Some(Amount::Tokens(2048)),
    keys: &[&BLOCK, &WINDOW, &DENSE],
    build: |spec| {
        let (block, window, dense) = (spec.get(&BLOCK), spec.get(&WINDOW), spec.get(&DENSE));
        Part::reader(ActQkv { block: block as usize, window: window as usize, dense: dense as usize })
    },
};

#[derive(Clone, Copy)]
struct ActQkv {
    block: usize,
    window: usize,
    dense: usize,
}

impl Reader for ActQkv {
    fn start(&self, setting: Setting, lane: &dyn LaneView) -> Vec<Box<dyn HeadReader>> {
        let mut heads: Vec<Vec<Layer>> = vec![vec![Layer::default(); setting.layers]; setting.kv_heads];
        let end = setting.prompt as u32;
        for number in self.dense..setting.layers {
            lane.layer(number, &mut |view| {
                for (kv_head, layers) in heads.iter_mut().enumerate() {
                    let group = kv_head * setting.group..(kv_head + 1) * setting.group;
                    let rows = end - (self.window(setting.prompt) as u32)..end;
                    let of_heads: Vec<Vec<f32>> = group.map(|head| view.queries(head, rows.clone())).collect();
                    let row =
                        |i: usize| of_heads.iter().flat_map(move |q| &q[i * setting.head_dim..][..setting.head_dim]);
                    layers[number].queries = (0..rows.len()).map(|i| row(i).copied().collect()).collect();
                }
            });
        }
        let blocks = setting.budget.map(|budget| (budget / self.block).max(1));
        let head = |layers| Box::new(HeadAct { own: *self, blocks, layers }) as Box<dyn HeadReader>;
        heads.into_iter().map(head).collect()
    }

    fn window(&self, prompt: usize) -> usize {
        (self.window - 1).min(prompt)
    }
}

#[derive(Clone, Default)]
struct Layer {
    /// The newest last [window][group, D].
    queries: VecDeque<Arc<[f32]>>,
    means: Pages,
}

#[derive(Clone)]
struct HeadAct {
    own: ActQkv,
    /// Most that are read.
    blocks: Option<usize>,
    layers: Vec<Layer>,
}

/// Σ w_i q_i of queries [D], w_i ∝ the distance from their mean.
fn probe<'a>(queries: impl Iterator<Item = &'a [f32]> + Clone, dim: usize) -> Vec<f32> {
    let weighted = |weights: &[f64]| {
        let mut sum = vec![0.0f64; dim];
        for (query, weight) in queries.clone().zip(weights) {
            sum.iter_mut().zip(query).for_each(|(sum, &q)| *sum += weight * q as f64);
        }
        sum
    };
    let count = queries.clone().count();
    let mean = weighted(&vec![1.0 / count as f64; count]);
    let distance = |query: &[f32]| query.iter().zip(&mean).map(|(&q, m)| (q as f64 - m).powi(2)).sum::<f64>().sqrt();
    let distances: Vec<f64> = queries.clone().map(distance).collect();
    let all: f64 = distances.iter().sum();
    let weights: Vec<f64> = match all > 0.0 {
        true => distances.iter().map(|d| d / all).collect(),
        false => vec![1.0 / count as f64; count],
    };
    weighted(&weights).into_iter().map(|x| x as f32).collect()
}

/// e to the entropy of the scores' softmax: as many equals would spread as much.
fn spread(scores: &[f32]) -> f64 {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let (mut sum, mut moment) = (0.0, 0.0);
    for &score in scores {
        let below = score as f64 - most;
        sum += below.exp();
        moment += below * below.exp();
    }
    (sum.ln() - moment / sum).exp()
}

impl HeadReader for HeadAct {
    fn read(&mut self, sight: &Sight<'_>) -> Choice {
        let (n, group, block) = (sight.positions.len(), sight.dense.len(), self.own.block);
        let dim = sight.queries.len() / group;
        let Some(most) = self.blocks.filter(|_| sight.layer >= self.own.dense) else { return Choice::all() };
        let Layer { queries, means } = &mut self.layers[sight.layer];
        queries.push_back(sight.queries.into());
        if queries.len() > self.own.window {
            queries.pop_front();
        }
        let all = n.div_ceil(block);
        if all <= most {
            return Choice::all();
        }
        // The last block, which may be incomplete, does not compete.
        let rivals = all - 1;
        let mean = |keys: &[f32]| {
            let sum = |c: usize| keys.chunks_exact(dim).map(|key| key[c]).sum::<f32>();
            (0..dim).map(|c| sum(c) / block as f32).collect()
        };
        let means = means.numbers(sight, block, rivals, mean);
        let probes: Vec<Vec<f32>> =
            (0..group).map(|m| probe(queries.iter().map(|q| &q[m * dim..(m + 1) * dim]), dim)).collect();
        let scale = (dim as f32).sqrt().recip() / group as f32;
        let logit = |mean: &[f32]| {
            probes.iter().map(|probe| probe.iter().zip(mean).map(|(q, k)| q * k).sum::<f32>()).sum::<f32>() * scale
        };
        let scores: Vec<f32> = means.iter().map(|mean| logit(mean)).collect();
        let count = (spread(&scores).ceil() as usize).clamp(2, most.max(2)) - 1;
        let mut first = vec![false; rivals];
        first[0] = true;
        let chosen = select(&scores, &first, count);
        let read: Vec<u32> = chosen.into_iter().chain([rivals as u32]).flat_map(|b| slots(b, block, n)).collect();
        Choice::slots(vec![read; group], rivals as u64 * sight.entry / 2)
    }

    fn metadata(&self) -> u64 {
        let queries = |layer: &Layer| layer.queries.iter().map(|q| 4 * q.len() as u64).sum::<u64>();
        self.layers.iter().map(|layer| layer.means.bytes(0.5) + queries(layer)).sum()
    }

    fn bytes(&self) -> u64 {
        self.metadata()
    }

    fn copy(&self) -> Box<dyn HeadReader> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::random_layer;
    use crate::policy::testing::reading::{look, reader};

    #[test]
    fn the_probe_leans_to_the_query_that_deviates() {
        let queries: [&[f32]; 3] = [&[1.0, 0.0], &[1.0, 0.0], &[1.0, 3.0]];
        // mean (1, 1): distances 1, 1, 2
        assert_eq!(probe(queries.into_iter(), 2), [1.0, 1.5]);
        assert_eq!(probe([&[2.0f32, 1.0][..]; 2].into_iter(), 2), [2.0, 1.0]);
    }

    #[test]
    fn equal_scores_spread_over_all_and_one_peak_over_one() {
        assert!((spread(&[0.5; 7]) - 7.0).abs() < 1e-9);
        assert!((spread(&[50.0, 0.0, 0.0]) - 1.0).abs() < 1e-9);
    }

    /// The window slides over the prompt's queries and those of the steps.
    #[test]
    fn blocks_are_those_that_the_probe_of_the_window_favours() {
        let mut layer = random_layer(11, (1, 2), 4, 80);
        (layer.newest, layer.held) = (69, vec![(0..70).collect()]);
        let mut act = reader("actqkv@20:block=4,window=5,dense=1", &layer);
        assert_eq!(look(&layer, 0, |sight| act.read(sight)), Choice::all());
        for _ in 0..4 {
            layer.step();
            let newest = layer.newest as usize;
            let n = newest + 1;
            let logit = |block: usize| -> f32 {
                let key = |c: usize| (0..4).map(|i| layer.keys[0][(block * 4 + i) * 4 + c]).sum::<f32>() / 4.0;
                let head = |q: &Vec<f32>| {
                    let probe = probe(q[(newest - 4) * 4..(newest + 1) * 4].chunks(4), 4);
                    (0..4).map(|c| probe[c] * key(c)).sum::<f32>()
                };
                layer.queries.iter().map(head).sum::<f32>() / 4.0
            };
            let last = n.div_ceil(4) - 1;
            let scores: Vec<f32> = (0..last).map(logit).collect();
            let count = (spread(&scores).ceil() as usize).clamp(2, 5);
            let mut order: Vec<usize> = (1..last).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut blocks = vec![0, last];
            blocks.extend(&order[..count - 2]);
            blocks.sort();
            let expected: Vec<u32> = blocks.iter().flat_map(|b| b * 4..(b * 4 + 4).min(n)).map(|s| s as u32).collect();
            let mut copy = act.copy();
            let choice = look(&layer, 1, |sight| act.read(sight));
            assert_eq!(look(&layer, 1, |sight| copy.read(sight)), choice);
            let heads = choice.heads.unwrap();
            assert_eq!((&heads[0].slots, &heads[1].slots), (&expected, &expected));
        }
    }
}
