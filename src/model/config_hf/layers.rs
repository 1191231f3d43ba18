//! Which layers look back how far, and by which rope.

use serde_json::Value;

use super::keys::Keys;
use crate::model::config::{Family, LayerKind};
use crate::model::config_check::{ConfigError, MOST_LAYERS};
use crate::model::error::Quoted;

/// One entry per layer, from `layer_types` or from the older keys.
pub(super) fn read(keys: Keys<'_>, family: Family, count: usize) -> Result<Vec<LayerKind>, ConfigError> {
    let types = keys.get("layer_types", "an array of strings", |v| {
        v.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<&str>>>()
    })?;
    let default_window = matches!(family, Family::Gemma2 | Family::Gemma3).then_some(4096);
    let window = match keys.0.contains_key("sliding_window") {
        true => keys.size("sliding_window")?,
        false => default_window,
    };
    let local: Vec<bool> = match types {
        Some(types) if types.len() != count => {
            return Err(ConfigError::value("layer_types", types.len(), "as long as num_hidden_layers"));
        }
        Some(types) => types.into_iter().map(is_local).collect::<Result<_, _>>()?,
        None if count > MOST_LAYERS => {
            return Err(ConfigError::value("num_hidden_layers", count, "at most 4096"));
        }
        None => older_pattern(keys, family, window.is_some(), count)?,
    };
    let local_rope = usize::from(family == Family::Gemma3);
    let kind = |local: bool| match (local, window) {
        (true, Some(window)) => Ok(LayerKind { window: Some(window), rope: local_rope }),
        (true, None) => Err(ConfigError::Missing("sliding_window".into())),
        (false, _) => Ok(LayerKind { window: None, rope: 0 }),
    };
    local.into_iter().map(kind).collect()
}

pub(super) fn is_local(name: &str) -> Result<bool, ConfigError> {
    match name {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => Err(ConfigError::Unsupported { what: "layer_types".into(), found: Quoted::new(other) }),
    }
}

/// Which layers are local by the keys of before `layer_types`.
fn older_pattern(keys: Keys<'_>, family: Family, windowed: bool, count: usize) -> Result<Vec<bool>, ConfigError> {
    let every = match family {
        Family::Llama => return Ok(vec![false; count]),
        Family::Mistral => return Ok(vec![windowed; count]),
        Family::Qwen2 | Family::Qwen3 => {
            let used = windowed && keys.bool("use_sliding_window")?.unwrap_or(false);
            let first = keys.size("max_window_layers")?.unwrap_or(28);
            return Ok((0..count).map(|layer| used && layer >= first).collect());
        }
        Family::Gemma2 => 2,
        Family::Gemma3 => match keys.size("sliding_window_pattern")? {
            Some(every) => every,
            None => keys.size("_sliding_window_pattern")?.unwrap_or(6),
        },
    };
    if every == 0 {
        return Err(ConfigError::value("sliding_window_pattern", every, "at least 1"));
    }
    Ok((0..count).map(|layer| (layer + 1) % every != 0).collect())
}
