//! AttentionPredictor: reads the blocks that the coming attention row is predicted to favour (Yang et al. 2025,
//! arXiv 2502.04077).
//!
//! Per query head the last `history` attention rows are kept, each as the largest probability in every block of `block`
//! positions. From them comes a score for every block between the first `sinks` positions and the last `local` ones;
//! those two are read always, and of the others the ⌊(B − sinks − local) / block⌋ blocks with the highest scores. What
//! the score is, `by` says:
//! - `weights`: a convolutional network of 4,833 numbers, the same for all layers and heads, looks at the history as an
//!   image. `file` names them: a safetensors file with f32 tensors as in the authors' checkpoint, `conv1.weight`
//!   [16, 1, 3, 3], `conv1.bias` [16], `conv2.weight` [32, 16, 3, 3], `conv2.bias` [32], `conv3.weight` [1, 32, 1],
//!   `conv3.bias` [1]. Theirs are `.pth` files, made for Llama 3.1 and LongChat.
//! - `persistence`: what the block had in the newest row that read it. What any prediction has to beat.
//! - `oracle`: what the block is about to have. What none can beat; it cannot be known without reading everything.
//!
//! A row in which only a part was read is kept as it is, 0 elsewhere; every `calibrate` steps the dense row takes its
//! place, for which all keys are read (and counted), though the output is of the part still, as in the authors' code.
//! Layers before `dense` read everything, as does the prompt. The history starts with the prompt's last rows.
//!
//! Defaults: persistence, for want of weights; B = 1024, history 64, block 16, 64 sinks, 64 local, calibrate 5, two
//! dense layers. Blocks are of the text's positions, so that the history stays true where evictors thin the cache out.
//! Less than three blocks between sinks and local are not predicted: the newest are read first.

mod network;

use std::collections::VecDeque;
use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, Choice as Words, Count, File, Key};
use super::part::{LaneView, Part};
use super::quest::DENSE;
use super::reader::{Choice, HeadReader, Reader, Setting, Sight};
use super::registry::REGISTERED;
use super::select::select;
use network::Network;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Persistence,
    Oracle,
    Weights,
}

const BYS: &[(&str, By)] = &[("persistence", By::Persistence), ("oracle", By::Oracle), ("weights", By::Weights)];
static BY: Key<Words<By>> = Key::new("by", "what predicts the coming row", Words(BYS), By::Persistence);
static FILE: Key<Auto<File>> = Key::new("file", "weights of the network, a safetensors file", Auto(File, "none"), None);
static HISTORY: Key<Count> = Key::new("history", "rows that a prediction is made from", Count(1, 1024), 64);
static BLOCK: Key<Count> = Key::new("block", "positions of a block", Count(1, 4096), 16);
static SINKS: Key<Count> = Key::new("sinks", "first positions that are read always", Count(0, 1_000_000), 64);
static LOCAL: Key<Count> = Key::new("local", "newest positions that are read always", Count(0, 1_000_000), 64);
static CALIBRATE: Key<Count> =
    Key::new("calibrate", "every so many steps the dense row is kept; 0 for never", Count(0, 1_000_000), 5);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "predictor",
    family: Family::Reader,
    idea: "read the blocks that the coming attention row is predicted to favour",
    paper: Some(Paper {
        title: "AttentionPredictor: Temporal Patterns Matter for KV Cache Compression",
        arxiv: "2502.04077",
    }),
    budget: Some(Amount::Tokens(1024)),
    keys: &[&BY, &FILE, &HISTORY, &BLOCK, &SINKS, &LOCAL, &CALIBRATE, &DENSE],
    build: |spec| {
        let network = match (spec.get(&BY), spec.get(&FILE)) {
            (By::Weights, Some(file)) => match Network::read(&file) {
                Ok(network) => Some(Arc::new(network)),
                Err(why) => return Part::Missing(format!("cannot use `{}`: {why}", file.display())),
            },
            (By::Weights, None) => {
                let what = "needs `file=NAME` to predict by weights; without, choose by=persistence or by=oracle";
                return Part::Missing(what.into());
            }
            (_, Some(_)) => return Part::Missing("has no use for `file` but with by=weights".into()),
            (_, None) => None,
        };
        Part::reader(Predictor {
            by: spec.get(&BY),
            network,
            history: spec.get(&HISTORY) as usize,
            block: spec.get(&BLOCK) as usize,
            sinks: spec.get(&SINKS) as usize,
            local: spec.get(&LOCAL) as usize,
            calibrate: spec.get(&CALIBRATE) as usize,
            dense: spec.get(&DENSE) as usize,
        })
    },
};

#[derive(Clone)]
struct Predictor {
    by: By,
    network: Option<Arc<Network>>,
    history: usize,
    block: usize,
    sinks: usize,
    local: usize,
    calibrate: usize,
    dense: usize,
}

