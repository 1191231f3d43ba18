//! What one pass consists of, and how the threads walk through it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use crate::backend::alter::Alter;
use crate::backend::draw::{Draw, Drawn};
use crate::backend::hyper::StreamOp;
use crate::backend::mixing::{Mix, MixAhead, MixMerge, Source};
use crate::backend::{Attention, Buf, LowRank, Matrix, Row, Vector};
use crate::cache::{HeadCache, QueryWriter, Strand, Wiring};
use crate::model::config::Activation;
use crate::model::tensor::Tensor;
use crate::policy::reader::Follower;
use crate::policy::watch::Watch;

use super::attend_sparse::SparseRead;
use super::linear::Linear;
use super::pool::{Share, Shares, Worker};
use super::shared::{Alone, Grid};
use super::{alter, attend_part, attend_single, attention, draw, elementwise, hyper, matmul_op, mix, rope};

/// One operation with its operands.
#[derive(Debug, Clone)]
pub enum Op {
    Embed {
        scale: f32,
        out: Buf,
    },
    Fill {
        /// [rows, width]
        values: Arc<[f32]>,
        out: Buf,
    },
    /// Statistics now (many rows) or a copy for [`Op::SavedStats`] (few rows).
    ResidualPoint {
        x: Buf,
        point: usize,
    },
    /// Statistics of all points copied so far, spread over the threads.
    SavedStats {
        points: Vec<usize>,
    },
    Blend {
        out: Buf,
        keep: f32,
        x: Buf,
        by: f32,
    },
    Mix {
        mix: Mix,
        out: Buf,
    },
    MixAhead {
        ahead: MixAhead,
    },
    MixMerge {
        merge: MixMerge,
        out: Buf,
    },
    Streams(StreamOp),
    RmsNorm {
        x: Buf,
        weight: Vector,
        eps: f32,
        out: Buf,
    },
    AddRmsNorm {
        x: Buf,
        y: Buf,
        weight: Vector,
        eps: f32,
    },
    /// Rounds the rows of `x` to 8 bit for the packed products that follow.
    Quantize {
        x: Buf,
    },
    Alter {
        x: Buf,
        rows: Range<usize>,
        how: Alter,
    },
    Matmul {
        w: Matrix,
        x: Buf,
        bias: Option<Vector>,
        out: Buf,
        add: bool,
    },
    LowRank {
        change: Arc<LowRank>,
        x: Buf,
        first: usize,
        out: Buf,
    },
    Gated {
        w: Matrix,
        x: Buf,
        bias: Option<Vector>,
        act: Activation,
        out: Buf,
    },
    /// out = act(first half) ⊙ second half
    Activate {
        x: Buf,
        bias: Option<Vector>,
        act: Activation,
        out: Buf,
    },
    Rope {
        attention: Attention,
        qkv: Buf,
    },
    AttendRuns {
        attention: Attention,
        qkv: Buf,
        out: Buf,
    },
    Score {
        attention: Attention,
        qkv: Buf,
    },
    /// Scores to probabilities in caches of which a part is read.
    AttendPart {
        attention: Attention,
        qkv: Buf,
    },
    /// Scores to probabilities in all others.
    Normalize {
        attention: Attention,
        qkv: Buf,
    },
    WeighValues {
        attention: Attention,
        qkv: Buf,
        out: Buf,
    },
    /// Adds the column sums of the query blocks to the caches, in block order.
    FoldReceived {
        layer: usize,
    },
    Head {
        w: Option<Matrix>,
        x: Buf,
        first: usize,
        rows: usize,
    },
    Softcap {
        cap: f32,
        rows: usize,
    },
    /// From the rows of logits [rows]
    Draw {
        draws: Arc<[Draw]>,
    },
}

/// An operation with its name and what it has to touch and compute at least.
#[derive(Debug, Clone)]
pub struct Step {
    pub op: Op,
    pub name: &'static str,
    pub layer: Option<u32>,
    pub bytes: u64,
    pub flops: u64,
}

impl Op {
    /// A product with weights of the model's.
    pub fn is_product(&self) -> bool {
        matches!(self, Op::Matmul { .. } | Op::Gated { .. } | Op::Head { .. })
    }
}

