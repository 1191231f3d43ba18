//! What a model's KV cache consists of, layer by layer, as far as its size goes. Data only: also of models that are not
//! run here.

use std::path::Path;

use serde_json::Value;

use super::config::Config;
use super::config_check::ConfigError;
use super::error::ModelError;
use super::source::Model;
use super::{config_hf, json};

/// What one layer keeps of a text of S positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKv {
    /// Keys and values of G heads: 2·G·D numbers for each of S positions, or of the last `window`.
    Heads { kv_heads: usize, head_dim: usize, window: Option<usize> },
    /// One row of `width` numbers that serves all heads as key and as value: MLA's latent with its rotary key.
    Latent { width: usize, window: Option<usize> },
    /// ⌊S/every⌋ rows of `width` numbers, each made from that many positions, and the last `window` positions as they
    /// are; beside each made row the `indexer` numbers by which it is found.
    Compressed { every: usize, window: usize, width: usize, indexer: usize },
    /// Nothing: queries read what layer `with` keeps.
    Shared { with: usize },
}

/// Of every layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvShape {
    pub layers: Vec<LayerKv>,
}

/// What is known of a model's cache without running the model.
pub struct KvFacts {
    pub family: String,
    /// attnscope runs the model, too.
    pub runs: bool,
    pub shape: KvShape,
}

impl KvFacts {
    /// Of a `.gguf` file, or of a folder whose `config.json` is enough.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let config = path.join("config.json");
        if !config.exists() {
            let config = Model::open(path)?.config;
            return Ok(Self { family: config.family.name().into(), runs: true, shape: KvShape::from(&config) });
        }
        let json = json::read(&config)?;
        let shape = KvShape::from_config(&json)?;
        let family = config_hf::kv::family(&json).unwrap_or_else(|| "of no model_type".into());
        Ok(Self { family, runs: config_hf::read(&json).is_ok(), shape })
    }
}

impl KvShape {
    /// From a parsed Hugging Face `config.json`.
    pub fn from_config(json: &Value) -> Result<Self, ConfigError> {
        config_hf::kv::read(json)
    }

    /// Layers alike but for their windows.
    pub fn of_heads(kv_heads: usize, head_dim: usize, windows: impl IntoIterator<Item = Option<usize>>) -> Self {
        Self { layers: windows.into_iter().map(|window| LayerKv::Heads { kv_heads, head_dim, window }).collect() }
    }
}

impl From<&Config> for KvShape {
    fn from(config: &Config) -> Self {
        Self::of_heads(config.kv_heads, config.head_dim, config.layers.iter().map(|layer| layer.window))
    }
}

impl LayerKv {
    /// Two layers of one kind can read each other's rows: both see everything, or both as far back.
    pub fn is_like(self, other: Self) -> bool {
        self == other && !matches!(self, Self::Shared { .. })
    }
}

/// The last `count` layers read the last layer before them that is of their own kind (Gemma 3n's and 4's
/// `num_kv_shared_layers`). Fails with the layer for which there is none.
pub fn share_last(layers: &mut [LayerKv], count: usize) -> Result<(), usize> {
    let own = layers.len().saturating_sub(count);
    let (own, readers) = layers.split_at_mut(own);
    for (i, reader) in readers.iter_mut().enumerate() {
        if matches!(reader, LayerKv::Shared { .. }) {
            continue;
        }
        let with = own.iter().rposition(|layer| layer.is_like(*reader)).ok_or(own.len() + i)?;
        *reader = LayerKv::Shared { with };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layers_read_the_last_of_their_kind() {
        let windows = [Some(8), None, Some(8), Some(8), None, Some(8)];
        let mut layers = KvShape::of_heads(1, 4, windows).layers;
        share_last(&mut layers, 3).unwrap();
        assert_eq!(layers[3..], [2, 1, 2].map(|with| LayerKv::Shared { with }));
        let mut layers = KvShape::of_heads(1, 4, windows).layers;
        assert_eq!(share_last(&mut layers, 5), Err(1), "layer 1 is the first that sees everything");
        assert_eq!(share_last(&mut layers, 6), Err(0));
    }
}
