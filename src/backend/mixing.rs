//! Operations of Attention Residuals (arXiv 2603.15031): what a row reads is a mix of sources over depth.
//!
//! For each row by itself: s_i = key · v_i / √(mean v_i² + eps), the last one + bias; α = softmax(s); m = Σ α_i v_i;
//! out = keep · stream + by · m, or by · m where there is no stream.

use super::{Buf, Vector};

/// A source of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Rows(Buf),
    /// The same for all rows [d].
    Same(Vector),
}

/// Sources that a backend was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources(pub(crate) usize);

/// A mix in one phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    pub target: usize,
    pub sources: Sources,
    /// w ⊙ γ [d]
    pub key: Vector,
    pub eps: f32,
    pub bias: f32,
    pub stream: Option<Buf>,
    pub keep: f32,
    pub by: f32,
}

/// The first of two phases: `count` targets from `first` on over sources they have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixAhead {
    pub first: usize,
    pub count: usize,
    pub sources: Sources,
    /// [count · d]
    pub keys: Vector,
    pub eps: f32,
    /// Σ e^(s − top) v [count][d], tops and Σ e^(s − top) [count]: width count · (d + 2) at least.
    pub state: Buf,
}

/// The second phase: the state of one target, and one source more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixMerge {
    pub ahead: MixAhead,
    pub target: usize,
    /// Sources of the first phase.
    pub finished: usize,
    pub partial: Option<Buf>,
    pub key: Vector,
}

/// Weights of the last pass [targets][sources][rows]; numbers of targets that were not reached, and of sources that a
/// target does not have, mean nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DepthWeights {
    pub targets: usize,
    pub sources: usize,
    pub rows: usize,
    pub values: Vec<f32>,
}

impl DepthWeights {
    /// Of the first `count` sources of a target in a row.
    pub fn of(&self, target: usize, row: usize, count: usize) -> impl Iterator<Item = f32> {
        (0..count).map(move |source| self.values[(target * self.sources + source) * self.rows + row])
    }
}
