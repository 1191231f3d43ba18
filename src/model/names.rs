//! What each tensor of a decoder is called in GGUF files and in Hugging Face checkpoints.

/// A tensor that every layer has, or may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    AttnNorm,
    Q,
    K,
    V,
    QNorm,
    KNorm,
    O,
    PostAttnNorm,
    MlpNorm,
    Gate,
    Up,
    Down,
    PostMlpNorm,
}

/// Which of the two vocabularies a file speaks.
#[derive(Debug, Clone)]
pub(super) enum Names {
    Gguf,
    /// `body` stands before `layers.0…`, `head` is the whole name of the head.
    Hf { body: &'static str, head: &'static str },
}

/// Where Hugging Face checkpoints keep the language model: alone, or inside a vision model of either generation.
pub(super) const HF_LAYOUTS: [Names; 4] = [
    Names::Hf { body: "model.", head: "lm_head.weight" },
    Names::Hf { body: "model.language_model.", head: "lm_head.weight" },
    Names::Hf { body: "language_model.model.", head: "language_model.lm_head.weight" },
    Names::Hf { body: "", head: "lm_head.weight" },
];

impl Names {
    pub fn embed(&self) -> String {
        match self {
            Names::Gguf => "token_embd.weight".into(),
            Names::Hf { body, .. } => format!("{body}embed_tokens.weight"),
        }
    }

    pub fn final_norm(&self) -> String {
        match self {
            Names::Gguf => "output_norm.weight".into(),
            Names::Hf { body, .. } => format!("{body}norm.weight"),
        }
    }

    pub fn head(&self) -> String {
        match self {
            Names::Gguf => "output.weight".into(),
            Names::Hf { head, .. } => (*head).into(),
        }
    }

    /// `suffix` is `weight` or `bias`; `sandwich` tells which norm Hugging Face means by `post_attention_layernorm`.
    pub fn layer(&self, layer: usize, part: Part, suffix: &str, sandwich: bool) -> String {
        match self {
            Names::Gguf => format!("blk.{layer}.{}.{suffix}", part.gguf()),
            Names::Hf { body, .. } => format!("{body}layers.{layer}.{}.{suffix}", part.hf(sandwich)),
        }
    }
}

impl Part {
    const fn gguf(self) -> &'static str {
        match self {
            Part::AttnNorm => "attn_norm",
            Part::Q => "attn_q",
            Part::K => "attn_k",
            Part::V => "attn_v",
            Part::QNorm => "attn_q_norm",
            Part::KNorm => "attn_k_norm",
            Part::O => "attn_output",
            Part::PostAttnNorm => "post_attention_norm",
            Part::MlpNorm => "ffn_norm",
            Part::Gate => "ffn_gate",
            Part::Up => "ffn_up",
            Part::Down => "ffn_down",
            Part::PostMlpNorm => "post_ffw_norm",
        }
    }

    const fn hf(self, sandwich: bool) -> &'static str {
        match self {
            Part::AttnNorm => "input_layernorm",
            Part::Q => "self_attn.q_proj",
            Part::K => "self_attn.k_proj",
            Part::V => "self_attn.v_proj",
            Part::QNorm => "self_attn.q_norm",
            Part::KNorm => "self_attn.k_norm",
            Part::O => "self_attn.o_proj",
            Part::PostAttnNorm => "post_attention_layernorm",
            Part::MlpNorm if sandwich => "pre_feedforward_layernorm",
            Part::MlpNorm => "post_attention_layernorm",
            Part::Gate => "mlp.gate_proj",
            Part::Up => "mlp.up_proj",
            Part::Down => "mlp.down_proj",
            Part::PostMlpNorm => "post_feedforward_layernorm",
        }
    }
}
