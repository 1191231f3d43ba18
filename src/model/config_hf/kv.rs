//! What the KV cache of a model consists of, from its `config.json` alone, also of families that are not run here:
//! Gemma 3n and 4 (shared layers, wider global heads), DeepSeek V2, V3 (latent) and V4 (compressed).

use serde_json::Value;

use super::keys::Keys;
use crate::model::config_check::{ConfigError, MOST, MOST_LAYERS};
use crate::model::error::Quoted;
use crate::model::kv_shape::{KvShape, LayerKv, share_last};

pub fn read(json: &Value) -> Result<KvShape, ConfigError> {
    let outer = Keys(json.as_object().ok_or_else(|| ConfigError::Missing("num_hidden_layers".into()))?);
    let keys = outer.object("text_config")?.unwrap_or(outer);
    let count = bounded("num_hidden_layers", keys.need("num_hidden_layers", None)?, MOST_LAYERS)?;
    if let Some(ratios) = ratios(keys)? {
        return compressed(keys, count, &ratios);
    }
    if let Some(rank) = keys.size("kv_lora_rank")? {
        let width = size("kv_lora_rank", rank)? + size("qk_rope_head_dim", keys.need("qk_rope_head_dim", None)?)?;
        return Ok(KvShape { layers: vec![LayerKv::Latent { width, window: None }; count] });
    }
    let mut layers = heads(keys, count)?;
    let shared = keys.size("num_kv_shared_layers")?.unwrap_or(0);
    share_last(&mut layers, shared).map_err(|layer| {
        let found = format!("{shared}, and layer {layer} has none of its kind before them");
        ConfigError::Value { key: "num_kv_shared_layers".into(), found, must: "such that each can read another" }
    })?;
    Ok(KvShape { layers })
}

fn bounded(key: &str, n: usize, most: usize) -> Result<usize, ConfigError> {
    if (1..=most).contains(&n) { Ok(n) } else { Err(ConfigError::value(key, n, "at least 1 and of a model's size")) }
}

fn size(key: &str, n: usize) -> Result<usize, ConfigError> {
    bounded(key, n, MOST)
}

/// Layers of key-value heads, some of which look back only so far.
fn heads(keys: Keys<'_>, count: usize) -> Result<Vec<LayerKv>, ConfigError> {
    let heads = size("num_attention_heads", keys.need("num_attention_heads", None)?)?;
    let kv_heads = size("num_key_value_heads", keys.need("num_key_value_heads", Some(heads))?)?;
    let head_dim = match keys.size("head_dim")? {
        Some(dim) => dim,
        None => keys.need("hidden_size", None)? / heads,
    };
    let head_dim = size("head_dim", head_dim)?;
    let wide = size("global_head_dim", keys.need("global_head_dim", Some(head_dim))?)?;
    let few = size("num_global_key_value_heads", keys.need("num_global_key_value_heads", Some(kv_heads))?)?;
    let local = local(keys, count)?;
    let window = keys.size("sliding_window")?.map(|w| size("sliding_window", w)).transpose()?;
    let layer = |local: bool| match (local, window) {
        (true, Some(_)) => Ok(LayerKv::Heads { kv_heads, head_dim, window }),
        (true, None) => Err(ConfigError::Missing("sliding_window".into())),
        (false, _) => Ok(LayerKv::Heads { kv_heads: few, head_dim: wide, window: None }),
    };
    local.into_iter().map(layer).collect()
}

/// Which layers look back only so far.
fn local(keys: Keys<'_>, count: usize) -> Result<Vec<bool>, ConfigError> {
    let types = keys.get("layer_types", "an array of strings", |v| {
        v.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<&str>>>()
    })?;
    if let Some(types) = types {
        if types.len() != count {
            return Err(ConfigError::value("layer_types", types.len(), "as long as num_hidden_layers"));
        }
        return types.into_iter().map(super::layers::is_local).collect();
    }
    let every = match keys.size("sliding_window_pattern")? {
        Some(every) => Some(every),
        None => keys.size("_sliding_window_pattern")?,
    };
    match every {
        Some(0) => Err(ConfigError::value("sliding_window_pattern", 0, "at least 1")),
        Some(every) => Ok((0..count).map(|layer| (layer + 1) % every != 0).collect()),
        None => Ok(vec![false; count]),
    }
}

/// Of DeepSeek V4: positions behind one row, 0 where a layer has its window alone.
fn ratios(keys: Keys<'_>) -> Result<Option<Vec<usize>>, ConfigError> {
    keys.get("compress_ratios", "an array of non-negative integers", |v| {
        v.as_array()?.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
    })
}

/// Ratio from which on nothing is searched for: all rows are read.
const DENSE: usize = 128;

fn compressed(keys: Keys<'_>, count: usize, ratios: &[usize]) -> Result<KvShape, ConfigError> {
    // what stands behind the last layer is of the heads that predict further tokens
    let Some(ratios) = ratios.get(..count) else {
        return Err(ConfigError::value("compress_ratios", ratios.len(), "as long as num_hidden_layers"));
    };
    let width = size("head_dim", keys.need("head_dim", None)?)?;
    let window = size("sliding_window", keys.need("sliding_window", None)?)?;
    let indexer = keys.size("index_head_dim")?.unwrap_or(0).min(MOST);
    let layer = |&every: &usize| match every {
        0 => LayerKv::Latent { width, window: Some(window) },
        every => LayerKv::Compressed { every, window, width, indexer: if every < DENSE { indexer } else { 0 } },
    };
    Ok(KvShape { layers: ratios.iter().map(layer).collect() })
}

/// The `model_type`, for people.
pub fn family(json: &Value) -> Option<String> {
    let kind =
        |object: &Value| object.get("model_type").and_then(Value::as_str).map(|kind| Quoted::new(kind).to_string());
    json.get("text_config").and_then(kind).or_else(|| kind(json))
}
