//! What `analyze --json` prints, described in the README.

use serde::Serialize;

use crate::probe::latent::LatentBytes;
use crate::probe::map_similarity::LayerSimilarity;
use crate::probe::spans::Span;
use crate::probe::spectrum::Spectrum;
use crate::probe::square::Square;

pub const SCHEMA: u32 = 1;

/// Layers and heads are counted from 0; tables of pairs are lists of rows.
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub model: String,
    pub device: String,
    pub precision: String,
    pub kv_type: String,
    pub prompt_tokens: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Of each layer: older keys are invisible; `null` where all are seen [layers].
    pub windows: Vec<Option<usize>>,
    pub maps: Maps,
    pub caches: Caches,
    /// Tokens that `layers` is about; the first position is not among them.
    pub tokens: usize,
    pub layers: Vec<Layer>,
}

/// Attention maps of different layers.
#[derive(Debug, Serialize)]
pub struct Maps {
    #[serde(flatten)]
    pub similarity: LayerSimilarity,
    /// Of each length, the neighbouring layers that are most alike the first of them (by `heads_without_sink`).
    pub spans: Vec<Span>,
}

/// Caches of different layers, averaged over pieces of text.
#[derive(Debug, Serialize)]
pub struct Caches {
    pub pieces: usize,
    pub piece_tokens: usize,
    /// The pieces come from the prompt, not from the text that comes along.
    pub of_prompt: bool,
    /// Mean of the Euclidean distances of keys and values.
    pub distance: Square,
    /// All pairs that could share, KVSharer's order.
    pub dissimilar_first: Vec<Pair>,
    /// The contrast.
    pub similar_first: Vec<Pair>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Pair {
    /// Would read the cache of `from`.
    pub layer: usize,
    pub from: usize,
    pub distance: f32,
}

/// One layer by itself.
#[derive(Debug, Serialize)]
pub struct Layer {
    /// Mean cosine between the residual stream before and after attention, over the prompt: low where it turns most.
    pub residual_cosine: f32,
    pub rank: Ranks,
    pub bytes_per_token: LatentBytes,
    pub alike: Alike,
}

/// Spectra of matrices with one row per token, not centred. Width: D of a head, G·D of `keys` and `values`, 2·G·D of `both`.
#[derive(Debug, Serialize)]
pub struct Ranks {
    /// As cached, after rope [kv heads].
    pub keys_of_head: Vec<Spectrum>,
    pub values_of_head: Vec<Spectrum>,
    pub keys: Spectrum,
    pub keys_before_rope: Spectrum,
    pub values: Spectrum,
    /// Keys before rope beside values, scaled to the same Σ x²: else the longer keys would hide the values.
    pub both: Spectrum,
}

/// Heads of one layer among themselves.
#[derive(Debug, Serialize)]
pub struct Alike {
    /// Attention rows of the query heads of each group, without position 0: mean cosine over pairs [kv heads]; `null`
    /// where a group has one head.
    pub maps_in_group: Vec<f32>,
    /// Kv heads token by token, as they are: mean cosine.
    pub keys: Square,
    pub values: Square,
    /// The same up to a rotation of channels: linear CKA. Keys before rope.
    pub keys_cka: Square,
    pub values_cka: Square,
}
