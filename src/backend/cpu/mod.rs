//! The CPU backend: records a pass as a program, walks it with all threads.

mod alter;
mod attend;
mod attend_part;
mod attend_single;
mod attend_sparse;
mod attention;
mod begin;
mod carry_out;
mod draw;
mod elementwise;
mod hyper;
mod lent;
pub(in crate::backend) mod linear;
pub mod matmul;
mod matmul_op;
mod means;
mod mix;
#[cfg(test)]
mod packed_tests;
pub mod peaks;
mod pool;
mod program;
pub(in crate::backend) mod project;
mod read;
mod rope;
mod shared;
mod softmax;
mod sources;
mod stats;
mod tile;
#[cfg(test)]
mod watch_tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cache::{HeadCache, Queries, Strand, Wiring};
use crate::engine::frame::{OpSpan, Peaks};
use crate::engine::message::Probes;
use crate::model::config::Activation;
use crate::model::tensor::Tensor;
use crate::policy::reader::{Follower, Readers};
use crate::policy::watch::Watches;

use crate::simd;

use super::alter::Alter;
use super::draw::{Draw, Drawn};
use super::hyper::StreamOp;
use super::mixing::{Mix, MixAhead, MixMerge, Source, Sources};
use super::{Attention, Backend, BackendError, Buf, CacheId, GateUp, LowRank, Matrix, Result, Row, Shape, Vector};
use attend_sparse::SparseRead;
use linear::{Isa, Linear, Quantized, failed};
use pool::Pool;
use program::{Exec, Op, ProbeGrids, Program, QUERY_BLOCK, Run, Step};
use shared::{Alone, Grid};

/// Up to this many rows, residual points are copied and their statistics taken together at the end of the pass:
/// many small rows at once keep all threads busy, one row at a time does not.
const SAVED_ROWS: usize = 16;

pub struct CpuBackend {
    shape: Shape,
    exact: bool,
    pool: Pool,
    isa: Isa,
    interrupt: Arc<AtomicBool>,
    table: Option<Tensor>,
    memory: matmul::WeightMemory,
    matrices: Vec<Linear>,
    vectors: Vec<Vec<f32>>,
    /// What mixes of depth name.
    sources: Vec<Vec<Source>>,
    buffers: Vec<Grid>,
    quantized: Vec<Quantized>,
    /// The 8-bit copy of a buffer is up to date.
    fresh: Vec<bool>,
    /// Where a dense gated product leaves gate and up before the activation; by width.
    gate_up: BTreeMap<usize, Buf>,
    logits: Grid,
    /// See [`Inspect::drawn`].
    drawn: Vec<Drawn>,
    probes: ProbeGrids,
    /// [cache][layer · G + kv head]; freed caches are empty.
    caches: Vec<Vec<HeadCache>>,
    /// Of caches of which steps read a part.
    readers: BTreeMap<CacheId, Readers>,
    /// Of caches that read their prompt sparsely.
    sparse: BTreeMap<CacheId, SparseRead>,
    /// [cache]; `None`: every layer its own.
    wirings: Vec<Option<Wiring>>,
    /// See [`Exec::lent_queries`].
    lent_queries: Grid,
    queries: Queries,
    watches: Watches,
    /// [watch][layer · H + head][slots]
    watched: Vec<Vec<Strand>>,
    /// Put away while others are kept.
    shelf: Option<Queries>,
    // --- the pass being recorded ---
    rows: Vec<Row>,
    runs: Vec<Run>,
    pass_caches: Vec<CacheId>,
    keep_queries: Option<CacheId>,
    probes_on: Probes,
    angles: Vec<Vec<(f32, f32)>>,
    steps: Vec<Step>,
    pending_points: Vec<usize>,
    points_seen: usize,
    stream_seen: usize,
    /// Copy the residual points of all rows, however many.
    save_all_points: bool,
    logit_rows: usize,
    /// Of what is being recorded.
    layer: Option<u32>,
    times: BTreeMap<&'static str, OpRecord>,
    /// Every operation of the pass so far, in order, and the time of all of them.
    spans: Vec<OpSpan>,
    timed_ns: u64,
}

#[derive(Default)]
struct OpRecord {
    ns: Vec<u32>,
    bytes: u64,
    flops: u64,
    product: bool,
}

