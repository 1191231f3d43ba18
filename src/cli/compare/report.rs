//! What `compare --json` prints: a contract with scripts, described in the README.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::engine::frame::{Effect, PromptSpan, Survival};
use crate::policy::sharing::Shared;

pub const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub model: String,
    pub model_sha256: String,
    pub device: String,
    pub precision: String,
    pub kv_type: String,
    pub prompt_ids: Vec<u32>,
    pub steps: u32,
    /// Every lane was fed lane 0's tokens.
    pub teacher_forced: bool,
    /// Named parts of the prompt: what a chat template's roles or blank lines say, or `--span`.
    pub spans: Vec<PromptSpan>,
    /// Lane 0, which keeps everything, comes first.
    pub lanes: Vec<LaneReport>,
}

/// Layers, kv heads, heads and steps are counted from 0, steps in `regret` from 1; steps 1..N feed one token each.
#[derive(Debug, Default, Serialize)]
pub struct LaneReport {
    pub spec: String,
    pub family: String,
    /// The lane's attention runs on the CPU although the model does not.
    pub on_host: bool,
    /// Positions held after the prompt `[layer][kv head][positions]`.
    pub kept: Vec<Vec<Vec<u32>>>,
    /// `[layer][kv head]`
    pub n_kept: Vec<Vec<usize>>,
    /// True bytes of keys and values, scales and zero points included, after the prompt; `_full` is what lane 0 holds, `_end` is after the last step.
    pub kv_bytes: u64,
    pub kv_bytes_full: u64,
    pub kv_bytes_end: u64,
    /// Of the keys and values held after the prompt: codes, scales, zero points and what is not packed.
    pub bits_per_element: f32,
    /// The first token after the prompt is lane 0's.
    pub first_token_equal: bool,
    /// What the lane chose before each step, given what it was fed [N].
    pub ids: Vec<u32>,
    pub text: String,
    /// KL(lane 0 ‖ lane) after each step, nats [N].
    pub kl: Vec<f32>,
    /// The same with both fed lane 0's tokens [N].
    pub kl_teacher_forced: Vec<f32>,
    /// Up to and with each step, the lane has been fed lane 0's tokens [N].
    pub same_prefix: Vec<bool>,
    /// Share of steps after which lane and lane 0 prefer the same token; `null` without steps.
    pub top1_agree: Option<f32>,
    /// Mean −ln p of lane 0's continuation when fed it, nats; `null` without steps.
    pub nll: Option<f32>,
    /// The same less lane 0's own: what the lane costs.
    pub delta_nll: Option<f32>,
    /// −ln p of lane 0's next token after each step [N].
    pub nll_steps: Vec<f32>,
    /// The most probable tokens after each step, best first.
    pub logits_top: Vec<Vec<Top>>,
    pub damage: Damage,
    /// Mean over layers and kv heads of |A ∩ B| / |A ∪ B| of the sets kept after the prompt, by the other's spec.
    pub jaccard_to: BTreeMap<String, f32>,
    /// Of each span what is held after the prompt.
    pub spans: Vec<SpanLeft>,
    /// Share of lane 0's attention at each step that falls on what the lane held, both fed lane 0's tokens, mean over the
    /// heads of the layers that may evict [N]; empty where nothing is evicted.
    pub covered_mass: Vec<f32>,
    /// The sets kept after the prompt, seen from the end; `null` without steps, and where nothing was evicted.
    pub hindsight: Option<Judgement>,
    /// Share of an oracle lane's sets that the lane holds after the prompt, mean over the kv heads in which both have
    /// evicted, by the oracle's spec.
    pub recall_of: BTreeMap<String, f32>,
    /// Strongest first.
    pub regret: Vec<Regret>,
    /// What the steps read, where that is not all; `null` else.
    pub reads: Option<Reads>,
    /// The same for all rows of the prompt together, where the lane read that sparsely [1].
    pub prompt_reads: Option<Reads>,
    pub timings: Timings,
    /// What the lane's interventions made of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// How the lane's layers share, and what was tried to find out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Shared>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scores: Option<Scores>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_found: Option<bool>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Top {
    pub id: u32,
    pub logit: f32,
}

