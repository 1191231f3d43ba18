//! Rows that a model reads without their being tokens, and low-rank changes of its weights that act on them alone.

use std::sync::Arc;

use crate::backend::LowRank;

/// A linear weight of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Place {
    pub const ALL: [Place; 7] = [Place::Q, Place::K, Place::V, Place::O, Place::Gate, Place::Up, Place::Down];
}

/// Low-rank changes of one layer's linear weights.
#[derive(Debug, Clone, Default)]
pub struct LayerChange([Option<Arc<LowRank>>; Place::ALL.len()]);

impl LayerChange {
    pub fn set(&mut self, place: Place, change: LowRank) {
        self.0[place as usize] = Some(Arc::new(change));
    }

    pub fn at(&self, place: Place) -> Option<&Arc<LowRank>> {
        self.0[place as usize].as_ref()
    }
}

/// Soft tokens: learned rows in place of embeddings.
#[derive(Debug, Clone, Default)]
pub struct SoftTokens {
    pub count: usize,
    /// What enters the first layer: embeddings, scaled where the model scales them [count, hidden].
    pub embeddings: Vec<f32>,
    /// Of every layer; empty where the weights stay as they are.
    pub changes: Vec<LayerChange>,
}
