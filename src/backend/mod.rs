//! The trait of tensor operations; `cpu` and `cuda` implement it.
//!
//! Calls between [`Backend::begin`] and [`Backend::run`] record operations of one pass; `run` carries out what was
//! recorded: the CPU walks it with all threads, a GPU puts it on a stream or captures it as a graph. Activations
//! are matrices `[rows, width]` f32 with one row per token of the pass.

pub mod alter;
pub mod cpu;
pub mod cuda;
pub mod draw;
pub mod hyper;
pub mod mixing;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::cache::{KvType, Packing, Saved, Wiring};
use crate::engine::frame::{AttentionStats, KvNorms, OpSpan, OpTime, Peaks, ResidualStats};
use crate::engine::message::{Fold, Probes};
use crate::model::config::Activation;
use crate::model::tensor::Tensor;
use crate::policy::delta::Sparse;
use crate::policy::part::{Norm, Rewritten};
use crate::policy::reader::Readers;
use crate::policy::watch::Watches;
use alter::Alter;
use draw::{Draw, Drawn};
use hyper::{GateRows, StreamOp};
use mixing::{DepthWeights, Mix, MixAhead, MixMerge, Source, Sources};

#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    #[error("{what}: {why}")]
    Failed { what: String, why: String },
    #[error("interrupted")]
    Interrupted,
}

pub type Result<T> = std::result::Result<T, BackendError>;

/// An activation matrix [rows of the pass, width].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buf(pub(crate) usize);

/// A change of a linear weight [out, in] by a product of rank r: W + scale · up · down.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    pub rank: usize,
    /// [r, in]; LoRA's A.
    pub down: Vec<f32>,
    /// [out, r]; LoRA's B.
    pub up: Vec<f32>,
    /// LoRA's α / r.
    pub scale: f32,
}

/// A linear weight [out, in].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matrix(pub(crate) usize);

/// Gate and up projection of a gated MLP, and what is changed about the two.
#[derive(Debug, Clone, Copy)]
pub struct GateUp<'a> {
    /// From [`Backend::gate_up`].
    pub w: Matrix,
    pub changes: [Option<&'a Arc<LowRank>>; 2],
}

/// A vector of norm weights or biases, f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vector(pub(crate) usize);

/// One lane's KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheId(pub(crate) usize);

/// One token of a pass.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub token: u32,
    /// In the text.
    pub position: u32,
    /// By which queries and keys are turned: the same, unless the cache has been turned to positions of its own.
    pub turned: u32,
    pub cache: CacheId,
}

/// What the backend has to know about the model before any tensor comes.
#[derive(Debug, Clone)]
pub struct Shape {
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub hidden: usize,
    pub vocab: usize,
    /// Most rows of one pass.
    pub max_rows: usize,
    /// Angular frequencies of each rope [head_dim / 2].
    pub ropes: Vec<Vec<f32>>,
    pub kv: KvType,
    /// Budget of the kept queries, bytes.
    pub queries_budget: u64,
    /// Positions that count as recent in [`AttentionStats::recent`].
    pub recent_window: usize,
    /// The stream is measured apart from what sublayers read: its points follow those.
    pub stream_points: bool,
    /// Most sources that a target mixes; 0 where depth is not mixed.
    pub depth_sources: usize,
    /// Residual streams; 0 where there are no hyper-connections. Backends that have none refuse such a shape.
    pub streams: usize,
}

impl Shape {
    /// Residual points of what sublayers read; as many of the stream follow where that is measured apart.
    pub fn points(&self) -> usize {
        2 * self.layers + 1
    }

    pub fn all_points(&self) -> usize {
        self.points() * (1 + usize::from(self.stream_points))
    }
}

/// Attention of one layer: rope, append, attend.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    pub layer: usize,
    pub rope: usize,
    pub scale: f32,
    pub softcap: Option<f32>,
    pub window: Option<usize>,
    /// Norm weights of queries and keys [head_dim] and epsilon.
    pub qk_norm: Option<(Vector, Vector, f32)>,
}

/// See [`Inspect::position_means`].
#[derive(Debug, Clone, PartialEq)]
pub struct PositionMeans {
    /// Mean column sums [positions].
    pub received: Arc<[f32]>,
    /// Mean probabilities of the newest query [positions].
    pub row: Arc<[f32]>,
}

