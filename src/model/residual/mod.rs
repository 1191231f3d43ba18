//! How a decoder carries what its sublayers write from one to the next: added to one stream, or mixed over depth by
//! Attention Residuals (arXiv 2603.15031) in one of their dialects, or carried in several streams by hyper-connections
//! (arXiv 2409.19606, 2512.24880).
//!
//! Shapes: L sublayers (attention and MLP counted apart), d hidden, R rows of a pass. Target t < L is what sublayer t
//! reads, target L is what the final norm reads.

mod adapter;
mod carrier;
mod hyper;
mod load;
mod mixer;
mod plan;
#[cfg(test)]
mod plan_tests;
mod streams;

use serde::{Deserialize, Serialize};

use super::error::ModelError;

pub use adapter::read as read_adapter;
pub(super) use carrier::Carrier;
pub use hyper::{GateWeights, HyperConnections, HyperKeys, MOST_STREAMS};
pub(super) use load::{K3_TYPES, load};
pub use plan::{Ahead, Blend, Mix, Next, Origin, Out, Plan, Share, Sublayer, Term};

/// What a configuration says about depth; which dialect it means is decided by the tensors first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AttnResKeys {
    /// `attnres_mode`
    pub mode: Option<String>,
    /// `attnres_num_blocks`
    pub blocks: Option<usize>,
    /// `attn_res_block_size`: transformer layers.
    pub layers_per_block: Option<usize>,
    /// `attnres_gate_type`
    pub gate: Option<String>,
}

/// Attention Residuals as published, and what public code calls by the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialect {
    /// The paper's: the sources are the embedding and sums of blocks; the mix replaces the stream.
    Faithful,
    /// The sources are snapshots of a stream that is never reset; a learned bias favours the last.
    Cumulative,
    /// The mix of all sublayer outputs is added to an ordinary stream.
    Delta,
    /// The same over differences between snapshots at block edges.
    DeltaBlock,
    /// A plain model whose depth queries were learned afterwards: the mix is multiplied by the number of its sources, so
    /// that queries of 0 are the plain model.
    Learned,
}

impl Dialect {
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Faithful => "faithful",
            Dialect::Cumulative => "cumulative",
            Dialect::Delta => "delta",
            Dialect::DeltaBlock => "delta block",
            Dialect::Learned => "learned on a plain model",
        }
    }
}

/// How much of a mix is taken in place of the stream, which keeps the rest: h = (1 − g) · stream + g · mix.
pub type Gate = f32;

/// The query of one target.
#[derive(Debug, Clone, PartialEq)]
pub struct DepthQuery {
    /// w ⊙ γ: query and weight of the keys' norm [d].
    pub key: Vec<f32>,
    /// Added to the logit of the last source.
    pub bias: f32,
    pub gate: Option<Gate>,
    /// A learned source before all others [d].
    pub null: Option<Vec<f32>>,
}

/// What depth is mixed by.
#[derive(Debug, Clone, PartialEq)]
pub struct DepthMixing {
    pub dialect: Dialect,
    /// First sublayer of each block, ascending from 0.
    pub starts: Vec<usize>,
    /// Of each target [L + 1]; `None` where nothing is mixed.
    pub queries: Vec<Option<DepthQuery>>,
    pub eps: f32,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub enum Residual {
    #[default]
    Plain,
    AttnRes(DepthMixing),
    Hyper(HyperConnections),
}

impl Residual {
    /// What there is to mix; `None` for a plain model.
    pub fn mixing(&self) -> Option<&DepthMixing> {
        match self {
            Residual::Plain | Residual::Hyper(_) => None,
            Residual::AttnRes(mixing) => Some(mixing),
        }
    }

    /// Residual streams beside each other; 0 where there is one.
    pub fn streams(&self) -> usize {
        match self {
            Residual::Hyper(hyper) => hyper.keys.streams,
            Residual::Plain | Residual::AttnRes(_) => 0,
        }
    }

    /// Learned numbers beside the weights of a plain model.
    pub fn numbers(&self) -> u64 {
        match self {
            Residual::Plain => 0,
            Residual::AttnRes(mixing) => mixing.numbers(),
            Residual::Hyper(hyper) => hyper.numbers(),
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Residual::Plain => "plain".into(),
            Residual::AttnRes(mixing) => mixing.describe(),
            Residual::Hyper(hyper) => hyper.describe(),
        }
    }
}

impl Residual {
    /// A plain model with depth queries that were learned on it.
    pub fn learned(&self, mixing: DepthMixing) -> Result<Residual, ModelError> {
        match self {
            Residual::Plain => Ok(Residual::AttnRes(mixing)),
            own => Err(ModelError::Depth {
                name: "--depth".into(),
                what: format!("for a plain model, not for {}", own.describe()),
            }),
        }
    }
}

impl DepthMixing {
    /// How many were learned: query and norm of each target, biases, gates, null sources.
    pub fn numbers(&self) -> u64 {
        let of = |q: &DepthQuery| 2 * q.key.len() + q.null.as_ref().map_or(0, Vec::len) + usize::from(q.gate.is_some());
        self.queries.iter().flatten().map(|q| of(q) as u64 + u64::from(self.dialect == Dialect::Cumulative)).sum()
    }

    /// e.g. "AttnRes, faithful, 4 blocks"
    pub fn describe(&self) -> String {
        let sublayers = self.queries.len() - 1;
        match self.starts.len() {
            n if n == sublayers => format!("AttnRes, {}, full", self.dialect.name()),
            n => format!("AttnRes, {}, {n} blocks", self.dialect.name()),
        }
    }
}
