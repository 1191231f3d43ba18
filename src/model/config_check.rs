//! Limits that every configuration must keep, wherever it was read from.

use thiserror::Error;

use super::config::{Config, Rope, RopeScaling};
use super::error::Quoted;
use super::gguf::GgufError;

/// Far above any published model of these families, and small enough that no product of two overflows.
pub(super) const MOST: usize = 1 << 24;
pub(super) const MOST_LAYERS: usize = 4096;
const LONGEST_CONTEXT: usize = 1 << 31;

/// What a configuration says that cannot be run.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum ConfigError {
    #[error("the configuration has no `{0}`")]
    Missing(String),
    #[error("`{key}` is {found}, it must be {must}")]
    Value { key: String, found: String, must: &'static str },
    #[error("its architecture is {0}")]
    Architecture(Quoted),
    #[error("{what} is {found}, which is not supported")]
    Unsupported { what: String, found: Quoted },
    #[error(transparent)]
    Metadata(#[from] GgufError),
}

impl ConfigError {
    pub(super) fn value(key: &str, found: impl std::fmt::Debug, must: &'static str) -> ConfigError {
        ConfigError::Value { key: key.to_owned(), found: format!("{found:?}"), must }
    }
}

/// Check all numbers of `config` against each other and against fixed bounds.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    let sizes = [
        ("vocabulary size", config.vocab),
        ("hidden size", config.hidden),
        ("feed-forward size", config.ff),
        ("number of heads", config.heads),
        ("number of key-value heads", config.kv_heads),
        ("head size", config.head_dim),
    ];
    for (key, size) in sizes {
        if size == 0 || size > MOST {
            return Err(ConfigError::value(key, size, "between 1 and 16,777,216"));
        }
    }
    if config.heads * config.head_dim > MOST {
        return Err(ConfigError::value("heads × head size", config.heads * config.head_dim, "at most 16,777,216"));
    }
    if !config.heads.is_multiple_of(config.kv_heads) {
        return Err(ConfigError::value("number of heads", config.heads, "a multiple of the key-value heads"));
    }
    if !config.head_dim.is_multiple_of(2) {
        return Err(ConfigError::value("head size", config.head_dim, "even"));
    }
    if config.layers.is_empty() || config.layers.len() > MOST_LAYERS {
        return Err(ConfigError::value("number of layers", config.layers.len(), "between 1 and 4096"));
    }
    if config.context == 0 || config.context > LONGEST_CONTEXT {
        return Err(ConfigError::value("context length", config.context, "between 1 and 2,147,483,648"));
    }
    for kind in &config.layers {
        if kind.window == Some(0) {
            return Err(ConfigError::value("sliding window", 0, "at least 1"));
        }
        if kind.rope >= config.ropes.len() {
            return Err(ConfigError::value("rope of a layer", kind.rope, "one of the model's"));
        }
    }
    let positive = [
        ("norm epsilon", Some(config.norm_eps)),
        ("embedding scale", Some(config.embed_scale)),
        ("attention scale", Some(config.attn_scale)),
        ("attention soft-cap", config.attn_softcap),
        ("final soft-cap", config.final_softcap),
    ];
    positive.into_iter().try_for_each(|(key, number)| number.map_or(Ok(()), |n| above_zero(key, n)))?;
    config.ropes.iter().try_for_each(|rope| check_rope(rope, config.head_dim))
}

fn check_rope(rope: &Rope, head_dim: usize) -> Result<(), ConfigError> {
    above_zero("rope base", rope.theta)?;
    match rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => above_zero("rope scaling factor", factor)?,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            above_zero("rope scaling factor", factor)?;
            above_zero("low_freq_factor", low_freq_factor)?;
            above_zero("original context", original_context)?;
            if !(high_freq_factor.is_finite() && high_freq_factor > low_freq_factor) {
                return Err(ConfigError::value("high_freq_factor", high_freq_factor, "above low_freq_factor"));
            }
        }
    }
    let Some(factors) = &rope.factors else { return Ok(()) };
    if factors.len() != head_dim / 2 {
        return Err(ConfigError::value("number of rope factors", factors.len(), "half the head size"));
    }
    factors.iter().try_for_each(|factor| above_zero("rope factor", *factor))
}

fn above_zero(key: &str, number: f32) -> Result<(), ConfigError> {
    if number.is_finite() && number > 0.0 { Ok(()) } else { Err(ConfigError::value(key, number, "finite and above 0")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::{Activation, Family, LayerKind};

    fn sound() -> Config {
        Config {
            family: Family::Llama,
            vocab: 320,
            hidden: 96,
            ff: 160,
            heads: 6,
            kv_heads: 2,
            head_dim: 16,
            context: 4096,
            norm_eps: 1e-5,
            norm_plus_one: false,
            sandwich_norms: false,
            qk_norm: false,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            activation: Activation::Silu,
            embed_scale: 1.0,
            attn_scale: 0.25,
            attn_softcap: None,
            final_softcap: None,
            layers: vec![LayerKind { window: None, rope: 0 }; 4],
            ropes: vec![Rope { theta: 1e4, scaling: RopeScaling::None, factors: None }],
            attnres: None,
            hyper: None,
            tied_head: true,
            bos: Some(1),
            eos: vec![2],
        }
    }

    #[test]
    fn every_limit_is_enforced() {
        assert_eq!(check(&sound()), Ok(()));
        let broken: [fn(&mut Config); 12] = [
            |c| c.vocab = 0,
            |c| c.hidden = 1 << 30,
            |c| c.kv_heads = 4,
            |c| c.head_dim = 15,
            |c| c.layers.clear(),
            |c| c.context = 0,
            |c| c.norm_eps = f32::NAN,
            |c| c.attn_softcap = Some(0.0),
            |c| c.layers[1].window = Some(0),
            |c| c.layers[1].rope = 1,
            |c| c.ropes[0].theta = -1.0,
            |c| c.ropes[0].factors = Some(vec![1.0; 7]),
        ];
        for (i, change) in broken.iter().enumerate() {
            let mut config = sound();
            change(&mut config);
            assert!(check(&config).is_err(), "case {i} passed");
        }
    }
}