/// A tile of an attention map: see [`crate::engine::message::Query::Tile`].
#[derive(Debug, Clone)]
pub struct Tile {
    pub layer: usize,
    pub head: usize,
    pub rows: Range<u32>,
    pub cols: Range<u32>,
    pub height: usize,
    pub width: usize,
    pub fold: Fold,
}

/// Records and runs passes.
pub trait Backend: Inspect + Send + Sync {
    /// e.g. "cpu, 2 threads, avx2".
    fn describe(&self) -> String;

    // --- weights ---
    /// A linear weight; several parts are stacked by rows.
    fn matrix(&mut self, parts: &[&Tensor]) -> Result<Matrix>;
    /// Gate and up projection of a gated MLP, laid out for [`Backend::gated`].
    fn gate_up(&mut self, gate: &Tensor, up: &Tensor) -> Result<Matrix>;
    /// Concatenated vectors; `plus_one` adds 1 to every element.
    fn vector(&mut self, parts: &[&Tensor], plus_one: bool) -> Result<Vector>;
    /// Numbers that were worked out from several vectors.
    fn numbers(&mut self, values: &[f32]) -> Result<Vector>;
    /// What mixes of depth will name.
    fn sources(&mut self, of: &[Source]) -> Sources;
    /// The embedding table. Kept as stored.
    fn table(&mut self, table: &Tensor) -> Result<()>;
    fn weight_bytes(&self) -> u64;

