//! What the targets of a token are made of, as a part of a frame.

use serde::{Deserialize, Serialize};

use super::gates::Gates;

/// What each target of one token is made of: target t is what sublayer t reads, the last one what the final norm reads.
/// Targets not reached yet are left out. Sources: see [`super::message::DepthInfo`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Depth {
    /// Sources of each target.
    pub counts: Vec<u32>,
    /// Signed contributions c_i = ⟨part of source i, h⟩ / ‖h‖², target after target; each sums to 1.
    pub share: Vec<f32>,
    /// Weights α_i of the mix, likewise; 0 for a running stream, which is added. Empty in a plain model.
    pub weight: Vec<f32>,
    /// Of models with hyper-connections, whose weights follow from these; `None` also for several tokens together.
    pub gates: Option<Gates>,
}

impl Depth {
    /// A target's part of `values`, shares or weights; empty where there is none.
    pub fn row<'a>(&self, values: &'a [f32], target: usize) -> &'a [f32] {
        let count = |n: &u32| *n as usize;
        let from: usize = self.counts.iter().take(target).map(count).sum();
        let to = from + self.counts.get(target).map_or(0, count);
        values.get(from..to).unwrap_or(&[])
    }
}
