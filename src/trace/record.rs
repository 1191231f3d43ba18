//! What the records of a trace hold.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::message::ModelInfo;
use crate::engine::{LaneSpec, Sampler};

/// The first record: what ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Name and version of the program that recorded.
    pub program: String,
    pub model: ModelInfo,
    pub lanes: Vec<LaneHead>,
}

/// A lane as it was asked for; lanes forked later are not among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneHead {
    pub spec: String,
    pub sampler: Sampler,
}

/// A lane came to be in the middle of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The new lane.
    pub lane: u32,
    /// The lane that it continues.
    pub from: u32,
}

/// Texts of token ids that were not seen before.
pub type Spellings = Vec<(u32, String)>;

/// Prompt ids: a new run from here on.
pub type Prompt = Arc<[u32]>;

impl Header {
    pub fn new(model: ModelInfo, lanes: &[LaneSpec]) -> Self {
        let head = |lane: &LaneSpec| LaneHead { spec: lane.policy.spec().to_string(), sampler: lane.sampler.clone() };
        let program = concat!("attnscope ", env!("CARGO_PKG_VERSION")).to_owned();
        Self { program, model, lanes: lanes.iter().map(head).collect() }
    }
}