    // --- one pass ---
    fn buffer(&mut self, width: usize) -> Buf;
    /// Starts a pass over `rows`. Rows of one cache are in ascending position order.
    /// `keep_queries`: rows of this cache store their queries; every row of it must follow the last one stored.
    fn begin(&mut self, rows: &[Row], probes: Probes, keep_queries: Option<CacheId>) -> Result<()>;
    /// What is recorded from now on, in this pass, belongs to `layer`, or to none.
    fn in_layer(&mut self, layer: Option<usize>);
    /// out = table[token] · scale
    fn embed(&mut self, scale: f32, out: Buf);
    /// out = values [rows, width]: rows that are no tokens, in place of [`Backend::embed`].
    fn fill(&mut self, values: &[f32], out: Buf);
    /// Statistics of the residual stream at `point`.
    fn residual_point(&mut self, x: Buf, point: usize);
    /// out = keep · out + by · x; what `out` held does not matter where `keep` is 0.
    fn blend(&mut self, out: Buf, keep: f32, x: Buf, by: f32);
    /// See [`mixing`].
    fn mix(&mut self, mix: &Mix, out: Buf);
    fn mix_ahead(&mut self, ahead: &MixAhead);
    fn mix_merge(&mut self, merge: &MixMerge, out: Buf);
    /// Of hyper-connections.
    fn streams(&mut self, _op: &StreamOp) {}
    /// out = x / rms(x) · weight
    fn rms_norm(&mut self, x: Buf, weight: Vector, eps: f32, out: Buf);
    /// x += y / rms(y) · weight
    fn add_rms_norm(&mut self, x: Buf, y: Buf, weight: Vector, eps: f32);
    /// out = x · wᵀ (+ bias)
    fn matmul(&mut self, name: &'static str, w: Matrix, x: Buf, bias: Option<Vector>, out: Buf);
    /// out += x · wᵀ (+ bias)
    fn matmul_add(&mut self, name: &'static str, w: Matrix, x: Buf, bias: Option<Vector>, out: Buf);
    /// Changes rows of `x` in place.
    fn alter(&mut self, x: Buf, rows: Range<usize>, how: Alter);
    /// out[.., first..] += x · downᵀ · upᵀ · scale, behind the product of the weight that is changed.
    fn low_rank(&mut self, change: &Arc<LowRank>, x: Buf, first: usize, out: Buf);
    /// out = act(x · gateᵀ) ⊙ (x · upᵀ)
    fn gated(&mut self, w: GateUp<'_>, x: Buf, bias: Option<Vector>, act: Activation, out: Buf);
    /// qkv = [q | k | v] rows: norm, rotate, append to each row's cache, attend; out [rows, H·D].
    fn attend(&mut self, attention: &Attention, qkv: Buf, out: Buf);
    /// Logits of the listed rows: softcap(norm(x) · headᵀ). Read with [`Backend::logits`].
    fn head(&mut self, w: Option<Matrix>, x: Buf, rows: Range<usize>, softcap: Option<f32>);
    /// Instead of [`Backend::head`]: draws from the listed rows, `draws` [rows.len()] saying how, with
    /// [`draw::CANDIDATES`] candidates each. Read with [`Inspect::drawn`]; logits need not be left.
    fn draw(&mut self, w: Matrix, x: Buf, rows: Range<usize>, softcap: Option<f32>, draws: &[Draw]);
    /// Drawing spares the logits their way through memory.
    fn fuses_draw(&self) -> bool;
    /// Carries out what was recorded since `begin` or the last `run`.
    fn run(&mut self) -> Result<()>;
    /// Starts a pass without tokens: `x` holds `values` [rows, width]. For products over numbers already known.
    fn load(&mut self, x: Buf, values: &[f32]) -> Result<()>;
    /// Keep copies of the residual stream of all rows ([`Inspect::residual`]), not only of few-row passes.
    fn save_all_points(&mut self, on: bool);
    /// The UUID of the card that this is on, as NVML takes it.
    fn card(&self) -> Option<String> {
        None
    }
    /// Measures what the device does at best, in about a tenth of a second. Leaves what passes left behind alone.
    fn peaks(&mut self) -> Result<Peaks>;
    /// A flag that another thread sets to stop a running pass between two operations.
    fn interrupter(&self) -> std::sync::Arc<std::sync::atomic::AtomicBool>;
}

/// What passes leave behind: activations and probes of the last one, caches and kept queries of all.
pub trait Inspect {
    /// What went wrong since the last time where a function has no error to give: its numbers were NaN.
    fn check(&self) -> Result<()> {
        Ok(())
    }
    /// Attention of this cache's rows runs on the CPU although the rest does not.
    fn attends_on_host(&self, _cache: CacheId) -> bool {
        false
    }

    // --- until the next `begin` ---
    /// [rows asked for in `head`, V]
    fn logits(&self) -> &[f32];
    /// [rows asked for in `draw`]
    fn drawn(&self) -> &[Drawn];
    /// A copy of an activation matrix [rows of the pass, width].
    fn read(&self, x: Buf) -> Vec<f32>;
    /// Residual stream at a point for the last rows of the pass (all, or the last one) [saved rows, hidden].
    fn residual(&self, point: usize) -> &[f32];
    fn residual_stats(&self) -> ResidualStats;
    /// Of the stream where that is measured apart, else of no points.
    fn stream_stats(&self) -> ResidualStats;
    fn depth_weights(&self) -> DepthWeights;
    /// What streams were mixed by; empty without streams.
    fn gates(&self) -> GateRows {
        GateRows::default()
    }
    fn attention_stats(&self) -> AttentionStats;
    /// Largest probability that a row of the pass gives to an entry.
    fn strongest(&self, row: usize, layer: usize, head: usize) -> f32;
    fn kv_norms(&self) -> KvNorms;
    fn op_times(&self) -> Vec<OpTime>;
    /// The calls that [`Inspect::op_times`] adds up, in the order in which they ran; may be left out for passes of many
    /// rows.
    fn timeline(&self) -> Vec<OpSpan>;
    /// The last run was one graph of kernels.
    fn ran_as_graph(&self) -> bool {
        false
    }
    fn activation_bytes(&self) -> u64;

    // --- caches ---
    fn cache(&mut self) -> CacheId;
    /// Empties `cache`; from now on its layers read each other as `wiring` says. Such layers have the slots of the
    /// layer whose keys they read, newest rows and column sums of their own.
    fn wire(&mut self, cache: CacheId, wiring: &Wiring) -> Result<()>;
    /// `None`: every layer its own.
    fn wiring(&self, cache: CacheId) -> Option<&Wiring>;
    /// A new cache with the listed slots of `from`, `[layer][kv head]`; `None` = all. Wired as `from` is.
    fn fork(&mut self, from: CacheId, keep: &dyn Fn(usize, usize) -> Option<Vec<u32>>) -> Result<CacheId>;
    fn free(&mut self, cache: CacheId);
    /// Keeps the listed slots (ascending) of each kv head [layer · G + kv head] and gives the others' memory back;
    /// `None` keeps all. Layers that read another one's keys follow that one.
    fn retain(&mut self, cache: CacheId, keep: &[Option<&[u32]>]) -> Result<()>;
    /// New contents of all slots of one kv head, none of them packed.
    fn overwrite(&mut self, cache: CacheId, layer: usize, kv_head: usize, new: &Rewritten) -> Result<()>;
    /// Packs slots of each kv head [layer · G + kv head] and gives the memory of what they were back.
    fn pack(&mut self, cache: CacheId, packing: &[Option<Packing>]) -> Result<()>;
    /// Slots whose keys and whose values are packed: so many of the oldest.
    fn packed(&self, cache: CacheId, layer: usize, kv_head: usize) -> (usize, usize);
    fn save(&self, cache: CacheId, append_only: bool) -> Vec<Saved>;
    fn restore(&mut self, cache: CacheId, saved: &[Saved]) -> Result<()>;
    /// Original positions held, ascending [n].
    fn positions(&self, cache: CacheId, layer: usize, kv_head: usize) -> &[u32];
    /// [n, D], after rope.
    fn keys(&self, cache: CacheId, layer: usize, kv_head: usize) -> Cow<'_, [f32]>;
    /// [n, D]
    fn values(&self, cache: CacheId, layer: usize, kv_head: usize) -> Cow<'_, [f32]>;
    /// ‖W_O,h · v_t‖ of the held values of each query head h [H][n]; `output`: the output projection [d, H·D].
    fn projected(&self, cache: CacheId, layer: usize, output: &Tensor, norm: Norm) -> Result<Vec<Vec<f32>>>;
    /// Added to every logit on a slot, nats [n]; empty where nothing is.
    fn offsets(&self, cache: CacheId, layer: usize, kv_head: usize) -> &[f32];
    /// Column sums of a query head [n].
    fn received(&self, cache: CacheId, layer: usize, head: usize) -> &[f32];
    /// Attention of the newest query of a head [n].
    fn newest_row(&self, cache: CacheId, layer: usize, head: usize) -> &[f32];
    /// Column sums and newest rows of several caches, mean over layers and heads, 0 where a head does not hold a
    /// position below `positions`.
    fn position_means(&mut self, caches: &[CacheId], positions: usize) -> Result<Vec<PositionMeans>>;
    /// From now on rows that come alone read of this cache what `readers` choose; `None`: all of it.
    fn set_readers(&mut self, cache: CacheId, readers: Option<Readers>) -> Result<()>;
    fn readers(&self, cache: CacheId) -> Option<&Readers>;
    /// From now on rows that come several at once are those of a prompt of so many tokens and attend as `sparse` says,
    /// but where the layer has a window of its own; each pass has to begin at a dense row. `None`: to all they see.
    fn set_sparse(&mut self, cache: CacheId, sparse: Option<(Sparse, usize)>) -> Result<()>;
    /// Share of its dense attention that each row of the last pass read [L·H][rows]; empty where none was read sparsely.
    fn covered(&self) -> Vec<f32>;
    /// Bytes of live keys and values of a layer.
    fn cache_bytes(&self, cache: CacheId, layer: usize) -> u64;

    // --- kept queries ---
    fn kept_queries(&self) -> Range<u32>;
    fn query_bytes(&self) -> u64;
    fn truncate_queries(&mut self, end: u32);
    /// Puts the kept queries away and starts empty at position `first`, until [`Inspect::restore_queries`].
    fn shelve_queries(&mut self, first: u32);
    /// Brings the queries back that were put away; those kept since are gone.
    fn restore_queries(&mut self);
    /// From the next pass on `watches` look at the rows of the cache whose queries are kept.
    fn watch(&mut self, watches: &Watches);
    /// What they have summed up since [watch][layer · H + head][slots]; ends it.
    fn take_watched(&mut self) -> Vec<Vec<Vec<f32>>>;
    /// Kept queries after rope [positions, D].
    fn queries(&self, layer: usize, head: usize, positions: Range<u32>) -> Vec<f32>;
    /// Attention rows of kept queries over the slots of `cache` [rows, n]: exp(s − lse) where visible, else 0.
    fn rows(&self, cache: CacheId, attention: &Attention, head: usize, rows: Range<u32>) -> Result<Vec<f32>>;
    /// Folded pixels [height, width], NaN where nothing is visible.
    fn tile(&mut self, cache: CacheId, attention: &Attention, tile: &Tile) -> Result<Vec<f32>>;
}