impl CpuBackend {
    /// `exact`: weights as f32, the reference; else weights as stored.
    pub fn new(shape: Shape, exact: bool, threads: usize) -> Result<Self> {
        let pool = Pool::new(threads).map_err(|e| failed("starting threads", e))?;
        let (l, h, g, d) = (shape.layers, shape.heads, shape.kv_heads, shape.head_dim);
        debug_assert!(g > 0 && h % g == 0);
        Ok(Self {
            queries: Queries::new(l, h, d, exact, shape.queries_budget, 0),
            watches: Watches::default(),
            watched: Vec::new(),
            shelf: None,
            exact,
            pool,
            isa: Isa::detect(),
            interrupt: Arc::default(),
            table: None,
            memory: matmul::WeightMemory::new(),
            matrices: Vec::new(),
            vectors: Vec::new(),
            sources: Vec::new(),
            buffers: Vec::new(),
            quantized: Vec::new(),
            fresh: Vec::new(),
            gate_up: BTreeMap::new(),
            logits: Grid::new(0, shape.vocab),
            drawn: Vec::new(),
            probes: ProbeGrids {
                residual: Grid::new(0, 5),
                points: Grid::new(0, shape.hidden),
                attention: Grid::new(0, 6),
                norms: Grid::new(0, 4),
                covered: Grid::new(0, 1),
                received: Grid::new(0, 16),
                watched: Grid::new(0, 16),
                depth: Grid::new(0, shape.depth_sources),
                gates: Grid::new(0, hyper::gate_width(&shape)),
            },
            caches: Vec::new(),
            readers: BTreeMap::new(),
            sparse: BTreeMap::new(),
            wirings: Vec::new(),
            lent_queries: Grid::new(0, h * d),
            rows: Vec::new(),
            runs: Vec::new(),
            pass_caches: Vec::new(),
            keep_queries: None,
            probes_on: Probes::default(),
            angles: Vec::new(),
            steps: Vec::new(),
            pending_points: Vec::new(),
            points_seen: 0,
            stream_seen: 0,
            save_all_points: false,
            logit_rows: 0,
            layer: None,
            times: BTreeMap::new(),
            spans: Vec::new(),
            timed_ns: 0,
            shape,
        })
    }

    fn push(&mut self, name: &'static str, op: Op, bytes: u64, flops: u64) {
        self.steps.push(Step { op, name, layer: self.layer, bytes, flops });
    }

    /// Bytes of one activation matrix of the pass.
    fn activation(&self, x: Buf) -> u64 {
        (self.rows.len() * self.buffers[x.0].width() * 4) as u64
    }

    fn written(&mut self, out: Buf) {
        self.fresh[out.0] = false;
    }

    /// Makes sure that the 8-bit copy of `x` exists where `w` reads it.
    fn quantize_for(&mut self, w: Matrix, x: Buf) {
        if !self.matrices[w.0].wants_quantized() || self.fresh[x.0] {
            return;
        }
        let (rows, width) = (self.shape.max_rows, self.buffers[x.0].width());
        self.quantized[x.0].get_or_insert_with(|| matmul::QuantizedRows::new(rows, width));
        self.fresh[x.0] = true;
        self.push("quantize", Op::Quantize { x }, self.activation(x) * 5 / 4, 0);
    }

    fn product_cost(&self, w: Matrix, x: Buf) -> (u64, u64) {
        let w = &self.matrices[w.0];
        let out = (self.rows.len() * w.rows() * 4) as u64;
        (w.bytes() + self.activation(x) + out, 2 * (self.rows.len() * w.rows() * w.cols()) as u64)
    }

    fn gate_up_buffer(&mut self, width: usize) -> Buf {
        if let Some(&buf) = self.gate_up.get(&width) {
            return buf;
        }
        let buf = self.buffer(width);
        self.gate_up.insert(width, buf);
        buf
    }

    /// Copies of the residual stream are kept for all rows of every pass: [`Backend::residual`] answers for them.
    fn saved_rows(&self) -> usize {
        if self.save_all_points || self.rows.len() <= SAVED_ROWS { self.rows.len() } else { 1 }
    }

    fn head_index(&self, layer: usize, kv_head: usize) -> usize {
        layer * self.shape.kv_heads + kv_head
    }

    /// The layer whose slots `layer` of `cache` has, because it reads its keys.
    fn keys_of(&self, cache: CacheId, layer: usize) -> usize {
        self.wirings[cache.0].as_ref().map_or(layer, |wiring| wiring.keys(layer))
    }

    fn cache_ref(&self, cache: CacheId, layer: usize, kv_head: usize) -> &HeadCache {
        &self.caches[cache.0][self.head_index(layer, kv_head)]
    }
}

impl Backend for CpuBackend {
    fn describe(&self) -> String {
        format!("cpu, {} thread{}, {}", self.pool.threads(), if self.pool.threads() == 1 { "" } else { "s" }, self.isa)
    }

    fn matrix(&mut self, parts: &[&Tensor]) -> Result<Matrix> {
        self.matrices.push(if self.exact { Linear::dense(parts)? } else { Linear::native(parts, &mut self.memory)? });
        Ok(Matrix(self.matrices.len() - 1))
    }

