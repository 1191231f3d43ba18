//! What `exits` found out; the JSON is this.

use serde::Serialize;

use crate::probe::influence::AlikeSpan;

pub const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub model: String,
    pub device: String,
    pub precision: String,
    pub prompt_tokens: usize,
    /// Tokens drafted before each look.
    pub gamma: u32,
    pub temperature: f32,
    /// At which chances of acceptance are taken: the temperature, 1 where that is 0.
    pub acceptance_temperature: f32,
    pub tokens: Vec<Token>,
    /// After 0, 1, …, L layers.
    pub layers: Vec<Depth>,
    pub confidence: Vec<Confidence>,
    /// 1 − cos of what goes in and what comes out, mean over the prompt [2L], attention and MLP in turn.
    pub influence: Vec<f32>,
    /// Of 1, 2, … layers those that turn the stream least.
    pub alike_spans: Vec<AlikeSpan>,
    pub drafts: Vec<Draft>,
    /// Decoding without drafts by the same loop, tokens per second.
    pub plain_tokens_per_s: f64,
}

/// One decoded step.
#[derive(Debug, Serialize)]
pub struct Token {
    pub position: usize,
    pub fed: u32,
    /// What the last layer finds most probable, and how it is spelled.
    pub next: u32,
    pub text: String,
    /// Layers after which the best token stays that one.
    pub exit_depth: usize,
    /// Of that token after each number of layers [L + 1].
    pub probability: Vec<f32>,
    pub rank: Vec<u32>,
    /// Nats [L + 1].
    pub entropy: Vec<f32>,
    /// KL(last layer ‖ this), nats [L + 1].
    pub kl: Vec<f32>,
}

/// After so many layers, over all steps.
#[derive(Debug, Serialize)]
pub struct Depth {
    pub layers: usize,
    /// Share of the steps with this exit depth.
    pub exits: f32,
    /// Share of the steps in which the best token is the last layer's.
    pub agreement: f32,
    /// Means, and the median rank.
    pub probability: f32,
    pub rank: u32,
    pub entropy: f32,
    pub kl: f32,
    #[serde(flatten)]
    pub draft: Chance,
}

/// A draft's chances by the formulas.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Chance {
    /// Mean over the steps of Σ min(p, q).
    pub acceptance: f32,
    /// Draft over model, by the weights that they multiply with.
    pub cost: f32,
    /// (1 − a^(γ+1)) / (1 − a)
    pub tokens_per_look: f32,
    /// That over γ·cost + 1.
    pub speedup: f32,
}

/// Leaving at the first layer that is sure enough.
#[derive(Debug, Serialize)]
pub struct Confidence {
    pub at_least: f32,
    /// Layers that run in any case.
    pub from: usize,
    /// Share of the steps that leave after 0, 1, …, L layers [L + 1].
    pub exits: Vec<f32>,
    /// Share of the steps whose token is the whole model's.
    pub agreement: f32,
    /// Mean.
    pub layers_saved: f32,
}

#[derive(Debug, Serialize)]
pub struct Draft {
    pub spec: String,
    /// Sublayers left out: attention of layer l is 2l, its MLP 2l + 1.
    pub skipped: Vec<usize>,
    /// Share of the steps in which both find the same token most probable.
    pub agreement: f32,
    /// KL(model ‖ draft), nats, mean.
    pub kl: f32,
    #[serde(flatten)]
    pub chance: Chance,
    pub run: Run,
}

/// Speculative decoding that was really done.
#[derive(Debug, Serialize)]
pub struct Run {
    pub tokens: usize,
    pub looks: u32,
    pub drafted: u32,
    pub accepted: u32,
    pub tokens_per_look: f32,
    pub tokens_per_s: f64,
    /// Over the model alone.
    pub speedup: f64,
    /// Greedily: the same tokens as without drafts.
    pub same_tokens: Option<bool>,
}