impl Reader for Predictor {
    fn start(&self, setting: Setting, lane: &dyn LaneView) -> Vec<Box<dyn HeadReader>> {
        let mut heads = vec![vec![vec![VecDeque::new(); setting.group]; setting.layers]; setting.kv_heads];
        let rows = setting.prompt - self.window(setting.prompt)..setting.prompt;
        (self.dense..setting.layers).for_each(|layer| {
            lane.layer(layer, &mut |view| {
                for head in 0..setting.kv_heads * setting.group {
                    let positions = view.positions(head / setting.group);
                    let all = view.rows(head, rows.start as u32..rows.end as u32);
                    heads[head / setting.group][layer][head % setting.group] = all
                        .chunks_exact(positions.len().max(1))
                        .map(|row| pooled(positions, row, self.block))
                        .collect();
                }
            });
        });
        let head = |layers| {
            let (prompt, budget) = (setting.prompt, setting.budget);
            Box::new(HeadPredictor { own: self.clone(), prompt, budget, layers }) as Box<dyn HeadReader>
        };
        heads.into_iter().map(head).collect()
    }

    fn window(&self, prompt: usize) -> usize {
        if self.by == By::Oracle { 0 } else { self.history.min(prompt) }
    }
}

/// The largest probability in each block of positions, up to that of the last slot.
fn pooled(positions: &[u32], row: &[f32], block: usize) -> Arc<[f32]> {
    let mut most = vec![0.0f32; positions.last().map_or(0, |&p| p as usize / block + 1)];
    for (&position, &p) in positions.iter().zip(row) {
        let most = &mut most[position as usize / block];
        *most = most.max(p);
    }
    most.into()
}

/// The newest row last.
type History = VecDeque<Arc<[f32]>>;

#[derive(Clone)]
struct HeadPredictor {
    own: Predictor,
    prompt: usize,
    budget: Option<usize>,
    /// [layers][group]
    layers: Vec<Vec<History>>,
}

impl HeadPredictor {
    /// The dense row of this step will be kept.
    fn calibrates(&self, position: u32) -> bool {
        let step = (position as usize + 1).saturating_sub(self.prompt);
        self.own.by != By::Oracle && self.own.calibrate > 0 && step.is_multiple_of(self.own.calibrate)
    }

    /// A score for each of `blocks`.
    fn predict(&self, history: &History, blocks: std::ops::Range<usize>, coming: &[f32]) -> Vec<f32> {
        let at = |row: &[f32], block: usize| row.get(block).copied().unwrap_or(0.0);
        match (self.own.by, &self.own.network) {
            (By::Oracle, _) => blocks.map(|block| at(coming, block)).collect(),
            (By::Weights, Some(network)) => {
                let rows = history.iter().map(|row| blocks.clone().map(|block| at(row, block)).collect());
                network.predict(&rows.collect::<Vec<Vec<f32>>>())
            }
            _ => {
                let last = |block| history.iter().rev().map(|row| at(row, block)).find(|&p| p > 0.0);
                blocks.map(|block| last(block).unwrap_or(0.0)).collect()
            }
        }
    }
}

impl HeadReader for HeadPredictor {
    fn read(&mut self, sight: &Sight<'_>) -> Choice {
        let (own, n) = (&self.own, sight.positions.len());
        let Some(budget) = self.budget.filter(|&budget| sight.layer >= own.dense && n > budget) else {
            return Choice::all();
        };
        // Blocks that the rows before this one reached.
        let known = (sight.position as usize).div_ceil(own.block);
        let blocks = own.sinks / own.block..known.saturating_sub(own.local / own.block).max(own.sinks / own.block);
        let local = (sight.position as usize + 1).saturating_sub(own.local) as u32;
        let most = budget.saturating_sub(own.sinks + own.local) / own.block;
        let pick = |(history, row): (&History, &Vec<f32>)| {
            let mut chosen = vec![false; blocks.end];
            if !blocks.is_empty() {
                let scores = match blocks.len() {
                    0..3 => vec![1.0; blocks.len()],
                    _ => self.predict(history, blocks.clone(), &pooled(sight.positions, row, own.block)),
                };
                let places = select(&scores, &vec![false; scores.len()], most);
                places.iter().for_each(|&place| chosen[blocks.start + place as usize] = true);
            }
            let read = |position: u32| {
                (position as usize) < own.sinks
                    || position >= local
                    || chosen.get(position as usize / own.block).is_some_and(|&chosen| chosen)
            };
            (0..).zip(sight.positions).filter(|(_, p)| read(**p)).map(|(slot, _)| slot).collect::<Vec<u32>>()
        };
        let heads: Vec<Vec<u32>> = self.layers[sight.layer].iter().zip(sight.dense).map(pick).collect();
        let rows = match own.by {
            By::Oracle => 0,
            By::Persistence => 1,
            By::Weights => self.layers[sight.layer].iter().map(VecDeque::len).max().unwrap_or(0),
        };
        let mut metadata = (4 * rows * heads.len() * blocks.len()) as u64;
        if self.calibrates(sight.position) {
            let mut unread = vec![true; n];
            heads.iter().flatten().for_each(|&slot| unread[slot as usize] = false);
            metadata += unread.iter().map(|&unread| unread as u64).sum::<u64>() * sight.entry / 2;
        }
        Choice::slots(heads, metadata)
    }