    fn gate_up(&mut self, gate: &Tensor, up: &Tensor) -> Result<Matrix> {
        self.matrices.push(if self.exact {
            Linear::dense(&[gate, up])?
        } else {
            Linear::native_gated(gate, up, &mut self.memory)?
        });
        Ok(Matrix(self.matrices.len() - 1))
    }

    fn vector(&mut self, parts: &[&Tensor], plus_one: bool) -> Result<Vector> {
        let mut all = Vec::new();
        for part in parts {
            all.extend(linear::dequantize(part)?);
        }
        if plus_one {
            all.iter_mut().for_each(|x| *x += 1.0);
        }
        self.vectors.push(all);
        Ok(Vector(self.vectors.len() - 1))
    }

    fn numbers(&mut self, values: &[f32]) -> Result<Vector> {
        self.vectors.push(values.to_vec());
        Ok(Vector(self.vectors.len() - 1))
    }

    fn sources(&mut self, of: &[Source]) -> Sources {
        self.sources.push(of.to_vec());
        Sources(self.sources.len() - 1)
    }

    fn table(&mut self, table: &Tensor) -> Result<()> {
        self.table = Some(table.clone());
        Ok(())
    }

    fn weight_bytes(&self) -> u64 {
        let vectors: u64 = self.vectors.iter().map(|v| v.len() as u64 * 4).sum();
        let table = self.table.as_ref().map_or(0, |t| t.data().len() as u64);
        self.matrices.iter().map(Linear::bytes).sum::<u64>() + vectors + table
    }

    fn buffer(&mut self, width: usize) -> Buf {
        self.buffers.push(Grid::new(0, width));
        self.quantized.push(None);
        self.fresh.push(false);
        Buf(self.buffers.len() - 1)
    }

    fn begin(&mut self, rows: &[Row], probes: Probes, keep_queries: Option<CacheId>) -> Result<()> {
        self.begin_pass(rows, probes, keep_queries)
    }

    fn in_layer(&mut self, layer: Option<usize>) {
        self.layer = layer.map(|layer| layer as u32);
    }

    fn embed(&mut self, scale: f32, out: Buf) {
        self.written(out);
        self.push("embed", Op::Embed { scale, out }, self.activation(out) * 2, 0);
    }

    fn fill(&mut self, values: &[f32], out: Buf) {
        self.written(out);
        self.push("embed", Op::Fill { values: values.into(), out }, self.activation(out) * 2, 0);
    }

    fn residual_point(&mut self, x: Buf, point: usize) {
        let (seen, first) = match point < self.shape.points() {
            true => (&mut self.points_seen, 0),
            false => (&mut self.stream_seen, self.shape.points()),
        };
        *seen = (*seen).max(point + 1 - first);
        self.pending_points.push(point);
        self.push("residual probe", Op::ResidualPoint { x, point }, self.activation(x), 0);
    }

    fn blend(&mut self, out: Buf, keep: f32, x: Buf, by: f32) {
        self.record_blend(out, keep, x, by);
    }

    fn mix(&mut self, mix: &Mix, out: Buf) {
        self.record_mix(mix, out);
    }

    fn mix_ahead(&mut self, ahead: &MixAhead) {
        self.record_ahead(ahead);
    }

    fn mix_merge(&mut self, merge: &MixMerge, out: Buf) {
        self.record_merge(merge, out);
    }

    fn streams(&mut self, op: &StreamOp) {
        self.record_streams(op);
    }

    fn rms_norm(&mut self, x: Buf, weight: Vector, eps: f32, out: Buf) {
        self.written(out);
        let cost = self.activation(x);
        self.push("norm", Op::RmsNorm { x, weight, eps, out }, 2 * cost, cost);
    }

    fn add_rms_norm(&mut self, x: Buf, y: Buf, weight: Vector, eps: f32) {
        self.written(x);
        let cost = self.activation(x);
        self.push("norm", Op::AddRmsNorm { x, y, weight, eps }, 3 * cost, cost);
    }

    fn matmul(&mut self, name: &'static str, w: Matrix, x: Buf, bias: Option<Vector>, out: Buf) {
        self.quantize_for(w, x);
        self.written(out);
        let (bytes, flops) = self.product_cost(w, x);
        self.push(name, Op::Matmul { w, x, bias, out, add: false }, bytes, flops);
    }

    fn matmul_add(&mut self, name: &'static str, w: Matrix, x: Buf, bias: Option<Vector>, out: Buf) {
        self.quantize_for(w, x);
        self.written(out);
        let (bytes, flops) = self.product_cost(w, x);
        self.push(name, Op::Matmul { w, x, bias, out, add: true }, bytes, flops);
    }

    fn alter(&mut self, x: Buf, rows: Range<usize>, how: Alter) {
        self.record_alter(x, rows, how);
    }

