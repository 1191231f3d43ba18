//! KVzip: keep what the model looks at when it repeats the context (Kim et al. 2025, arXiv 2505.23416).
//!
//! After the prompt the model reads, behind the cache, "\n\nRepeat the previous context exactly.", a line break and the
//! context once more, in chunks (later ones: "…starting with" and the last 8 tokens of the chunk before). Score of an
//! entry: the largest attention that any row of this replay, in any query head of the group, pays it; the softmax is
//! over the sinks, the chunk and the replay itself. What was read for it is forgotten again. KVzip+ (`plus=on`, by
//! kvpress): attention / ‖h_i‖ · ‖W_O v_t‖₂, where h_i is what the layer's attention was given at row i.
//!
//! `share=all`: heads of all layers compete for the budget (one order over everything), so layers and heads keep
//! different amounts; `share=layer`: each layer keeps the same, its heads compete. sinks = 4 always stay; chunk = 2048.
//! All prompt tokens are context: a chat template is replayed with the rest, where kvpress leaves its prefix at
//! score 0, so that it goes first. Costs two further passes over the prompt. kvpress refuses Gemma 3; here its
//! full-attention layers compete.

use std::ops::Range;
use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key};
use super::part::{LaneView, LayerView, Moment, Norm, Part, Scorer, Scores, Start};
use super::registry::REGISTERED;
use super::surveyed::{Known, SHARE, Share, Surveyed, held};

static PLUS: Key<Choice<bool>> =
    Key::new("plus", "KVzip+: attention / ‖h‖ · ‖W_O v‖", Choice(&[("off", false), ("on", true)]), false);
static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(0, 1_000_000), 4);
static CHUNK: Key<Count> = Key::new("chunk", "tokens repeated in one go", Count(1, 1_000_000), 2048);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "kvzip",
    family: Family::Scorer,
    idea: "keep what the model looks at to repeat the prompt (reads it again, twice the prompt's time)",
    paper: Some(Paper {
        title: "KVzip: Query-Agnostic KV Cache Compression with Context Reconstruction",
        arxiv: "2505.23416",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&SHARE, &PLUS, &SINKS, &CHUNK],
    build: |spec| {
        Part::scorer(KvZip {
            share: spec.get(&SHARE),
            plus: spec.get(&PLUS),
            sinks: spec.get(&SINKS) as usize,
            chunk: spec.get(&CHUNK) as usize,
        })
    },
};

struct KvZip {
    share: Share,
    plus: bool,
    sinks: usize,
    chunk: usize,
}

/// Tokens of the chunk before that a later chunk is announced with.
const CUE: usize = 8;

impl Scorer for KvZip {
    fn decodes(&self) -> bool {
        false
    }

    fn surveys(&self) -> bool {
        true
    }

    fn shares(&self) -> bool {
        true
    }

    fn survey(&self, at: Moment, mean: f64, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        let mut layers = held(lane, at.layers);
        let tokens = lane.tokens();
        for from in (0..tokens.len()).step_by(self.chunk) {
            let chunk = from..(from + self.chunk).min(tokens.len());
            let replay = self.replay(lane, &tokens[chunk.clone()], &tokens[from.saturating_sub(CUE)..from]);
            lane.ahead(Start::Behind, &mut |ahead| {
                ahead.read(&replay);
                let first = tokens.len() as u32;
                for (layer, known) in layers.iter_mut().enumerate() {
                    let Some(known) = known else { continue };
                    let norms = self.plus.then(|| ahead.input_norms()[layer].clone());
                    ahead.lane(&mut |lane| {
                        lane.layer(layer, &mut |view| {
                            let rows = first..first + replay.len() as u32;
                            for kv_head in 0..view.kv_heads() {
                                self.note(view, kv_head, rows.clone(), &chunk, norms.as_deref(), known);
                            }
                        });
                    });
                }
            });
        }
        layers.iter_mut().flatten().for_each(|known| known.keep_first(self.sinks));
        self.share.divide(&mut layers, mean);
        Some(Arc::new(Surveyed { layers }))
    }

    fn score(&self, _: Moment, _: usize, _: &dyn LayerView) -> Option<Scores> {
        None
    }
}

impl KvZip {
    /// What is read to make the model repeat `chunk`; `before`: the end of the chunk before, if there is one.
    fn replay(&self, lane: &dyn LaneView, chunk: &[u32], before: &[u32]) -> Vec<u32> {
        let ask = match before {
            [] => "\n\nRepeat the previous context exactly.",
            _ => "\n\nRepeat the part of the previous context exactly, starting with",
        };
        let mut ids = lane.text().encode(ask);
        ids.extend(before);
        ids.extend(lane.text().encode("\n"));
        ids.extend(chunk);
        ids
    }

    /// Puts the largest attention that rows `rows` pay the entries of `chunk` among the scores. `view` holds the replay,
    /// too.
    fn note(
        &self,
        view: &dyn LayerView,
        kv_head: usize,
        rows: Range<u32>,
        chunk: &Range<usize>,
        norms: Option<&[f32]>,
        known: &mut Known,
    ) {
        const BLOCK: u32 = 128;
        let positions = view.positions(kv_head);
        let n = positions.len();
        let place = |p: usize| positions.partition_point(|&q| (q as usize) < p);
        let (sinks, slots) = (place(self.sinks.min(chunk.start)), place(chunk.start)..place(chunk.end));
        let replay = place(rows.start as usize)..n;
        let apart = slots.start > sinks || slots.end < replay.start;
        for head in kv_head * view.group()..(kv_head + 1) * view.group() {
            let mut most = vec![0.0f32; slots.len()];
            for from in rows.clone().step_by(BLOCK as usize) {
                let block = from..(from + BLOCK).min(rows.end);
                for (i, row) in (from - rows.start..).zip(view.rows(head, block).chunks_exact(n.max(1))) {
                    let mut factor = norms.map_or(1.0, |norms| 1.0 / norms[i as usize]);
                    if apart {
                        let parts = [&row[..sinks], &row[slots.clone()], &row[replay.clone()]];
                        factor /= parts.iter().map(|part| part.iter().sum::<f32>()).sum::<f32>();
                    }
                    most.iter_mut().zip(&row[slots.clone()]).for_each(|(most, a)| *most = most.max(a * factor));
                }
            }
            if norms.is_some() {
                let outputs = view.projected(head, Norm::L2);
                most.iter_mut().zip(&outputs[slots.clone()]).for_each(|(most, norm)| *most *= norm);
            }
            let scores = &mut known.scores.values[kv_head][slots.clone()];
            scores.iter_mut().zip(most).for_each(|(score, most)| *score = score.max(most));
        }
    }
}
