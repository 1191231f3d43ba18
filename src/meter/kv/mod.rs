//! The KV cache by arithmetic: what a model's layers keep at any context length, in any number type, as the model is
//! and as it would be with windows, shared layers, a latent or compression. Nothing is measured here.

mod change;
mod dtype;
pub mod published;
#[cfg(test)]
mod tests;
pub mod what_if;

use serde::Serialize;

use crate::model::kv_shape::{KvShape, LayerKv};
pub use change::{Change, ChangeError};
pub use dtype::{DTYPES, Dtype};

/// How much is kept of each layer's rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Positions of one text.
    pub context: u64,
    /// Texts at once.
    pub batch: u64,
    pub dtype: Dtype,
}

/// What one layer keeps for one text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    pub rows: u64,
    /// Keys, values, latents and indexer keys in all rows.
    pub numbers: u64,
}

impl LayerKv {
    /// At a context of so many positions. Saturates: nobody has that much memory.
    pub fn held(self, context: u64) -> Held {
        let within = |window: Option<usize>| context.min(window.map_or(u64::MAX, |w| w as u64));
        let of = |rows: u64, width: usize| Held { rows, numbers: rows.saturating_mul(width as u64) };
        match self {
            Self::Heads { kv_heads, head_dim, window } => of(within(window), 2 * kv_heads * head_dim),
            Self::Latent { width, window } => of(within(window), width),
            Self::Compressed { every, window, width, indexer } => {
                let made = compressed_rows(context, every);
                let kept = of(made.saturating_add(within(Some(window))), width);
                Held { numbers: kept.numbers.saturating_add(of(made, indexer).numbers), ..kept }
            }
            Self::Shared { .. } => Held::default(),
        }
    }
}

/// Rows that stand for `every` positions each, ⌊S/m⌋: those usable by the query at the 0-based position S − 1.
pub fn compressed_rows(context: u64, every: usize) -> u64 {
    context.checked_div(every as u64).unwrap_or(0)
}

impl KvShape {
    /// Of every layer.
    pub fn layer_bytes(&self, terms: &Terms) -> Vec<u64> {
        let bytes = |layer: &LayerKv| {
            let bits = u128::from(layer.held(terms.context).numbers) * u128::from(terms.dtype.bits);
            u64::try_from((bits * u128::from(terms.batch)).div_ceil(8)).unwrap_or(u64::MAX)
        };
        self.layers.iter().map(bytes).collect()
    }

    pub fn bytes(&self, terms: &Terms) -> u64 {
        self.layer_bytes(terms).into_iter().fold(0, u64::saturating_add)
    }

    /// The same model where windows only hide what lies behind them, as attnscope's own caches do: lanes can be judged
    /// and taken back in time because nothing is dropped unasked.
    pub fn kept_whole(&self) -> Self {
        let whole = |layer: &LayerKv| match *layer {
            LayerKv::Heads { kv_heads, head_dim, .. } => LayerKv::Heads { kv_heads, head_dim, window: None },
            other => other,
        };
        Self { layers: self.layers.iter().map(whole).collect() }
    }

    /// Layers that are alike, in the order of their first: how many, and which.
    pub fn kinds(&self) -> Vec<(usize, LayerKv)> {
        let mut kinds: Vec<(usize, LayerKv)> = Vec::new();
        let shared = |layer: LayerKv| matches!(layer, LayerKv::Shared { .. });
        for &layer in &self.layers {
            match kinds.iter_mut().find(|(_, kind)| *kind == layer || shared(*kind) && shared(layer)) {
                Some((count, _)) => *count += 1,
                None => kinds.push((1, layer)),
            }
        }
        kinds
    }
}

/// A layer in words: `2·3 heads of 64, window 512`.
pub fn words(layer: LayerKv) -> String {
    let back = |window: Option<usize>| window.map_or("everything".into(), |w| format!("window {w}"));
    match layer {
        LayerKv::Heads { kv_heads, head_dim, window } => {
            format!("keys and values of {kv_heads} × {head_dim}, {}", back(window))
        }
        LayerKv::Latent { width, window } => format!("one row of {width}, {}", back(window)),
        LayerKv::Compressed { every, window, width, indexer: 0 } => {
            format!("one row of {width} for each {every} positions, window {window}")
        }
        LayerKv::Compressed { every, window, width, indexer } => {
            format!("one row of {width} and an indexer key of {indexer} for each {every} positions, window {window}")
        }
        LayerKv::Shared { .. } => "nothing: they read an earlier layer of their kind".into(),
    }
}