    fn low_rank(&mut self, change: &Arc<LowRank>, x: Buf, first: usize, out: Buf) {
        self.written(out);
        let numbers = change.down.len() + change.up.len();
        let bytes = (4 * numbers) as u64 + self.activation(x) + self.activation(out);
        let flops = 2 * (self.rows.len() * numbers) as u64;
        self.push("low rank", Op::LowRank { change: change.clone(), x, first, out }, bytes, flops);
    }

    fn gated(&mut self, w: GateUp<'_>, x: Buf, bias: Option<Vector>, act: Activation, out: Buf) {
        let GateUp { w, changes } = w;
        self.quantize_for(w, x);
        self.written(out);
        let (bytes, flops) = self.product_cost(w, x);
        // what is changed has to lie open between the product and the activation
        if matches!(self.matrices[w.0], Linear::PackedGated(..)) && changes == [None, None] {
            self.push("gate·up", Op::Gated { w, x, bias, act, out }, bytes, flops);
        } else {
            let width = self.buffers[out.0].width();
            let both = self.gate_up_buffer(2 * width);
            let rows = self.rows.len();
            self.buffers[both.0].resize(rows);
            self.push("gate·up", Op::Matmul { w, x, bias: None, out: both, add: false }, bytes, flops);
            for (change, first) in changes.into_iter().zip([0, width]) {
                change.iter().for_each(|change| self.low_rank(change, x, first, both));
            }
            let cost = self.activation(both);
            self.push("activation", Op::Activate { x: both, bias, act, out }, cost + self.activation(out), cost);
        }
    }

    fn attend(&mut self, attention: &Attention, qkv: Buf, out: Buf) {
        self.written(out);
        let d = self.shape.head_dim as u64;
        let (slots, bytes) = self.visible_slots(attention.layer, attention.window);
        let group = (self.shape.heads / self.shape.kv_heads) as u64;
        let attention = *attention;
        self.push("rope·append", Op::Rope { attention, qkv }, 2 * self.activation(qkv), self.activation(qkv));
        if self.runs.iter().any(|run| run.len == 1) {
            let (bytes, flops) = (bytes / 2, slots * group * 2 * d);
            self.push("scores", Op::Score { attention, qkv }, bytes, flops);
            if self.runs.iter().any(|run| run.len == 1 && self.readers.contains_key(&self.pass_caches[run.cache])) {
                self.push("reading a part", Op::AttendPart { attention, qkv }, 0, 0);
            }
            self.push("softmax", Op::Normalize { attention, qkv }, slots * group * 12, slots * group * 20);
            self.push("values", Op::WeighValues { attention, qkv, out }, bytes, flops);
        }
        if self.runs.iter().any(|run| run.len > 1) {
            self.push("attention", Op::AttendRuns { attention, qkv, out }, bytes, slots * group * 4 * d);
            self.push("column sums", Op::FoldReceived { layer: attention.layer }, 0, 0);
        }
    }

    fn head(&mut self, w: Option<Matrix>, x: Buf, rows: Range<usize>, softcap: Option<f32>) {
        let Some(w) = w else { return };
        self.quantize_for(w, x);
        self.logits.resize(rows.len());
        self.logit_rows = rows.len();
        let m = &self.matrices[w.0];
        let (bytes, flops) = (m.bytes(), 2 * (rows.len() * m.rows() * m.cols()) as u64);
        self.push("head", Op::Head { w: Some(w), x, first: rows.start, rows: rows.len() }, bytes, flops);
        if let Some(cap) = softcap {
            self.push("softcap", Op::Softcap { cap, rows: rows.len() }, (rows.len() * self.shape.vocab * 8) as u64, 0);
        }
    }

    fn draw(&mut self, w: Matrix, x: Buf, rows: Range<usize>, softcap: Option<f32>, draws: &[Draw]) {
        self.head(Some(w), x, rows, softcap);
        self.record_draw(draws);
    }

    fn fuses_draw(&self) -> bool {
        false
    }

    fn run(&mut self) -> Result<()> {
        self.carry_out()
    }

    fn interrupter(&self) -> Arc<AtomicBool> {
        self.interrupt.clone()
    }

    fn load(&mut self, x: Buf, values: &[f32]) -> Result<()> {
        let rows = values.len() / self.buffers[x.0].width().max(1);
        self.begin(&[], Probes { timings: false, ..Probes::default() }, None)?;
        self.rows = vec![Row { token: 0, position: 0, turned: 0, cache: CacheId(0) }; rows];
        self.buffers.iter_mut().for_each(|grid| grid.resize(rows));
        self.buffers[x.0].as_mut_slice()[..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn save_all_points(&mut self, on: bool) {
        self.save_all_points = on;
    }

    fn peaks(&mut self) -> Result<Peaks> {
        peaks::measure(&mut self.pool, peaks::typical(&self.matrices), self.isa)
    }
}
