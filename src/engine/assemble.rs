//! Making frames out of what a pass left behind.

use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::core::{Core, Pass};
use super::error::Result;
use super::frame::*;
use super::holdings::{kv_bytes, memory, reads};
use super::lane::Lane;
use super::outcome::{self, Outcome};
use super::read::PromptRead;
use crate::backend::{CacheId, PositionMeans};
use crate::meter::watch::CardMeter;
use crate::probe::distribution::{Distribution, top_k};
use crate::probe::exit::Foresight;
use crate::probe::finding;

/// Probe results of a prompt that was read in chunks.
#[derive(Default)]
pub struct PromptStats {
    residual: Vec<ResidualStats>,
    stream: Vec<ResidualStats>,
    /// Of the last token read so far.
    depth: Option<Arc<Depth>>,
    attention: Vec<AttentionStats>,
    norms: Vec<KvNorms>,
    ops: Vec<OpTime>,
}

impl PromptStats {
    /// What the last pass, of `rows`, left.
    pub fn add(&mut self, core: &Core, rows: usize) {
        let backend = &*core.backend;
        self.residual.push(backend.residual_stats());
        self.stream.push(backend.stream_stats());
        self.depth = core.depth(rows - 1, rows, usize::MAX);
        self.attention.push(backend.attention_stats());
        self.norms.push(backend.kv_norms());
        merge_ops(&mut self.ops, backend.op_times());
    }
}

fn merge_ops(into: &mut Vec<OpTime>, more: Vec<OpTime>) {
    for op in more {
        match into.iter_mut().find(|o| o.name == op.name) {
            None => into.push(op),
            Some(o) => {
                o.calls += op.calls;
                o.total_ns += op.total_ns;
                o.ns.extend(op.ns);
                o.bytes += op.bytes;
                o.flops += op.flops;
            }
        }
    }
}

/// Puts chunks `[outer][rows of chunk]` side by side: `[outer][all rows]`.
fn beside<S, T: Copy>(chunks: &[S], outer: usize, rows: impl Fn(&S) -> usize, of: impl Fn(&S) -> &[T]) -> Vec<T> {
    let mut out = Vec::new();
    for o in 0..outer {
        for chunk in chunks {
            let n = rows(chunk);
            out.extend_from_slice(&of(chunk)[o * n..(o + 1) * n]);
        }
    }
    out
}

fn residual_of(chunks: &[ResidualStats]) -> ResidualStats {
    let points = chunks.first().map_or(0, |c| c.points);
    let field = |of: fn(&ResidualStats) -> &[f32]| beside(chunks, points, |c| c.rows, of);
    ResidualStats {
        points,
        rows: chunks.iter().map(|c| c.rows).sum(),
        l2: field(|c| &c.l2),
        rms: field(|c| &c.rms),
        absmax: field(|c| &c.absmax),
        median: field(|c| &c.median),
        argmax: beside(chunks, points, |c| c.rows, |c| &c.argmax),
    }
}

fn attention_of(chunks: &[AttentionStats]) -> AttentionStats {
    let Some(first) = chunks.first() else { return AttentionStats::default() };
    let (layers, heads, recent_window) = (first.layers, first.heads, first.recent_window);
    let field = |of: fn(&AttentionStats) -> &[f32]| beside(chunks, layers * heads, |c| c.rows, of);
    AttentionStats {
        layers,
        heads,
        rows: chunks.iter().map(|c| c.rows).sum(),
        entropy: field(|c| &c.entropy),
        first: field(|c| &c.first),
        recent: field(|c| &c.recent),
        recent_window,
        distance: field(|c| &c.distance),
    }
}

fn norms_of(chunks: &[KvNorms]) -> KvNorms {
    let Some(first) = chunks.first() else { return KvNorms::default() };
    let (layers, kv_heads) = (first.layers, first.kv_heads);
    let field = |of: fn(&KvNorms) -> &[f32]| beside(chunks, layers * kv_heads, |c| c.rows, of);
    KvNorms {
        layers,
        kv_heads,
        rows: chunks.iter().map(|c| c.rows).sum(),
        key_l2_pre: field(|c| &c.key_l2_pre),
        key_l2: field(|c| &c.key_l2),
        value_l1: field(|c| &c.value_l1),
        value_l2: field(|c| &c.value_l2),
    }
}

