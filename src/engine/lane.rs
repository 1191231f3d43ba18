//! One continuation of the prompt.

use std::sync::Arc;

use super::error::{EngineError, Result};
use super::frame::{Effect, Kept};
use super::history::History;
use super::outlook::Outlook;
use super::sampler::Sampler;
use super::verdict::Verdicts;
use crate::backend::CacheId;
use crate::model::alteration::Alterations;
use crate::model::config::Config;
use crate::policy::Policy;
use crate::policy::part::Sizes;
use crate::policy::sharing::Shared;

/// What a lane is asked to be.
#[derive(Debug, Clone)]
pub struct LaneSpec {
    pub policy: Policy,
    pub sampler: Sampler,
}

/// A running lane.
pub struct Lane {
    pub policy: Policy,
    pub spec: Arc<str>,
    pub sampler: Sampler,
    pub cache: CacheId,
    /// Tokens fed after the prompt, in order.
    pub fed: Vec<u32>,
    /// Fed in the next step; `None` where there is no token to draw.
    pub next: Option<u32>,
    pub kept: Arc<Kept>,
    /// How far the positions that keys are turned by lie behind those in the text.
    pub shift: u32,
    /// Rows of the past, where its policy counts them.
    pub(super) history: History,
    /// How its layers share, where they do.
    pub shared: Option<Arc<Shared>>,
    /// What its interventions change about every pass.
    pub(super) alterations: Option<Arc<Alterations>>,
    /// The first token that it has read: not 0 where an intervention left that out.
    pub(super) first: u32,
    /// What its interventions made of the prompt.
    pub(super) effect: Option<Effect>,
    /// The newest decision about each layer.
    pub(super) verdicts: Verdicts,
    /// The step after which the lane came to be (0, or where it was forked).
    pub born: u32,
    /// After its newest token.
    pub outlook: Arc<Outlook>,
}

pub fn sizes(config: &Config) -> Sizes {
    Sizes {
        layers: config.layers.len(),
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        hidden: config.hidden,
        ff: config.ff,
    }
}

/// Fails with the reason where a policy cannot run on a model of this shape.
pub fn fits(policy: &Policy, config: &Config) -> Result<()> {
    let misfit = |why: String| EngineError::PolicyMisfit { spec: policy.spec().to_string(), why };
    if policy.always_cache_positions() && config.layers.iter().any(|layer| layer.window.is_some()) {
        let why = "it turns keys to the places of their slots, and this model's sliding-window layers hold others";
        return Err(misfit(why.into()));
    }
    policy.fits(sizes(config)).map_err(misfit)
}
