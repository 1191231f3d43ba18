//! What `sweep --json` prints, described in the README.

use serde::Serialize;

use crate::probe::difference::Difference;

pub const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub model: String,
    pub device: String,
    pub precision: String,
    /// "heads", "layers", "attention" or "mlp".
    pub over: String,
    pub ids: Vec<u32>,
    /// Nothing is missing; false where the sweep was interrupted.
    pub complete: bool,
    /// How many there are to knock out.
    pub of: usize,
    /// Mean −ln p of the tokens behind the first, nothing knocked out, nats; share of heads with α_0 > 0.3.
    pub nll: f32,
    pub sink_rate: f32,
    /// Most costly first.
    pub ranked: Vec<Knocked>,
}

/// One knocked out.
#[derive(Debug, Serialize)]
pub struct Knocked {
    /// As a lane: `--lane` takes it.
    pub spec: String,
    pub layer: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<usize>,
    /// Change of the mean −ln p, nats a token.
    pub delta_nll: f32,
    pub sink_rate: f32,
    #[serde(flatten)]
    pub difference: Difference,
}