/// Row `r` of `[outer][rows]`.
fn column<T: Copy>(values: &[T], rows: usize, r: usize) -> Vec<T> {
    values.iter().skip(r).step_by(rows.max(1)).copied().collect()
}

fn residual_row(all: &ResidualStats, r: usize) -> ResidualStats {
    let c = |v: &[f32]| column(v, all.rows, r);
    ResidualStats {
        points: all.points,
        rows: (all.points > 0) as usize,
        l2: c(&all.l2),
        rms: c(&all.rms),
        absmax: c(&all.absmax),
        median: c(&all.median),
        argmax: column(&all.argmax, all.rows, r),
    }
}

/// Layers from `done` on have not been reached: NaN.
fn attention_row(all: &AttentionStats, r: usize, done: usize) -> AttentionStats {
    let c = |v: &[f32]| {
        let mut v = column(v, all.rows, r);
        let reached = (done * all.heads).min(v.len());
        v[reached..].fill(f32::NAN);
        v
    };
    AttentionStats {
        layers: all.layers,
        heads: all.heads,
        rows: (all.rows > 0) as usize,
        entropy: c(&all.entropy),
        first: c(&all.first),
        recent: c(&all.recent),
        recent_window: all.recent_window,
        distance: c(&all.distance),
    }
}

fn norms_row(all: &KvNorms, r: usize) -> KvNorms {
    let c = |v: &[f32]| column(v, all.rows, r);
    KvNorms {
        layers: all.layers,
        kv_heads: all.kv_heads,
        rows: (all.rows > 0) as usize,
        key_l2_pre: c(&all.key_l2_pre),
        key_l2: c(&all.key_l2),
        value_l1: c(&all.value_l1),
        value_l2: c(&all.value_l2),
    }
}

/// Of every lane, over `n` positions.
fn position_means(core: &mut Core, n: usize) -> Result<Vec<PositionMeans>> {
    let caches: Vec<CacheId> = core.lanes.iter().map(|lane| lane.cache).collect();
    Ok(core.backend.position_means(&caches, n)?)
}

/// Which positions lane `i` holds.
pub fn kept(core: &Core, i: usize) -> Kept {
    let (layers, kv_heads) = (core.config().layers.len(), core.config().kv_heads);
    let mut kept = Kept::new(layers, kv_heads, core.prompt.len() + core.step as usize);
    let words = kept.positions.div_ceil(64);
    for (at, bits) in kept.bits.chunks_exact_mut(words.max(1)).enumerate() {
        for &p in core.backend.positions(core.lanes[i].cache, at / kv_heads, at % kv_heads) {
            bits[p as usize / 64] |= 1 << (p % 64);
        }
    }
    kept
}

/// The same with the newest position held everywhere.
pub fn grown(old: &Kept, positions: usize) -> Kept {
    let mut kept = Kept::new(old.layers, old.kv_heads, positions);
    let (from, to) = (old.positions.div_ceil(64), positions.div_ceil(64));
    for at in 0..old.layers * old.kv_heads {
        kept.bits[at * to..at * to + from].copy_from_slice(&old.bits[at * from..(at + 1) * from]);
        kept.bits[at * to + (positions - 1) / 64] |= 1 << ((positions - 1) % 64);
    }
    kept
}

/// Residual points that the logit lens looks from: the embedding, and after each layer.
fn lens_points(core: &Core) -> Vec<usize> {
    (0..=core.decoder.sublayers()).step_by(2).collect()
}

