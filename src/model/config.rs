//! What a decoder looks like, from its config alone: families differ in data, not in code.

use serde::{Deserialize, Serialize};

use super::residual::{AttnResKeys, HyperKeys};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma2,
    Gemma3,
}

impl Family {
    pub const fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Mistral => "mistral",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Gemma2 => "gemma2",
            Family::Gemma3 => "gemma3",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    Silu,
    /// 0.5·x·(1 + tanh(√(2/π)(x + 0.044715x³)))
    GeluTanh,
    /// 0.5·x·(1 + erf(x/√2))
    Gelu,
}

/// How rotary frequencies are stretched (all as in transformers' `modeling_rope_utils`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    None,
    Linear { factor: f32 },
    Llama3 { factor: f32, low_freq_factor: f32, high_freq_factor: f32, original_context: f32 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    pub theta: f32,
    pub scaling: RopeScaling,
    /// Divisors of the frequencies stored in the file (GGUF `rope_freqs.weight`), [head_dim / 2].
    pub factors: Option<Vec<f32>>,
}

impl Rope {
    /// Angular frequency of each channel pair, radians per position [head_dim / 2].
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let half = head_dim / 2;
        (0..half)
            .map(|i| {
                let f = 1.0 / self.theta.powf((2 * i) as f32 / head_dim as f32);
                let f = match self.factors.as_ref() {
                    Some(divisors) => f / divisors[i],
                    None => f,
                };
                match self.scaling {
                    RopeScaling::None => f,
                    RopeScaling::Linear { factor } => f / factor,
                    RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                        let wavelength = 2.0 * std::f32::consts::PI / f;
                        let low = original_context / low_freq_factor;
                        let high = original_context / high_freq_factor;
                        if wavelength < high {
                            f
                        } else if wavelength > low {
                            f / factor
                        } else {
                            let smooth = (original_context / wavelength - low_freq_factor)
                                / (high_freq_factor - low_freq_factor);
                            (1.0 - smooth) * f / factor + smooth * f
                        }
                    }
                }
            })
            .collect()
    }
}

/// What differs between the layers of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerKind {
    /// Keys older than `window` positions are invisible (a query sees `window` keys, its own included).
    pub window: Option<usize>,
    /// Index into `Config::ropes`.
    pub rope: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub family: Family,
    pub vocab: usize,
    pub hidden: usize,
    pub ff: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Longest context the model was made for, tokens.
    pub context: usize,
    pub norm_eps: f32,
    /// Norm weights are stored as w and applied as 1 + w (Gemma on the hub; GGUF files already hold 1 + w).
    pub norm_plus_one: bool,
    /// Extra norms on the outputs of attention and MLP (Gemma).
    pub sandwich_norms: bool,
    /// RMS norm of each query and key head before rope (Qwen3, Gemma 3).
    pub qk_norm: bool,
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub mlp_bias: bool,
    pub activation: Activation,
    /// Embeddings are multiplied by this (Gemma: √hidden).
    pub embed_scale: f32,
    /// Factor on q·k.
    pub attn_scale: f32,
    /// s ← cap·tanh(s / cap) on attention scores and on logits (Gemma 2).
    pub attn_softcap: Option<f32>,
    pub final_softcap: Option<f32>,
    /// One entry per layer.
    pub layers: Vec<LayerKind>,
    pub ropes: Vec<Rope>,
    /// Of models that mix depth by Attention Residuals.
    pub attnres: Option<AttnResKeys>,
    /// Of models with hyper-connections.
    pub hyper: Option<HyperKeys>,
    /// The head is the embedding table.
    pub tied_head: bool,
    pub bos: Option<u32>,
    pub eos: Vec<u32>,
}
