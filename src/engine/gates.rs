//! What a token's residual streams were mixed by, of models with hyper-connections.

use serde::{Deserialize, Serialize};

use crate::backend::hyper::width;
use crate::model::residual::MOST_STREAMS;

/// Of one token: target t is what sublayer t reads, the last one what the final norm reads. Targets not reached yet are
/// left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gates {
    pub streams: u32,
    /// [targets][`width`], see [`width`].
    pub values: Vec<f32>,
}

impl Gates {
    /// There is something for so many targets, and no more.
    pub fn fits(&self, targets: usize) -> bool {
        (1..=MOST_STREAMS).contains(&self.n()) && self.values.len() == targets * width(self.n())
    }

    fn n(&self) -> usize {
        self.streams as usize
    }

    pub fn targets(&self) -> usize {
        self.values.len() / width(self.n())
    }

    fn of(&self, target: usize, from: usize, count: usize) -> &[f32] {
        let at = target * width(self.n()) + from;
        self.values.get(at..at + count).unwrap_or(&[])
    }

    /// H_pre [n]
    pub fn pre(&self, target: usize) -> &[f32] {
        self.of(target, 0, self.n())
    }

    /// H_post [n]; the last target has none.
    pub fn post(&self, target: usize) -> &[f32] {
        self.of(target, self.n(), self.n())
    }

    /// H_res [n, n], row: the stream that comes out; the last target has none.
    pub fn matrix(&self, target: usize) -> &[f32] {
        self.of(target, 2 * self.n(), self.n() * self.n())
    }

    /// ‖x_i‖ [n] of what the target reads from.
    pub fn norms(&self, target: usize) -> &[f32] {
        self.of(target, self.n() * (self.n() + 2), self.n())
    }

    /// ‖b‖ / (‖b‖ + ‖r‖) of what sublayer `target` added and what was kept; NaN where both are 0 or nothing was added yet.
    pub fn branch_share(&self, target: usize) -> f32 {
        match self.of(target, self.n() * (self.n() + 3), 2) {
            &[added, kept] => added / (added + kept),
            _ => f32::NAN,
        }
    }
}