/// Logits after each of [`lens_points`] for the last `rows` rows of the last pass [points · rows, V]: one product for all.
pub fn lens_logits(core: &mut Core, rows: usize) -> Result<&[f32]> {
    let hidden = core.config().hidden;
    let mut stack = Vec::new();
    for point in lens_points(core) {
        let saved = core.backend.residual(point);
        stack.extend_from_slice(&saved[saved.len() - rows * hidden..]);
    }
    core.decoder.lens(&mut *core.backend, &stack)?;
    Ok(core.backend.logits())
}

/// Logit lens of the last `rows` rows of the last pass.
fn lens(core: &mut Core, rows: usize) -> Result<Vec<Vec<LensLayer>>> {
    let (vocab, k, points) = (core.config().vocab, core.lens_k, lens_points(core));
    let logits = lens_logits(core, rows)?;
    let row_of = |i: usize, r: usize| &logits[(i * rows + r) * vocab..][..vocab];
    let layer = |p: usize, row: &[f32], last: &[f32]| {
        let all = Distribution::of(row);
        let top = top_k(row, k).into_iter().map(|(id, l)| (id, (l - all.lse).exp())).collect();
        let Foresight { token_prob, token_rank, entropy, kl, .. } = Foresight::of(row, last);
        LensLayer { point: p as u32, top, token_prob, token_rank, entropy, kl }
    };
    let of_row = |r: usize| {
        let last = row_of(points.len() - 1, r);
        points.par_iter().enumerate().map(|(i, &p)| layer(p, row_of(i, r), last)).collect()
    };
    Ok((0..rows).map(of_row).collect())
}

fn bare(core: &Core, i: usize, fed: Arc<[u32]>, pos: u32) -> LaneFrame {
    let lane = &core.lanes[i];
    LaneFrame {
        spec: lane.spec.clone(),
        fed,
        pos,
        next: None,
        on_host: core.backend.attends_on_host(lane.cache),
        pick: None,
        candidates: Vec::new(),
        entropy: f32::NAN,
        nll: None,
        residual: Arc::default(),
        stream: Arc::default(),
        depth: None,
        attention: Arc::default(),
        kv_norms: Arc::default(),
        received: Arc::from([]),
        row: Arc::from([]),
        kept: lane.kept.clone(),
        kv: KvBytes::default(),
        reads: None,
        against: None,
        lens: Vec::new(),
        survival: core.survival(i),
        covered: None,
        effect: lane.effect,
        recall: core.recall(i),
    }
}

/// Logit lens of the prompt's last token; empty while the probe is off. Before another pass runs.
pub fn prompt_lens(core: &mut Core) -> Result<Vec<LensLayer>> {
    if core.probes.lens { Ok(lens(core, 1)?.remove(0)) } else { Ok(Vec::new()) }
}

/// What one reading of the prompt gives a lane's frame.
struct Measured {
    residual: Arc<ResidualStats>,
    stream: Arc<ResidualStats>,
    depth: Option<Arc<Depth>>,
    attention: Arc<AttentionStats>,
    kv_norms: Arc<KvNorms>,
    lens: Vec<LensLayer>,
    reads: Option<Arc<Reads>>,
}

impl Measured {
    fn of(read: &PromptRead) -> Self {
        Self {
            residual: Arc::new(residual_of(&read.stats.residual)),
            stream: Arc::new(residual_of(&read.stats.stream)),
            depth: read.stats.depth.clone(),
            attention: Arc::new(attention_of(&read.stats.attention)),
            kv_norms: Arc::new(norms_of(&read.stats.norms)),
            lens: read.lens.clone(),
            reads: read.reads.clone(),
        }
    }
}