    fn learn(&mut self, sight: &Sight<'_>, rows: &[&[f32]]) {
        if self.own.by == By::Oracle || sight.layer < self.own.dense {
            return;
        }
        let dense = self.calibrates(sight.position);
        for ((history, row), all) in self.layers[sight.layer].iter_mut().zip(rows).zip(sight.dense) {
            history.push_back(pooled(sight.positions, if dense { all } else { row }, self.own.block));
            if history.len() > self.own.history {
                history.pop_front();
            }
        }
    }

    fn metadata(&self) -> u64 {
        self.layers.iter().flatten().flatten().map(|row| 4 * row.len() as u64).sum()
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
    use crate::policy::Policy;
    use crate::policy::testing::random_layer;
    use crate::policy::testing::reading::{dense, look, reader};

    /// The `count` blocks of 4 positions among `blocks` with the highest scores, and positions below 4 and from `local` on.
    fn expected(
        score: impl Fn(usize) -> f32,
        blocks: std::ops::Range<usize>,
        count: usize,
        local: usize,
        n: usize,
    ) -> Vec<u32> {
        let mut order: Vec<usize> = blocks.collect();
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        order.truncate(count);
        (0..n).filter(|p| *p < 4 || *p >= local || order.contains(&(p / 4))).map(|p| p as u32).collect()
    }

    fn most(row: &[f32], block: usize) -> f32 {
        row[block * 4..row.len().min(block * 4 + 4)].iter().copied().fold(0.0, f32::max)
    }

    #[test]
    fn the_oracle_reads_what_the_row_is_about_to_favour() {
        let mut layer = random_layer(21, (1, 2), 4, 60);
        (layer.newest, layer.held) = (49, vec![(0..50).collect()]);
        let mut oracle = reader("predictor@22:by=oracle,block=4,sinks=4,local=6,dense=1", &layer);
        assert_eq!(look(&layer, 0, |sight| oracle.read(sight)), Choice::all());
        layer.step();
        let choice = look(&layer, 1, |sight| oracle.read(sight));
        assert_eq!((choice.metadata, oracle.metadata()), (0, 0));
        for (row, head) in dense(&layer).iter().zip(choice.heads.unwrap()) {
            // 50 positions before: 13 blocks, the last of which is local; (22 − 10) / 4 of them
            assert_eq!(head.slots, expected(|b| most(row, b), 1..12, 3, 45, 51));
        }
    }

    /// What was not read keeps the score of the row that read it last; the dense row sets all right.
    #[test]
    fn persistence_goes_by_the_newest_row_that_read_the_block() {
        let mut layer = random_layer(22, (1, 1), 4, 60);
        (layer.newest, layer.held) = (49, vec![(0..50).collect()]);
        let spec = "predictor@22:history=3,block=4,sinks=4,local=6,calibrate=3,dense=0";
        let mut persistent = reader(spec, &layer);
        let mut rows: Vec<Vec<f32>> = dense(&layer);
        for step in 1..=7usize {
            layer.step();
            let n = 50 + step;
            let all = dense(&layer).remove(0);
            let kept = rows.len().saturating_sub(3);
            let score = |block: usize| {
                let reached = rows[kept..].iter().rev().filter(|row| row.len() > block * 4);
                reached.map(|row| most(row, block)).find(|&p| p > 0.0).unwrap_or(0.0)
            };
            let end = (n - 1).div_ceil(4) - 1;
            let slots = expected(score, 1..end, 3, n - 6, n);
            let choice = look(&layer, 0, |sight| persistent.read(sight));
            let head = choice.heads.unwrap().remove(0);
            // the prompt's older rows are in the history at first, too
            if step > 3 {
                assert_eq!(head.slots, slots, "step {step}");
            }
            let calibration = if step % 3 == 0 { (n - head.slots.len()) as u64 * 8 } else { 0 };
            assert_eq!(choice.metadata, 4 * (end as u64 - 1) + calibration);
            let part: Vec<f32> = (0..n).map(|p| if head.slots.contains(&(p as u32)) { all[p] } else { 0.0 }).collect();
            look(&layer, 0, |sight| persistent.learn(sight, &[&part]));
            rows.push(if step % 3 == 0 { all } else { part });
        }
    }

    #[test]
    fn weights_are_asked_for_by_name() {
        let refused = |spec: &str| Policy::parse(spec).unwrap_err().to_string();
        assert!(refused("predictor:by=weights").contains("needs `file=NAME`"));
        assert!(refused("predictor:file=x").contains("no use for `file`"));
        assert!(refused("predictor:by=weights,file=/nonexistent").contains("/nonexistent"));
    }
}
