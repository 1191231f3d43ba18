//! Configuration from a Hugging Face `config.json`, written by transformers 5 (`rope_parameters`, `layer_types`) or
//! before (`rope_theta`, `rope_scaling`, `rope_local_base_freq`, `sliding_window_pattern`).

mod keys;
pub(super) mod kv;
mod layers;
mod rope;
#[cfg(test)]
mod tests;

use serde_json::Value;

use self::keys::Keys;
use super::config::{Activation, Config, Family};
use super::config_check::{ConfigError, check};
use super::error::Quoted;
use super::residual::{AttnResKeys, HyperKeys, K3_TYPES, MOST_STREAMS};

/// What transformers fills in for a family when the file says nothing.
struct Defaults {
    head_dim: Option<usize>,
    kv_heads: Option<usize>,
    context: usize,
    tied_head: bool,
    activation: &'static str,
}

const fn defaults(family: Family) -> Defaults {
    match family {
        Family::Gemma2 => Defaults {
            head_dim: Some(256),
            kv_heads: Some(4),
            context: 8192,
            tied_head: true,
            activation: "gelu_pytorch_tanh",
        },
        Family::Gemma3 => Defaults {
            head_dim: Some(256),
            kv_heads: Some(4),
            context: 131_072,
            tied_head: true,
            activation: "gelu_pytorch_tanh",
        },
        Family::Qwen3 => {
            Defaults { head_dim: Some(128), kv_heads: Some(32), context: 32_768, tied_head: false, activation: "silu" }
        }
        Family::Qwen2 => {
            Defaults { head_dim: None, kv_heads: Some(32), context: 32_768, tied_head: false, activation: "silu" }
        }
        Family::Mistral => {
            Defaults { head_dim: None, kv_heads: Some(8), context: 131_072, tied_head: false, activation: "silu" }
        }
        Family::Llama => {
            Defaults { head_dim: None, kv_heads: None, context: 2048, tied_head: false, activation: "silu" }
        }
    }
}

