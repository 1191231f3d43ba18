//! Putting a model on a backend.

use std::path::PathBuf;

use super::core::Core;
use super::device::Device;
use super::error::Result;
use super::lane::LaneSpec;
use super::message::ModelInfo;
use crate::backend::{self, Backend, Shape};
use crate::cache::KvType;
use crate::meter::nvml::Which;
use crate::meter::watch::CardMeter;
use crate::model::config::Rope;
use crate::model::decoder::Decoder;
use crate::model::residual::{self, Plan};
use crate::model::source::Model;

/// How weights are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Kept as stored, quantised weights against 8-bit activations.
    Native,
    /// Dequantised to f32: the reference.
    F32,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub device: Device,
    pub precision: Precision,
    pub threads: usize,
    /// `None`: f32 for the reference, f16 otherwise.
    pub kv: Option<KvType>,
    /// Bytes for the kept queries.
    pub queries_budget: u64,
    /// Tokens of the prompt read in one pass.
    pub chunk: usize,
    /// `lanes[0]` keeps everything.
    pub lanes: Vec<LaneSpec>,
    /// A file of depth queries that were learned on the model.
    pub depth: Option<PathBuf>,
}

impl Precision {
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Native => "native",
            Precision::F32 => "f32",
        }
    }
}

/// Positions that count as recent in attention statistics.
const RECENT_WINDOW: usize = 32;

/// Hands the model's weights to the device asked for. `progress(done, total)` counts layers.
pub fn open(model: &Model, options: &Options, progress: impl FnMut(u64, u64)) -> Result<(Core, ModelInfo)> {
    open_on(model, options, |shape, exact| options.device.backend(shape, exact, options.threads), progress)
}

/// The same on a backend that `make(shape, exact)` makes; with it come words about where that is.
pub fn open_on(
    model: &Model,
    options: &Options,
    make: impl FnOnce(Shape, bool) -> backend::Result<(Box<dyn Backend>, Option<String>)>,
    progress: impl FnMut(u64, u64),
) -> Result<(Core, ModelInfo)> {
    let config = &model.config;
    options.lanes.iter().try_for_each(|lane| super::lane::fits(&lane.policy, config))?;
    let exact = options.precision == Precision::F32;
    let kv = options.kv.unwrap_or(if exact { KvType::F32 } else { KvType::F16 });
    let max_rows = options.chunk.max(options.lanes.len()).max(config.layers.len() + 1).max(64);
    let residual = match &options.depth {
        Some(path) => model.weights.residual.learned(residual::read_adapter(path, config)?)?,
        None => model.weights.residual.clone(),
    };
    let mixing = residual.mixing();
    let shape = Shape {
        layers: config.layers.len(),
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        hidden: config.hidden,
        vocab: config.vocab,
        max_rows,
        ropes: config.ropes.iter().map(|rope: &Rope| rope.frequencies(config.head_dim)).collect(),
        kv,
        queries_budget: options.queries_budget,
        recent_window: RECENT_WINDOW,
        stream_points: residual != residual::Residual::Plain,
        depth_sources: mixing.map_or(0, |mixing| Plan::new(mixing, true).across()),
        streams: residual.streams(),
    };
    let (mut backend, why) = make(shape, exact)?;
    let decoder = Decoder::load(config, &model.weights, &residual, &mut *backend, progress)?;
    let info = ModelInfo {
        id: model.id.clone(),
        family: config.family.name().into(),
        sha256: None,
        layers: config.layers.len(),
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        hidden: config.hidden,
        ff: config.ff,
        vocab: config.vocab,
        context: config.context,
        windows: config.layers.iter().map(|l| l.window).collect(),
        weight_types: model.weight_types.clone(),
        parameters: model.parameters,
        device: why.map_or(backend.describe(), |why| format!("{} ({why})", backend.describe())),
        precision: options.precision.name().into(),
        kv_type: kv.to_string(),
        threads: options.threads,
        eos: config.eos.clone(),
        depth: super::depth::info(&residual, decoder.depth_plan()),
    };
    let (lanes, tokenizer) = (options.lanes.clone(), model.tokenizer.clone());
    // One that cannot be watched runs as well.
    let card = backend.card().and_then(|uuid| CardMeter::start(Which::Uuid(uuid)).ok());
    let mut core = Core::new(backend, decoder, lanes, options.chunk, options.queries_budget, tokenizer);
    core.card = card;
    Ok((core, info))
}
