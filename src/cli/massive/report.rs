//! What `massive --json` prints, described in the README.

use serde::Serialize;

use crate::probe::massive::Magnitudes;

pub const SCHEMA: u32 = 1;

/// Layers, heads, channels and positions are counted from 0.
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub model: String,
    pub device: String,
    pub precision: String,
    pub source: String,
    /// Texts, and tokens of each, BOS included.
    pub texts: usize,
    pub length: usize,
    /// With the model's BOS token before each text, and without; the first is missing where the model names none.
    pub runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
pub struct Run {
    pub bos: bool,
    /// Residual points: embedding, then after each sublayer; the median and the three largest elements over all texts,
    /// one of each (position, channel) [1 + 2 · layers].
    pub points: Vec<Magnitudes>,
    /// First and last layer whose output has elements that pass both bounds.
    pub layers: Option<[usize; 2]>,
    /// The first point of massive elements in most texts, by both bounds or by the ratio alone, and what wrote them.
    pub onset: Option<Onset>,
    /// Largest |x| of all points.
    pub most: f32,
    /// It is above half of the largest f16.
    pub f16_overflow: bool,
    /// Share of heads, over layers and texts, with α_0 > 0.3.
    pub sink_rate: f32,
    /// Of the kv heads of which some query head has α_0 > 0.1: share whose first value is shorter than the median less
    /// 2 · IQR of the text's, and the median of ‖v_0‖ / median ‖v‖.
    pub drained: f32,
    pub value_ratio: f32,
    /// Share of tokens, the first and the later ones, with φ ≥ 20 at the middle layer's output; φ's channels are the
    /// massive ones.
    pub generic_sinks: [f32; 2],
    /// Mean −ln p of the texts' tokens, nats, and e to it.
    pub nll: f32,
    pub perplexity: f32,
    /// Massive elements at the first point that has them in each text, set; empty without any.
    pub interventions: Vec<Intervention>,
}

#[derive(Debug, Serialize)]
pub struct Onset {
    pub point: usize,
    pub writer: String,
    /// In how many texts they first appear there.
    pub texts: usize,
    /// Channels of the massive elements, with their means over first tokens and over later massive ones.
    pub channels: Vec<Channel>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Channel {
    pub channel: u32,
    /// Texts whose first token is massive in it, and later tokens that are.
    pub first: usize,
    pub later: usize,
    pub first_mean: Option<f32>,
    pub later_mean: Option<f32>,
}

#[derive(Debug, Serialize)]
pub struct Intervention {
    pub name: &'static str,
    pub nll: f32,
    pub perplexity: f32,
    /// KL(original ‖ altered), nats a token.
    pub kl: f32,
    /// Share of tokens before which another one is preferred.
    pub flips: f32,
    pub sink_rate: f32,
}
