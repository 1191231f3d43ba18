//! Rotary frequencies, from `rope_parameters` or from the older keys.

use super::keys::Keys;
use crate::model::config::{Family, Rope, RopeScaling};
use crate::model::config_check::ConfigError;
use crate::model::error::Quoted;

/// Rope 0 is the global one; Gemma 3 adds its local one.
pub(super) fn read(keys: Keys<'_>, family: Family) -> Result<Vec<Rope>, ConfigError> {
    let gemma3 = family == Family::Gemma3;
    let context = keys.float("max_position_embeddings")?;
    let default_theta = if gemma3 { 1_000_000.0 } else { 10_000.0 };
    whole_heads(keys)?;
    let theta = keys.float("rope_theta")?.unwrap_or(default_theta);
    let local_theta = keys.float("rope_local_base_freq")?.unwrap_or(10_000.0);
    let Some(parameters) = keys.object("rope_parameters")? else {
        let mut ropes = vec![rope(keys.object("rope_scaling")?, theta, context)?];
        if gemma3 {
            ropes.push(rope(None, local_theta, context)?);
        }
        return Ok(ropes);
    };
    let global = parameters.object("full_attention")?;
    let mut ropes = vec![rope(Some(global.unwrap_or(parameters)), theta, context)?];
    if gemma3 {
        ropes.push(rope(parameters.object("sliding_attention")?, local_theta, context)?);
    }
    Ok(ropes)
}

/// One set of frequencies; `theta` holds where the object names none.
fn rope(keys: Option<Keys<'_>>, theta: f32, context: Option<f32>) -> Result<Rope, ConfigError> {
    let Some(keys) = keys else { return Ok(Rope { theta, scaling: RopeScaling::None, factors: None }) };
    whole_heads(keys)?;
    let theta = keys.float("rope_theta")?.unwrap_or(theta);
    let kind = match keys.text("rope_type")? {
        Some(kind) => kind,
        None => keys.text("type")?.unwrap_or("default"),
    };
    let need = |key: &str| keys.float(key)?.ok_or_else(|| ConfigError::Missing(key.to_owned()));
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: need("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: need("factor")?,
            low_freq_factor: need("low_freq_factor")?,
            high_freq_factor: need("high_freq_factor")?,
            original_context: keys
                .float("original_max_position_embeddings")?
                .or(context)
                .ok_or_else(|| ConfigError::Missing("original_max_position_embeddings".into()))?,
        },
        other => return Err(ConfigError::Unsupported { what: "rope_type".into(), found: Quoted::new(other) }),
    };
    Ok(Rope { theta, scaling, factors: None })
}

/// Only models that rotate all of a head can be run.
fn whole_heads(keys: Keys<'_>) -> Result<(), ConfigError> {
    match keys.float("partial_rotary_factor")? {
        Some(part) if part != 1.0 => Err(ConfigError::Unsupported {
            what: "partial_rotary_factor".into(),
            found: Quoted::new(&part.to_string()),
        }),
        _ => Ok(()),
    }
}