/// `own`: what lanes read that did not share lane 0's reading [lane].
pub fn prompt_frame(
    core: &mut Core,
    shared: PromptRead,
    own: Vec<Option<PromptRead>>,
    started: Instant,
) -> Result<Frame> {
    let all = Measured::of(&shared);
    let mut ops = shared.stats.ops;
    own.iter().flatten().for_each(|read| merge_ops(&mut ops, read.stats.ops.clone()));
    let own: Vec<Option<Measured>> = own.iter().map(|read| read.as_ref().map(Measured::of)).collect();
    let n = core.prompt.len();
    let means = position_means(core, n)?;
    let mut lanes = Vec::new();
    for ((i, means), outcome) in means.into_iter().enumerate().zip(outcome::all(core)) {
        let first = core.lanes[i].first;
        let mut frame = bare(core, i, core.prompt[first as usize..].into(), first);
        // Most lanes read the prompt as one: what was measured while reading is the same for them.
        let measured = own.get(i).and_then(Option::as_ref).unwrap_or(&all);
        frame.residual = measured.residual.clone();
        frame.stream = measured.stream.clone();
        frame.depth = measured.depth.clone();
        frame.attention = measured.attention.clone();
        frame.kv_norms = measured.kv_norms.clone();
        frame.received = means.received;
        frame.row = means.row;
        frame.kv = kv_bytes(core, &core.lanes[i]);
        frame.lens.clone_from(&measured.lens);
        frame.reads.clone_from(&measured.reads);
        outcome.put(&mut core.lanes[i], &mut frame);
        lanes.push(frame);
    }
    let wall_ns = started.elapsed().as_nanos() as u64;
    Ok(whole_frame(core, lanes, Times { ops, timeline: Timeline::default(), graph: false }, wall_ns))
}

/// What the operations of the last pass cost, and in which order they ran.
fn op_times(core: &Core) -> Times {
    let ops = core.backend.op_times();
    Times { timeline: Timeline::of(&core.backend.timeline(), &ops), ops, graph: core.backend.ran_as_graph() }
}

/// What is known about the time of a pass.
struct Times {
    ops: Vec<OpTime>,
    timeline: Timeline,
    graph: bool,
}

/// Of the step that was finished last, with what is found in it.
fn whole_frame(core: &mut Core, lanes: Vec<LaneFrame>, times: Times, wall_ns: u64) -> Frame {
    let (step, memory, spans) = (core.step, memory(core), core.judged.spans.clone());
    let Times { ops, timeline, graph } = times;
    let (peaks, card) = (core.peaks.clone(), core.card.as_ref().and_then(CardMeter::latest));
    let findings = Vec::new();
    let mut frame =
        Frame { step, partial: None, lanes, ops, timeline, graph, peaks, card, memory, wall_ns, findings, spans };
    frame.findings = finding::notice(&frame, core.decoder.config(), &mut core.findings);
    frame
}

/// Lane `i`'s part of the frame of step 0 anew, after it was opened with another policy.
pub fn renew_first(core: &mut Core, i: usize, read: Option<PromptRead>) -> Result<()> {
    let Some(mut first) = core.first.take() else { return Ok(()) };
    // What was measured while reading is lane 0's, unless the lane read the prompt itself.
    let mut frame = LaneFrame { against: None, ..first.lanes[0].clone() };
    if let Some(measured) = read.as_ref().map(Measured::of) {
        frame.residual = measured.residual;
        frame.stream = measured.stream;
        frame.depth = measured.depth;
        frame.attention = measured.attention;
        frame.kv_norms = measured.kv_norms;
        frame.lens = measured.lens;
        frame.reads = measured.reads;
    }
    let means = position_means(core, core.prompt.len())?.swap_remove(i);
    let lane = &core.lanes[i];
    (frame.fed, frame.pos) = (core.prompt[lane.first as usize..].into(), lane.first);
    frame.effect = lane.effect;
    (frame.spec, frame.kept) = (lane.spec.clone(), lane.kept.clone());
    (frame.received, frame.row) = (means.received, means.row);
    frame.on_host = core.backend.attends_on_host(lane.cache);
    frame.survival = core.survival(i);
    frame.kv = kv_bytes(core, lane);
    Outcome::of(core, i).put(&mut core.lanes[i], &mut frame);
    first.lanes.truncate(core.lanes.len());
    match first.lanes.get_mut(i) {
        Some(old) => *old = frame,
        None => first.lanes.push(frame),
    }
    // The lane may have become an oracle, or ceased to be one.
    (0..first.lanes.len()).for_each(|lane| first.lanes[lane].recall = core.recall(lane));
    first.memory = memory(core);
    core.first = Some(first);
    Ok(())
}

