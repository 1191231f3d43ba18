//! RazorAttention: heads that retrieve keep everything, the others a window and one token for all that left (Tang et
//! al. 2024, arXiv 2407.15891).
//!
//! Calibration (`razor_heads`): random tokens, four times the same, are read from nothing. Echo score of a query head =
//! attention to the same token earlier, induction score = to the one after it. Retrieval heads: the best `echo` share
//! by the first and `induction` by the second; a kv head is one if any of its query heads is. The other kv heads keep
//! `sinks` first and L = max(`recent`, N/`c`) newest entries, N = prompt; what leaves, D, becomes one compensation token
//! in the slot of its first entry: mean key, mean value, and ln |D| added to its logit. While decoding, the oldest of the
//! window joins it at every step, and the means go on. Kv heads with a compensation token are the ones that stream:
//! where the prompt left nothing to compensate, nothing leaves later.
//!
//! echo = 1 %, induction = 14 %, sinks = 4, c = 5: the paper's (of rotated keys; no code of the authors is public). Its
//! `recent` is 4000, with which nothing happens on prompts up to that length: 32 here. Its calibration reads 4 · 2500
//! tokens; `tokens` = 128, and fewer where the context ends. It is an extra pass over 4 · tokens + 1 tokens.

use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::compensate::Compensate;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, OfBudget, SWITCH};
use super::part::{LaneView, LayerView, Moment, Part, Rewriter, Schedule, Scorer, Scores};
use super::razor_heads::{best, calibrate};
use super::registry::REGISTERED;
use super::window::recency;

static ECHO: Key<OfBudget> =
    Key::new("echo", "query heads of the model that retrieve by echo", OfBudget, Amount::percent(1));
static INDUCTION: Key<OfBudget> =
    Key::new("induction", "query heads of the model that retrieve by induction", OfBudget, Amount::percent(14));
static SINKS: Key<Count> = Key::new("sinks", "first positions that the others keep", Count(0, 1_000_000), 4);
static RECENT: Key<Count> = Key::new("recent", "newest entries that the others keep at least", Count(1, 1_000_000), 32);
static C: Key<Count> = Key::new("c", "they keep the newest 1/c of the prompt", Count(1, 1_000_000), 5);
static TOKENS: Key<Count> = Key::new("tokens", "random tokens that are read four times", Count(2, 1_000_000), 128);
static COMPENSATE: Key<Choice<bool>> = Key::new("compensate", "one token stands for all that left", SWITCH, true);
static SEED: Key<Count> = Key::new("seed", "which random tokens", Count(0, u64::MAX), 0).spelled_out();

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "razor",
    family: Family::Budget,
    idea: "heads that do not retrieve keep recent tokens and a mean of the rest (calibrates: an extra pass)",
    paper: Some(Paper {
        title: "RazorAttention: Efficient KV Cache Compression Through Retrieval Heads",
        arxiv: "2407.15891",
    }),
    budget: None,
    keys: &[&ECHO, &INDUCTION, &SINKS, &RECENT, &C, &TOKENS, &COMPENSATE, &SEED],
    build: |spec| {
        Part::scorer(Razor {
            shares: [spec.get(&ECHO), spec.get(&INDUCTION)],
            sinks: spec.get(&SINKS) as usize,
            recent: spec.get(&RECENT) as usize,
            c: spec.get(&C) as usize,
            tokens: spec.get(&TOKENS) as usize,
            compensate: spec.get(&COMPENSATE),
            seed: spec.get(&SEED),
            retrieves: Vec::new(),
        })
    },
};

#[derive(Clone)]
struct Razor {
    /// Of echo and of induction.
    shares: [Amount; 2],
    sinks: usize,
    recent: usize,
    c: usize,
    tokens: usize,
    compensate: bool,
    seed: u64,
    /// Once calibrated: query heads [layers][H]
    retrieves: Vec<Vec<bool>>,
}

impl Scorer for Razor {
    fn schedule(&self) -> Schedule {
        Schedule::EveryStep
    }

    fn rewriter(&self) -> Option<Arc<dyn Rewriter>> {
        self.compensate.then(|| Arc::new(Compensate { sinks: self.sinks }) as Arc<dyn Rewriter>)
    }

    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, at: Moment, _mean: f64, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        if at.step > 0 || at.prompt <= self.size(at) {
            return None;
        }
        let heads = calibrate(lane, at.layers, self.tokens, self.seed)?;
        let mut retrieves: Vec<Vec<bool>> = heads.iter().map(|heads| vec![false; heads.len()]).collect();
        for (kind, share) in self.shares.into_iter().enumerate() {
            best(&heads, kind, share).into_iter().for_each(|(layer, head)| retrieves[layer][head] = true);
        }
        Some(Arc::new(Self { retrieves, ..self.clone() }))
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        if at.step == 0 && self.retrieves.is_empty() {
            return None;
        }
        let mut scores = Scores::free(recency(view)).keep_first(self.sinks, view);
        let own = (0..view.kv_heads()).map(|kv_head| {
            let held = view.positions(kv_head).len();
            let streams = match at.step {
                0 => !self.retrieves[at.layer][kv_head * view.group()..(kv_head + 1) * view.group()].contains(&true),
                _ if self.compensate => view.offsets(kv_head).iter().any(|&offset| offset > 0.0),
                _ => held < view.seen() as usize,
            };
            let sinks = scores.forced[kv_head].iter().filter(|&&sink| sink).count();
            let size = self.size(at) + sinks - self.sinks.min(at.prompt);
            if !streams || held <= size {
                return held;
            }
            if self.compensate {
                scores.forced[kv_head][sinks] = true;
            }
            size
        });
        let own = own.collect();
        Some(Scores { own: Some(own), ..scores })
    }
}

impl Razor {
    /// Entries of a head that streams.
    fn size(&self, at: Moment) -> usize {
        self.sinks.min(at.prompt) + self.recent.max(at.prompt / self.c) + self.compensate as usize
    }
}

#[cfg(test)]
#[path = "razor_tests.rs"]
mod tests;
