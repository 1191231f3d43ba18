//! Configuration from GGUF metadata (keys `{architecture}.…`).
//!
//! GGUF leaves out what llama.cpp knows by heart: Gemma's window patterns, its local rope base and the query scale
//! of its largest members. They are filled in here.

use super::config::{Activation, Config, Family, LayerKind, Rope, RopeScaling};
use super::config_check::{ConfigError, check};
use super::error::Quoted;
use super::gguf::{Gguf, GgufError, Metadata};
use super::tensor::DType;

/// Tokens that end a turn in these families' vocabularies, beside the one that the header names.
const TURN_ENDS: [&str; 4] = ["<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|endoftext|>"];

/// Metadata under one architecture's prefix.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn size(&self, name: &str) -> Result<Option<usize>, GgufError> {
        let number = self.metadata.unsigned(&self.key(name))?;
        Ok(number.map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    }

    fn need(&self, name: &str) -> Result<usize, ConfigError> {
        self.size(name)?.ok_or_else(|| ConfigError::Missing(self.key(name)))
    }

    fn float(&self, name: &str) -> Result<Option<f32>, GgufError> {
        self.metadata.float(&self.key(name))
    }
}

/// Fill a configuration from the file's metadata and check it.
pub(super) fn read(gguf: &Gguf) -> Result<Config, ConfigError> {
    let metadata = &gguf.metadata;
    let architecture =
        metadata.text("general.architecture")?.ok_or_else(|| ConfigError::Missing("general.architecture".into()))?;
    let family = family(architecture)?;
    let keys = Keys { metadata, architecture };
    let gemma = matches!(family, Family::Gemma2 | Family::Gemma3);

    let hidden = keys.need("embedding_length")?;
    let heads = keys.need("attention.head_count")?;
    let head_dim = match keys.size("attention.key_length")? {
        Some(size) => size,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    for (name, what) in [("attention.value_length", "value size"), ("rope.dimension_count", "rotary size")] {
        if keys.size(name)?.is_some_and(|size| size != head_dim) {
            return Err(ConfigError::value(&keys.key(name), what, "equal to the key size"));
        }
    }
    let layer_count = keys.need("block_count")?;
    if layer_count > gguf.tensor_count() {
        return Err(ConfigError::value(&keys.key("block_count"), layer_count, "at most the number of tensors"));
    }
    let embed_rows = gguf.tensor("token_embd.weight").map_or(0, |tensor| tensor.rows);

    let config = Config {
        family,
        vocab: embed_rows,
        hidden,
        ff: keys.need("feed_forward_length")?,
        heads,
        kv_heads: keys.size("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        context: keys.need("context_length")?,
        norm_eps: keys
            .float("attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| ConfigError::Missing(keys.key("attention.layer_norm_rms_epsilon")))?,
        norm_plus_one: false,
        sandwich_norms: gemma,
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        qkv_bias: gguf.tensor("blk.0.attn_q.bias").is_some(),
        o_bias: gguf.tensor("blk.0.attn_output.bias").is_some(),
        mlp_bias: gguf.tensor("blk.0.ffn_down.bias").is_some(),
        activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
        embed_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
        attn_scale: 1.0 / (query_scale(family, layer_count, hidden, heads, head_dim) as f32).sqrt(),
        attn_softcap: if family == Family::Gemma2 {
            Some(keys.float("attn_logit_softcapping")?.unwrap_or(50.0))
        } else {
            None
        },
        final_softcap: match family {
            Family::Gemma2 => Some(keys.float("final_logit_softcapping")?.unwrap_or(30.0)),
            Family::Gemma3 => keys.float("final_logit_softcapping")?,
            _ => None,
        },
        layers: layers(&keys, family, layer_count)?,
        ropes: ropes(&keys, gguf, family)?,
        attnres: None,
        hyper: None,
        tied_head: gguf.tensor("output.weight").is_none(),
        bos: token_id(metadata, "tokenizer.ggml.bos_token_id")?,
        eos: ends(metadata)?,
    };
    check(&config)?;
    Ok(config)
}

fn family(architecture: &str) -> Result<Family, ConfigError> {
    Ok(match architecture {
        "llama" => Family::Llama,
        "mistral" => Family::Mistral,
        "qwen2" => Family::Qwen2,
        "qwen3" => Family::Qwen3,
        "gemma2" => Family::Gemma2,
        "gemma3" => Family::Gemma3,
        other => return Err(ConfigError::Architecture(Quoted::new(other))),
    })
}

/// The number whose root divides q·k. Gemma's 27B models use the hidden size per head instead of the head size.
fn query_scale(family: Family, layers: usize, hidden: usize, heads: usize, head_dim: usize) -> usize {
    match (family, layers) {
        (Family::Gemma2, 46) | (Family::Gemma3, 62) => hidden.checked_div(heads).unwrap_or(head_dim),
        _ => head_dim,
    }
}

/// Windows and ropes: Gemma 2 alternates (first local), Gemma 3 has every sixth layer global.
fn layers(keys: &Keys<'_>, family: Family, count: usize) -> Result<Vec<LayerKind>, ConfigError> {
    let window = keys.size("attention.sliding_window")?.filter(|w| *w > 0);
    let every = match family {
        Family::Gemma2 => 2,
        Family::Gemma3 => 6,
        _ => return Ok(vec![LayerKind { window, rope: 0 }; count]),
    };
    let window = window.ok_or_else(|| ConfigError::Missing(keys.key("attention.sliding_window")))?;
    let pattern = keys.key("attention.sliding_window_pattern");
    let local: Vec<bool> = match keys.metadata.integers(&pattern) {
        Ok(Some(switches)) if switches.len() == count => switches.iter().map(|s| *s != 0).collect(),
        Ok(Some(switches)) => {
            return Err(ConfigError::value(&pattern, switches.len(), "as long as there are layers"));
        }
        Ok(None) => (0..count).map(|layer| (layer + 1) % every != 0).collect(),
        Err(_) => match keys.size("attention.sliding_window_pattern")? {
            Some(every) if every > 0 => (0..count).map(|layer| (layer + 1) % every != 0).collect(),
            _ => return Err(ConfigError::value(&pattern, 0, "at least 1")),
        },
    };
    let local_rope = usize::from(family == Family::Gemma3);
    let kind = |local: bool| LayerKind { window: local.then_some(window), rope: if local { local_rope } else { 0 } };
    Ok(local.into_iter().map(kind).collect())
}

/// Rope 0 is the global one; Gemma 3 adds its local one, which is never stretched.
fn ropes(keys: &Keys<'_>, gguf: &Gguf, family: Family) -> Result<Vec<Rope>, ConfigError> {
    let theta = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
    let kind_key = keys.key("rope.scaling.type");
    let factor = match keys.float("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.float("rope.scale_linear")?,
    };
    let scaling = match keys.metadata.text(&kind_key)? {
        Some("none") => RopeScaling::None,
        None | Some("linear") => match factor {
            Some(factor) if factor != 1.0 => RopeScaling::Linear { factor },
            _ => RopeScaling::None,
        },
        Some(other) => return Err(ConfigError::Unsupported { what: kind_key, found: Quoted::new(other) }),
    };
    let mut ropes = vec![Rope { theta, scaling, factors: rope_factors(gguf)? }];
    if family == Family::Gemma3 {
        let theta = keys.float("rope.freq_base_swa")?.unwrap_or(10_000.0);
        ropes.push(Rope { theta, scaling: RopeScaling::None, factors: None });
    }
    Ok(ropes)
}

/// Llama 3's stretched frequencies, which the converter has worked out and stored as divisors.
fn rope_factors(gguf: &Gguf) -> Result<Option<Vec<f32>>, ConfigError> {
    let Some(tensor) = gguf.tensor("rope_freqs.weight") else { return Ok(None) };
    if tensor.dtype != DType::F32 {
        return Err(ConfigError::value("rope_freqs.weight", tensor.dtype, "of type F32"));
    }
    let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    Ok(Some(tensor.data().chunks_exact(4).map(number).collect()))
}

fn token_id(metadata: &Metadata, key: &str) -> Result<Option<u32>, ConfigError> {
    match metadata.unsigned(key)? {
        None => Ok(None),
        Some(id) => u32::try_from(id).map(Some).map_err(|_| ConfigError::value(key, id, "a token id")),
    }
}

/// Every token that ends a text or a turn: those that the header names, and well-known ones that it forgets.
fn ends(metadata: &Metadata) -> Result<Vec<u32>, ConfigError> {
    let mut ends = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        ends.extend(token_id(metadata, key)?);
    }
    let Some(pieces) = metadata.strings("tokenizer.ggml.tokens")? else { return Ok(ends) };
    let known =
        |range: &std::ops::Range<usize>| TURN_ENDS.iter().any(|end| end.as_bytes() == &metadata.map()[range.clone()]);
    ends.extend(
        pieces.iter().enumerate().filter(|(_, range)| known(range)).filter_map(|(id, _)| u32::try_from(id).ok()),
    );
    ends.sort_unstable();
    ends.dedup();
    Ok(ends)
}

/// llama's converter reorders Q and K; see `rope_layout`. Every other family's files keep their order.
pub(super) fn interleaved_rope(config: &Config) -> bool {
    matches!(config.family, Family::Llama | Family::Mistral)
}