/// What exists while the pass is stopped after `done` sublayers.
pub fn partial_frame(core: &mut Core, done: u32) -> Frame {
    let position = core.prompt.len() as u32 + core.step;
    let residual = core.backend.residual_stats();
    let stream = core.backend.stream_stats();
    let attention = core.backend.attention_stats();
    let norms = core.backend.kv_norms();
    let fed = core.pass.as_ref().map(|p| p.fed.clone()).unwrap_or_default();
    let depths = core.depths(core.lanes.len(), done as usize + 1);
    let lane = |(i, lane): (usize, &Lane)| LaneFrame {
        residual: Arc::new(residual_row(&residual, i)),
        stream: Arc::new(residual_row(&stream, i)),
        depth: depths[i].clone(),
        attention: Arc::new(attention_row(&attention, i, done.div_ceil(2) as usize)),
        kv_norms: Arc::new(norms_row(&norms, i)),
        kv: kv_bytes(core, lane),
        reads: reads(core, lane),
        ..bare(core, i, fed[i..=i].into(), position)
    };
    let lanes = core.lanes.iter().enumerate().map(lane).collect();
    let mut wall_ns = 0;
    if let Some(pass) = &mut core.pass {
        pass.spent_ns += pass.started.elapsed().as_nanos() as u64;
        wall_ns = pass.spent_ns;
    }
    let (Times { ops, timeline, graph }, memory) = (op_times(core), memory(core));
    Frame {
        step: core.step + 1,
        partial: Some(done),
        lanes,
        ops,
        timeline,
        graph,
        peaks: core.peaks.clone(),
        card: core.card.as_ref().and_then(CardMeter::latest),
        memory,
        wall_ns,
        findings: Vec::new(),
        spans: core.judged.spans.clone(),
    }
}

pub fn step_frame(core: &mut Core, pass: Pass, regrets: Vec<Finding>, covered: Vec<Option<f32>>) -> Result<Frame> {
    let n = core.prompt.len() + core.step as usize;
    let residual = core.backend.residual_stats();
    let stream = core.backend.stream_stats();
    let attention = core.backend.attention_stats();
    let norms = core.backend.kv_norms();
    let times = op_times(core);
    // before products for the lens run
    let mut depths = core.depths(core.lanes.len(), usize::MAX);
    let outlooks = core.outlooks(pass.draws.is_some());
    core.lanes.iter_mut().zip(outlooks).for_each(|(lane, outlook)| lane.outlook = outlook.into());
    let rows = core.lanes.len();
    let mut lenses = if core.probes.lens { lens(core, rows)? } else { vec![Vec::new(); rows] };
    core.complete()?;
    let means = position_means(core, n)?;
    let mut lanes = Vec::new();
    for ((i, means), outcome) in means.into_iter().enumerate().zip(outcome::all(core)) {
        let mut frame = bare(core, i, pass.fed[i..=i].into(), n as u32 - 1);
        frame.nll = Some(pass.nll[i]);
        frame.covered = covered[i];
        frame.residual = Arc::new(residual_row(&residual, i));
        frame.stream = Arc::new(residual_row(&stream, i));
        frame.depth = depths[i].take();
        frame.attention = Arc::new(attention_row(&attention, i, usize::MAX / attention.heads.max(1)));
        frame.kv_norms = Arc::new(norms_row(&norms, i));
        frame.received = means.received;
        frame.row = means.row;
        frame.kv = kv_bytes(core, &core.lanes[i]);
        frame.reads = reads(core, &core.lanes[i]);
        frame.lens = std::mem::take(&mut lenses[i]);
        outcome.put(&mut core.lanes[i], &mut frame);
        lanes.push(frame);
    }
    let wall_ns = pass.spent_ns + pass.started.elapsed().as_nanos() as u64;
    let mut frame = whole_frame(core, lanes, times, wall_ns);
    core.findings.extend(regrets.iter().cloned());
    frame.findings.extend(regrets);
    Ok(frame)
}