/// Rows of one cache that follow each other: `rows first..first + len` of the pass.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Index into `Exec::caches`.
    pub cache: usize,
    pub first: usize,
    pub len: usize,
}

/// Queries per work item of prefill attention.
pub const QUERY_BLOCK: usize = 24;

/// Outputs of the probes of one pass.
pub struct ProbeGrids {
    /// l2, rms, absmax, median, argmax (as bits) [points][rows][5]
    pub residual: Grid,
    /// Copies of the residual stream [points · saved rows][hidden]
    pub points: Grid,
    /// lse, entropy, first, recent, distance, most [L·H][rows][6]
    pub attention: Grid,
    /// pre-rope key L2, key L2, value L1, value L2 [L·G][rows][4]
    pub norms: Grid,
    /// Share of the dense row that a sparse one read [L·H · rows][1]; where prompts are read sparsely.
    pub covered: Grid,
    /// Column sums of one layer's query blocks [H · blocks][slots]
    pub received: Grid,
    /// The same of each watch [watch · H · blocks][slots]
    pub watched: Grid,
    /// Depth weights [targets · rows][most sources]
    pub depth: Grid,
    /// See [`crate::backend::hyper::width`] [targets · rows][width]
    pub gates: Grid,
}

/// Everything a program reads and writes.
pub struct Exec<'a> {
    pub rows: &'a [Row],
    pub runs: &'a [Run],
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    pub recent_window: usize,
    pub probe_residual: bool,
    pub probe_norms: bool,
    /// Rows of which residual points are copied (0 = statistics at once).
    pub saved_rows: usize,
    pub table: Option<&'a Tensor>,
    pub matrices: &'a [Linear],
    pub vectors: &'a [Vec<f32>],
    pub sources: &'a [Vec<Source>],
    pub buffers: &'a [Grid],
    pub quantized: &'a [super::linear::Quantized],
    pub logits: &'a Grid,
    /// [rows drawn from]
    pub drawn: Vec<Alone<Drawn>>,
    pub probes: &'a ProbeGrids,
    /// [cache of the pass][layer · G + kv head]
    pub caches: Vec<Vec<Alone<HeadCache>>>,
    /// What reads each cache of the pass [kv heads]; `None`: all of it is read.
    pub readers: Vec<Option<Vec<Alone<Follower>>>>,
    /// Of each cache of the pass; `None`: rows attend to all they see.
    pub sparse: Vec<Option<SparseRead>>,
    /// [cache of the pass]; `None`: every layer its own.
    pub wirings: Vec<Option<&'a Wiring>>,
    /// Queries of the last layer that lends its map, of lanes where one does [rows, H·D].
    pub lent_queries: &'a Grid,
    pub queries: Option<(usize, QueryWriter)>,
    /// Of the cache whose queries are kept.
    pub watches: &'a [Arc<dyn Watch>],
    /// [watch][layer · H + head][slots]
    pub watched: &'a [Vec<Strand>],
    /// cos, sin of each row's position [rope][rows][D/2]
    pub angles: &'a [Vec<(f32, f32)>],
    pub isa: super::linear::Isa,
}

/// The items of one operation, as one thread sees them.
#[derive(Clone, Copy)]
pub struct Items<'a> {
    worker: Worker<'a>,
    share: Share<'a>,
}

impl<'a> Items<'a> {
    pub fn new(worker: Worker<'a>, share: Share<'a>) -> Self {
        Self { worker, share }
    }

    pub fn threads(&self) -> usize {
        self.share.threads()
    }

    /// Hands out `0..n` in pieces of `grain`; returns when all are done, by whomever.
    #[inline(always)]
    pub fn each(&self, n: usize, grain: usize, mut work: impl FnMut(usize)) {
        self.worker.spans(self.share, n, grain, |span| span.for_each(&mut work));
    }

    #[inline(always)]
    pub fn spans(&self, n: usize, grain: usize, work: impl FnMut(std::ops::Range<usize>)) {
        self.worker.spans(self.share, n, grain, work);
    }
}

