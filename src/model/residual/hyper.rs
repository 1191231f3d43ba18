//! Hyper-connections of a checkpoint, named as DeepSeek V4 names them: `hc_attn_fn`, `hc_attn_base`, `hc_attn_scale` and
//! the same of `hc_ffn_` in each layer, `hc_head_fn`, `hc_head_base` and `hc_head_scale` of the sum at the end.
//!
//! Shapes: L sublayers, d hidden, n streams.

use serde::{Deserialize, Serialize};

use super::load::numbers;
use crate::model::config::Config;
use crate::model::error::ModelError;
use crate::model::weights::TensorStore;

/// `hc_*` of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HyperKeys {
    /// `hc_mult`
    pub streams: usize,
    /// `hc_sinkhorn_iters`
    pub rounds: usize,
    /// `hc_eps`
    pub eps: f32,
    /// `hc_res_transposed`, not published: the rows of H_res in `hc_*_fn` and `hc_*_base` are the streams that go in, as
    /// DeepSeek's own code has them, not those that come out, as the papers write x' = H_res x.
    pub transposed: bool,
}

impl Default for HyperKeys {
    fn default() -> Self {
        Self { streams: 4, rounds: 20, eps: 1e-6, transposed: false }
    }
}

/// More streams than anybody has tried.
pub const MOST_STREAMS: usize = 16;

/// What the gates of one target are made by.
#[derive(Debug, Clone, PartialEq)]
pub struct GateWeights {
    /// φ [n² + 2n, n·d]; of the end [n, n·d]
    pub map: Vec<f32>,
    /// b [n² + 2n, or n]
    pub base: Vec<f32>,
    /// a_pre, a_post, a_res; of the end the first alone.
    pub scale: [f32; 3],
}

#[derive(Debug, Clone, PartialEq)]
pub struct HyperConnections {
    pub keys: HyperKeys,
    pub norm_eps: f32,
    /// Of each sublayer, and of the end [L + 1].
    pub targets: Vec<GateWeights>,
}

impl HyperConnections {
    /// How many numbers were learned.
    pub fn numbers(&self) -> u64 {
        let end = self.targets.len() - 1;
        let scales = |target: usize| if target == end { 1 } else { 3 };
        let of = |(t, gates): (usize, &GateWeights)| gates.map.len() + gates.base.len() + scales(t);
        self.targets.iter().enumerate().map(|at| of(at) as u64).sum()
    }

    /// e.g. "mHC, 4 streams"
    pub fn describe(&self) -> String {
        let order = if self.keys.transposed { ", H_res transposed" } else { "" };
        format!("mHC, {} streams{order}", self.keys.streams)
    }
}

/// `body` stands before `layers.0…`; `None` where the checkpoint has none.
pub fn load(config: &Config, store: &dyn TensorStore, body: &str) -> Result<Option<HyperConnections>, ModelError> {
    let first = format!("{body}layers.0.hc_attn_fn");
    let keys = match (store.tensor(&first)?, config.hyper) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(ModelError::MissingTensor { name: first }),
        (Some(_), keys) => keys.unwrap_or_default(),
    };
    let (n, d, sublayers) = (keys.streams, config.hidden, 2 * config.layers.len());
    let need = |name: String, rows: usize, columns: usize| {
        numbers(store, &name, rows * columns)?.ok_or(ModelError::MissingTensor { name })
    };
    let of = |target: usize| -> Result<GateWeights, ModelError> {
        let (prefix, gates, scales) = match target {
            t if t == sublayers => (format!("{body}hc_head_"), n, 1),
            t => (format!("{body}layers.{}.hc_{}_", t / 2, ["attn", "ffn"][t % 2]), n * n + 2 * n, 3),
        };
        let scale = need(format!("{prefix}scale"), scales, 1)?;
        let at = |i: usize| scale.get(i).copied().unwrap_or(0.0);
        Ok(GateWeights {
            map: need(format!("{prefix}fn"), gates, n * d)?,
            base: need(format!("{prefix}base"), gates, 1)?,
            scale: [at(0), at(1), at(2)],
        })
    };
    let targets = (0..=sublayers).map(of).collect::<Result<_, _>>()?;
    Ok(Some(HyperConnections { keys, norm_eps: config.norm_eps, targets }))
}