/// Fill a configuration from the parsed `config.json` and check it.
pub(super) fn read(json: &Value) -> Result<Config, ConfigError> {
    let outer = Keys(json.as_object().ok_or_else(|| ConfigError::Missing("model_type".into()))?);
    // Gemma 3 with vision keeps the language model's part one level down, tokens and head on either.
    let keys = outer.object("text_config")?.unwrap_or(outer);
    let model_type = match keys.text("model_type")? {
        Some(kind) => kind,
        None => outer.text("model_type")?.ok_or_else(|| ConfigError::Missing("model_type".into()))?,
    };
    let family = family(model_type)?;
    let gemma = matches!(family, Family::Gemma2 | Family::Gemma3);
    let gemma3 = family == Family::Gemma3;
    let defaults = defaults(family);
    if keys.bool("use_bidirectional_attention")? == Some(true) {
        return Err(ConfigError::Unsupported { what: "attention".into(), found: Quoted::new("bidirectional") });
    }

    // Gemma 3's published vision configs leave these five to transformers' defaults.
    let hidden = keys.need("hidden_size", gemma3.then_some(2304))?;
    let heads = keys.need("num_attention_heads", gemma3.then_some(8))?;
    let layer_count = keys.need("num_hidden_layers", gemma3.then_some(26))?;
    let head_dim = match keys.size("head_dim")?.or(defaults.head_dim) {
        Some(size) => size,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    let query_scale = match keys.float("query_pre_attn_scalar")?.filter(|_| gemma) {
        Some(scale) => scale,
        None if gemma => 256.0,
        None => head_dim as f32,
    };
    let attention_bias = keys.bool("attention_bias")?.unwrap_or(false);
    let config = Config {
        family,
        vocab: keys.need("vocab_size", gemma3.then_some(262_208))?,
        hidden,
        ff: keys.need("intermediate_size", gemma3.then_some(9216))?,
        heads,
        kv_heads: keys.need("num_key_value_heads", Some(defaults.kv_heads.unwrap_or(heads)))?,
        head_dim,
        context: keys.need("max_position_embeddings", Some(defaults.context))?,
        norm_eps: keys.float("rms_norm_eps")?.unwrap_or(1e-6),
        norm_plus_one: gemma,
        sandwich_norms: gemma,
        qk_norm: matches!(family, Family::Qwen3 | Family::Gemma3),
        qkv_bias: attention_bias || family == Family::Qwen2,
        o_bias: attention_bias && family != Family::Qwen2,
        mlp_bias: keys.bool("mlp_bias")?.unwrap_or(false),
        activation: activation(keys, defaults.activation)?,
        embed_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
        attn_scale: 1.0 / query_scale.sqrt(),
        attn_softcap: softcap(keys, family, "attn_logit_softcapping", 50.0)?,
        final_softcap: softcap(keys, family, "final_logit_softcapping", 30.0)?,
        layers: layers::read(keys, family, layer_count)?,
        ropes: rope::read(keys, family)?,
        attnres: attnres(keys)?,
        hyper: hyper(keys)?,
        tied_head: match keys.bool("tie_word_embeddings")? {
            Some(tied) => tied,
            None => outer.bool("tie_word_embeddings")?.unwrap_or(defaults.tied_head),
        },
        bos: token_ids(keys, outer, "bos_token_id")?.first().copied(),
        eos: token_ids(keys, outer, "eos_token_id")?,
    };
    check(&config)?;
    Ok(config)
}

/// `attnres_*` (Qwen3 skeletons and their like) and Kimi K3's `attn_res_block_size`.
fn attnres(keys: Keys<'_>) -> Result<Option<AttnResKeys>, ConfigError> {
    let found = AttnResKeys {
        mode: keys.text("attnres_mode")?.map(str::to_owned),
        blocks: keys.size("attnres_num_blocks")?,
        layers_per_block: keys.size("attn_res_block_size")?,
        gate: keys.text("attnres_gate_type")?.map(str::to_owned),
    };
    Ok((found != AttnResKeys::default()).then_some(found))
}

/// `hc_*`, as DeepSeek V4 has them.
fn hyper(keys: Keys<'_>) -> Result<Option<HyperKeys>, ConfigError> {
    let own = HyperKeys::default();
    let [streams, rounds] = [keys.size("hc_mult")?, keys.size("hc_sinkhorn_iters")?];
    let (eps, transposed) = (keys.float("hc_eps")?, keys.bool("hc_res_transposed")?);
    if streams.is_none() && rounds.is_none() && eps.is_none() && transposed.is_none() {
        return Ok(None);
    }
    let found = HyperKeys {
        streams: streams.unwrap_or(own.streams),
        rounds: rounds.unwrap_or(own.rounds),
        eps: eps.unwrap_or(own.eps),
        transposed: transposed.unwrap_or(own.transposed),
    };
    if !(1..=MOST_STREAMS).contains(&found.streams) {
        return Err(ConfigError::value("hc_mult", found.streams, "1 to 16"));
    }
    if !(1..=1000).contains(&found.rounds) {
        return Err(ConfigError::value("hc_sinkhorn_iters", found.rounds, "1 to 1000"));
    }
    if !(0.0..0.1).contains(&found.eps) {
        return Err(ConfigError::value("hc_eps", found.eps, "0 or a little more"));
    }
    Ok(Some(found))
}

fn family(model_type: &str) -> Result<Family, ConfigError> {
    if K3_TYPES.contains(&model_type) {
        let what =
            "the kind of its layers (delta and latent attention, experts: only Kimi K3's mixing of depth can be run)";
        return Err(ConfigError::Unsupported { what: what.into(), found: Quoted::new(model_type) });
    }
    // The block is that of the family; what differs is told by the tensors.
    Ok(match model_type.strip_suffix("_attnres").unwrap_or(model_type) {
        "llama" => Family::Llama,
        "mistral" => Family::Mistral,
        "qwen2" => Family::Qwen2,
        "qwen3" => Family::Qwen3,
        "gemma2" => Family::Gemma2,
        "gemma3" | "gemma3_text" => Family::Gemma3,
        other => return Err(ConfigError::Architecture(Quoted::new(other))),
    })
}

fn activation(keys: Keys<'_>, default: &'static str) -> Result<Activation, ConfigError> {
    let name = match keys.text("hidden_activation")? {
        Some(name) => name,
        None => keys.text("hidden_act")?.unwrap_or(default),
    };
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        other => Err(ConfigError::Unsupported { what: "hidden_act".into(), found: Quoted::new(other) }),
    }
}

/// Present but `null` switches a soft-cap off; absent means Gemma 2's own value.
fn softcap(keys: Keys<'_>, family: Family, key: &str, default: f32) -> Result<Option<f32>, ConfigError> {
    match family {
        Family::Gemma2 if !keys.0.contains_key(key) => Ok(Some(default)),
        Family::Gemma2 | Family::Gemma3 => keys.float(key),
        _ => Ok(None),
    }
}

/// One id or several, in the language model's part or beside it.
pub(super) fn ids_of(value: Option<&Value>) -> Option<Vec<u32>> {
    let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
    match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(ids)) => ids.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    }
}

fn token_ids(keys: Keys<'_>, outer: Keys<'_>, key: &str) -> Result<Vec<u32>, ConfigError> {
    let value = keys.0.get(key).filter(|v| !v.is_null()).or_else(|| outer.0.get(key));
    ids_of(value).ok_or_else(|| ConfigError::value(key, "no id", "a token id or a list of them"))
}
