//! How a run draws the next token.

use serde::{Deserialize, Serialize};

use crate::backend::draw::Draw;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampler {
    /// 0 = greedy.
    pub temperature: f32,
    /// 0 = off.
    pub top_k: usize,
    /// Smallest set of tokens with at least this mass; 1 = off.
    pub top_p: f32,
    /// Tokens below `min_p` times the largest probability are cut; 0 = off.
    pub min_p: f32,
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }
}

impl Sampler {
    /// The draw after step `step`: from (seed, step) alone, so that going back and forward again draws the same token.
    /// All lanes have the same noise (row 0, stream 0). Where they part it is their caches' doing, not chance; and what a
    /// lane draws does not depend on which others run, nor in what order.
    pub fn at(&self, step: u32) -> Draw {
        let &Self { temperature, top_k, top_p, min_p, seed } = self;
        Draw { temperature, seed, step, row: 0, stream: 0, top_k: top_k.try_into().unwrap_or(u32::MAX), top_p, min_p }
    }
}
