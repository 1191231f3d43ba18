//! Layers that share: which layer reads another one's keys and values, or uses its attention map.

use serde::Serialize;

use crate::cache::Wiring;
use crate::probe::map_similarity::LayerSimilarity;

/// Wires a lane's layers before it reads the prompt, which it does on its own.
pub trait Sharing: Send + Sync {
    /// The wiring for a model and a prompt; says what is wrong where there is none.
    fn wire(&self, lab: &mut dyn Lab) -> Result<Shared, String>;
}

/// What a [`Sharing`] may try out before it decides. What is read here is forgotten again.
pub trait Lab {
    fn layers(&self) -> usize;
    fn head_dim(&self) -> usize;
    /// Two layers see equally far and turn keys alike.
    fn alike(&self, a: usize, b: usize) -> bool;
    /// `count` pieces of `length` tokens, fewer where there is no more text: of the prompt where it is long enough,
    /// else of a text that comes along.
    fn pieces(&mut self, count: usize, length: usize) -> Vec<Vec<u32>>;
    /// Reads each piece alone, with layers wired as `wiring` says; false where that failed or was given up.
    fn read(&mut self, pieces: &[Vec<u32>], wiring: &Wiring, each: &mut dyn FnMut(PieceRead<'_>)) -> bool;
    /// How alike the attention maps of layers are over at most `rows` rows of the prompt, nothing shared.
    fn similarity(&mut self, rows: usize) -> Option<LayerSimilarity>;
}

/// A piece that was read.
pub struct PieceRead<'a> {
    /// Final-normed hidden states [n, hidden].
    pub hidden: &'a [f32],
    /// Keys after rope and values of a layer, all kv heads [G · n · D].
    pub kv: &'a dyn Fn(usize) -> (Vec<f32>, Vec<f32>),
}

/// A wiring, and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shared {
    pub wiring: Wiring,
    /// In the order in which they were tried.
    pub tried: Vec<Tried>,
    /// Calibration pieces that were read; 0 where none were needed.
    pub pieces: usize,
    /// What a reader of numbers from this lane should know.
    pub note: &'static str,
}

/// One layer that was made to take from another one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    pub layer: usize,
    /// The layer that it takes from.
    pub from: usize,
    pub what: What,
    /// Between the two averaged caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<f32>,
    /// Mean cosine of their attention maps without position 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f32>,
    /// Mean over the pieces of the cosine between final hidden states with and without all sharing so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f32>,
    /// It stayed so.
    pub kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Keys and values.
    Kv,
    /// The attention map; values are the layer's own.
    Map,
}

impl Tried {
    pub fn new(layer: usize, from: usize, what: What) -> Self {
        Self { layer, from, what, distance: None, similarity: None, cosine: None, kept: true }
    }
}
