//! Configuration from a Hugging Face `config.json`, written by transformers 5 (`rope_parameters`, `layer_types`) or
//! before (`rope_theta`, `rope_scaling`, `rope_local_base_freq`, `sliding_window_pattern`).

use serde_json::{Map, Value};

use super::config::{Activation, Config, Family, LayerKind, Rope, RopeScaling};
use super::config_check::{ConfigError, check};
use super::error::Quoted;

/// A JSON object of the file; `null` counts as absent, as in transformers.
#[derive(Clone, Copy)]
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn get<T>(
        self,
        key: &str,
        must: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(ConfigError::Value { key: key.to_owned(), found: Quoted::new(&value.to_string()).to_string(), must }),
            },
        }
    }

    fn size(self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.get(key, "a non-negative integer", |v| v.as_u64().map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    }

    fn need(self, key: &str, default: Option<usize>) -> Result<usize, ConfigError> {
        self.size(key)?.or(default).ok_or_else(|| ConfigError::Missing(key.to_owned()))
    }

    fn float(self, key: &str) -> Result<Option<f32>, ConfigError> {
        self.get(key, "a number", |v| v.as_f64().map(|n| n as f32))
    }

    fn bool(self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.get(key, "true or false", Value::as_bool)
    }

    fn text(self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        self.get(key, "a string", Value::as_str)
    }

    fn object(self, key: &str) -> Result<Option<Keys<'a>>, ConfigError> {
        self.get(key, "an object", |v| v.as_object().map(Keys))
    }
}

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
        Family::Gemma2 => Defaults { head_dim: Some(256), kv_heads: Some(4), context: 8192, tied_head: true, activation: "gelu_pytorch_tanh" },
        Family::Gemma3 => Defaults { head_dim: Some(256), kv_heads: Some(4), context: 131_072, tied_head: true, activation: "gelu_pytorch_tanh" },
        Family::Qwen3 => Defaults { head_dim: Some(128), kv_heads: Some(32), context: 32_768, tied_head: false, activation: "silu" },
        Family::Qwen2 => Defaults { head_dim: None, kv_heads: Some(32), context: 32_768, tied_head: false, activation: "silu" },
        Family::Mistral => Defaults { head_dim: None, kv_heads: Some(8), context: 131_072, tied_head: false, activation: "silu" },
        Family::Llama => Defaults { head_dim: None, kv_heads: None, context: 2048, tied_head: false, activation: "silu" },
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
        layers: layers(keys, family, layer_count)?,
        ropes: ropes(keys, family)?,
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

fn family(model_type: &str) -> Result<Family, ConfigError> {
    Ok(match model_type {
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

/// One entry per layer, from `layer_types` or from the older keys.
fn layers(keys: Keys<'_>, family: Family, count: usize) -> Result<Vec<LayerKind>, ConfigError> {
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
        None if count > super::config_check::MOST_LAYERS => {
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

fn is_local(name: &str) -> Result<bool, ConfigError> {
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

/// Rope 0 is the global one; Gemma 3 adds its local one.
fn ropes(keys: Keys<'_>, family: Family) -> Result<Vec<Rope>, ConfigError> {
    let gemma3 = family == Family::Gemma3;
    let context = keys.float("max_position_embeddings")?;
    let default_theta = if gemma3 { 1_000_000.0 } else { 10_000.0 };
    if keys.float("partial_rotary_factor")?.is_some_and(|part| part != 1.0) {
        return Err(ConfigError::Unsupported { what: "partial_rotary_factor".into(), found: Quoted::new("below 1") });
    }
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