/// Of lane 0's newest query at the end of the prompt, if its cache held this lane's entries only, stored as it does, and
/// its layers read what this lane's read.
#[derive(Debug, Default, Serialize)]
pub struct Damage {
    /// Probability on evicted entries `[layer][head]`.
    pub lost_mass: Vec<Vec<f32>>,
    /// ‖o' − o‖ / ‖o‖ over the heads of a layer; `null` where nothing that the query looks at is left.
    pub out_rel_err: Vec<Option<f32>>,
}

/// One span in one lane; shares of its positions, 0..=1.
#[derive(Debug, Clone, Serialize)]
pub struct SpanLeft {
    pub name: Arc<str>,
    /// Mean over the layers that may evict and their kv heads.
    pub share: f32,
    /// The least, and the first layer and kv head that has it.
    pub least: f32,
    pub layer: u32,
    pub kv_head: u32,
}

impl SpanLeft {
    pub fn of(span: &PromptSpan, left: Survival) -> Self {
        let Survival { share, least, layer, kv_head } = left;
        Self { name: span.name.clone(), share, least, layer, kv_head }
    }
}

/// A lane's sets against the best ones of the same sizes: those prompt entries of each kv head that lane 0's steps gave
/// most attention, which is what an oracle of as many tokens keeps. All shares are 0..=1.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Judgement {
    /// |kept ∩ best| / |best|, mean over the kv heads in which something was evicted.
    pub recall: f32,
    /// The least, and the first layer and kv head that has it.
    pub least: f32,
    pub layer: u32,
    pub kv_head: u32,
    /// Share of the steps' attention in lane 0 that falls on the set, or on what was generated: mean over the kv heads of
    /// the layers that may evict. The same of the best set, and their quotient.
    pub covered: f32,
    pub covered_by_best: f32,
    pub of_best: f32,
}

/// Of each step of a lane that reads a part of its cache; nothing is evicted by that, and no memory is saved.
#[derive(Debug, Default, Serialize)]
pub struct Reads {
    /// Entries read by a query head of their kv head, and those there were, all layers and kv heads together [N].
    pub entries: Vec<u64>,
    pub entries_seen: Vec<u64>,
    /// Bytes of the keys and values read, of those seen, and bytes read to choose by [N].
    pub bytes: Vec<u64>,
    pub bytes_seen: Vec<u64>,
    pub metadata_bytes: Vec<u64>,
    /// (bytes + metadata_bytes) / bytes_seen [N].
    pub share: Vec<f32>,
    /// Bytes held beside the cache to choose by, after the last step.
    pub metadata_held: u64,
    /// Share of the dense attention that falls on what was read: mean and least over layers and heads [N].
    pub covered_mean: Vec<f32>,
    pub covered_min: Vec<f32>,
    /// The same, mean over the steps `[layer][head]`.
    pub covered: Vec<Vec<f32>>,
}

/// An evicted entry that lane 0 looks at later: the step at which it does so most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Regret {
    pub position: u32,
    pub step: u32,
    /// Lane 0's probability on it.
    pub mass: f32,
    pub layer: u32,
    pub head: u32,
}

/// Wall times; all lanes decode as one batch, so they are the same for every lane.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Timings {
    pub prompt_ns: u64,
    pub step_ns: Vec<u64>,
    pub lanes_in_batch: usize,
}

/// Raw scores of the policy after the prompt: higher stays.
#[derive(Debug, Default, Serialize)]
pub struct Scores {
    /// `[layer][kv head][position]`; empty for a layer that the policy leaves alone.
    pub values: Vec<Vec<Vec<f32>>>,
    /// Positions that stay whatever their score `[layer][kv head][positions]`.
    pub forced: Vec<Vec<Vec<u32>>>,
}