/// A recorded program with the work that its threads share.
pub struct Program<'a> {
    steps: &'a [Step],
    shares: Shares,
}

impl<'a> Program<'a> {
    pub fn new(steps: &'a [Step], threads: usize) -> Self {
        Self { steps, shares: Shares::new(steps.len(), threads) }
    }

    /// One thread's walk. Thread 0 looks for interruptions and writes each step's wall time to `times`.
    /// Returns false where the walk was given up.
    pub fn walk(
        &self,
        exec: &Exec<'_>,
        worker: Worker<'_>,
        interrupt: &AtomicBool,
        times: Option<Alone<Vec<u32>>>,
    ) -> bool {
        let mut started = times.map(|_| Instant::now());
        for (i, step) in self.steps.iter().enumerate() {
            carry_out(&step.op, exec, Items::new(worker, self.shares.of(i)));
            if worker.id == 0 {
                if interrupt.load(Relaxed) {
                    worker.stop();
                }
                if let (Some(times), Some(start)) = (&times, &mut started) {
                    let now = Instant::now();
                    // SAFETY: only thread 0 touches the times while the program runs.
                    unsafe { times.get() }.push((now - *start).as_nanos().min(u32::MAX as u128) as u32);
                    *start = now;
                }
            }
            if worker.stopped() {
                return false;
            }
        }
        true
    }
}

fn carry_out(op: &Op, exec: &Exec<'_>, items: Items<'_>) {
    match op {
        Op::Embed { scale, out } => elementwise::embed(exec, items, *scale, *out),
        Op::Fill { values, out } => elementwise::fill(exec, items, values, *out),
        Op::ResidualPoint { x, point } => elementwise::residual_point(exec, items, *x, *point),
        Op::SavedStats { points } => elementwise::saved_stats(exec, items, points),
        Op::Blend { out, keep, x, by } => mix::blend(exec, items, *out, *keep, *x, *by),
        Op::Mix { mix, out } => mix::mix(exec, items, mix, *out),
        Op::MixAhead { ahead } => mix::ahead(exec, items, ahead),
        Op::MixMerge { merge, out } => mix::merge(exec, items, merge, *out),
        Op::Streams(op) => hyper::streams(exec, items, op),
        Op::RmsNorm { x, weight, eps, out } => elementwise::rms_norm(exec, items, *x, *weight, *eps, *out),
        Op::AddRmsNorm { x, y, weight, eps } => elementwise::add_rms_norm(exec, items, *x, *y, *weight, *eps),
        Op::Quantize { x } => matmul_op::quantize(exec, items, *x),
        Op::Alter { x, rows, how } => alter::alter(exec, items, *x, rows, how),
        Op::Matmul { w, x, bias, out, add } => matmul_op::matmul(exec, items, *w, *x, *bias, *out, *add),
        Op::LowRank { change, x, first, out } => matmul_op::low_rank(exec, items, change, *x, *first, *out),
        Op::Gated { w, x, bias, act, out } => matmul_op::gated(exec, items, *w, *x, *bias, *act, *out),
        Op::Activate { x, bias, act, out } => elementwise::activate(exec, items, *x, *bias, *act, *out),
        Op::Rope { attention, qkv } => rope::rope(exec, items, attention, *qkv),
        Op::AttendRuns { attention, qkv, out } => attention::attend_runs(exec, items, attention, *qkv, *out),
        Op::Score { attention, qkv } => attend_single::score(exec, items, attention, *qkv),
        Op::AttendPart { attention, qkv } => attend_part::attend(exec, items, attention, *qkv),
        Op::Normalize { attention, qkv } => attend_single::normalize(exec, items, attention, *qkv),
        Op::WeighValues { attention, qkv, out } => attend_single::weigh_values(exec, items, attention, *qkv, *out),
        Op::FoldReceived { layer } => attention::fold_received(exec, items, *layer),
        Op::Head { w, x, first, rows } => matmul_op::head(exec, items, *w, *x, *first, *rows),
        Op::Softcap { cap, rows } => elementwise::softcap(exec, items, *cap, *rows),
        Op::Draw { draws } => draw::draw(exec, items, draws),
    }
}
