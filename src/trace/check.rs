//! Whether what a trace says fits together. A file with right check sums may still have been made by anybody.

use crate::engine::frame::{
    AttentionStats, Depth, Frame, Kept, KvNorms, LaneFrame, PromptSpan, Reads, ResidualStats, Survival,
};
use crate::engine::message::ModelInfo;

/// More layers, heads or lanes than any model or run has.
const MOST: usize = 1 << 12;

type Checked = Result<(), String>;

fn fits(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(format!("{what} do not fit together")) }
}

/// `len` is the product of `shape`.
fn filled(shape: &[usize], lens: &[usize]) -> bool {
    let size = shape.iter().try_fold(1usize, |size, n| size.checked_mul(*n));
    lens.iter().all(|len| Some(*len) == size)
}

pub fn model(model: &ModelInfo) -> Checked {
    let counts = [model.layers, model.heads, model.kv_heads];
    fits(counts.iter().all(|n| (1..=MOST).contains(n)), "layers and heads of the model")?;
    fits(model.heads.is_multiple_of(model.kv_heads), "heads and kv heads of the model")?;
    fits(model.windows.len() == model.layers, "layers and windows of the model")
}

/// A complete frame of a run of `model` on `prompt`.
pub fn frame(frame: &Frame, model: &ModelInfo, prompt: &[u32]) -> Checked {
    fits(frame.partial.is_none(), "a frame that is not complete and a trace")?;
    fits((1..=MOST).contains(&frame.lanes.len()), "the lanes of a frame")?;
    let steps = frame.step as usize;
    let first = if steps == 0 { Some(0) } else { (prompt.len() + steps - 1).try_into().ok() };
    let inside = |span: &PromptSpan| span.from < span.to && span.to as usize <= prompt.len();
    fits(frame.spans.iter().all(inside), "the spans of a frame and the prompt")?;
    fits(frame.timeline.fits(&frame.ops, model.layers), "the order of a frame's operations and their calls")?;
    fits(frame.peaks.as_ref().is_none_or(|peaks| peaks.is_sound()), "the peaks of a frame and a device")?;
    for (i, lane) in frame.lanes.iter().enumerate() {
        fits(judged(lane, frame, model), "what is left of the prompt's spans and the frame")?;
        // lanes but the first one may leave out what the prompt begins with
        let left_out = steps == 0 && i > 0 && (lane.pos as usize) < prompt.len();
        fits(left_out || Some(lane.pos) == first, "a lane's position and its step")?;
        let of_prompt = || prompt.get(lane.pos as usize..).is_some_and(|prompt| *lane.fed == *prompt);
        fits(if steps == 0 { of_prompt() } else { lane.fed.len() == 1 }, "a lane's tokens and its step")?;
        self::lane(lane, model)?;
    }
    Ok(())
}

fn lane(lane: &LaneFrame, model: &ModelInfo) -> Checked {
    let (rows, positions) = (lane.fed.len(), lane.pos as usize + lane.fed.len());
    fits(residual(&lane.residual, model, rows), "residual statistics and the model")?;
    let stream = &lane.stream;
    fits(
        stream.points == 0 && stream.l2.is_empty() || residual(stream, model, rows),
        "statistics of the stream and the model",
    )?;
    fits(lane.depth.as_ref().is_none_or(|d| depth(d, model)), "what targets are made of and the model")?;
    fits(attention(&lane.attention, model, rows), "attention statistics and the model")?;
    fits(kv_norms(&lane.kv_norms, model, rows), "norms of keys and values and the model")?;
    fits(kept(&lane.kept, model, positions), "kept positions and the model")?;
    fits(lane.received.len() <= positions && lane.row.len() <= positions, "attention by position and the step")?;
    fits(lane.reads.as_ref().is_none_or(|r| reads(r, model)), "what a lane reads and the model")?;
    let layers = [lane.kv.per_layer.len(), lane.kv.slots_per_layer.len()];
    fits(layers.iter().all(|n| *n == 0 || *n == model.layers), "bytes by layer and the model")
}

/// One survival for each span, or none at all.
fn judged(lane: &LaneFrame, frame: &Frame, model: &ModelInfo) -> bool {
    let place = |s: &Survival| (s.layer as usize) < model.layers && (s.kv_head as usize) < model.kv_heads;
    (lane.survival.is_empty() || lane.survival.len() == frame.spans.len())
        && lane.survival.iter().all(place)
        && lane.recall.is_none_or(|recall| (recall.oracle as usize) < frame.lanes.len())
}

/// `shape` is what the model and the step ask for, or nothing was measured: no rows of it, or nothing at all.
fn shaped(shape: &[usize], asked: &[usize]) -> bool {
    let outer = shape.len() - 1;
    shape == asked || shape[outer] == 0 && (shape[..outer] == asked[..outer] || shape.iter().all(|n| *n == 0))
}

fn residual(s: &ResidualStats, model: &ModelInfo, rows: usize) -> bool {
    let (shape, lens) = ([s.points, s.rows], [s.l2.len(), s.rms.len(), s.absmax.len(), s.median.len(), s.argmax.len()]);
    filled(&shape, &lens) && shaped(&shape, &[1 + 2 * model.layers, rows])
}

/// Every target has no more sources than there are sublayers, the embedding, a null source and the stream.
fn depth(d: &Depth, model: &ModelInfo) -> bool {
    let targets = 1 + 2 * model.layers;
    let sum: usize = d.counts.iter().map(|&n| n as usize).sum();
    d.counts.len() == targets
        && d.counts.iter().all(|&n| n as usize <= targets + 2)
        && d.share.len() == sum
        && (d.weight.is_empty() || d.weight.len() == sum)
        && d.gates.as_ref().is_none_or(|gates| gates.fits(targets))
}

fn attention(s: &AttentionStats, model: &ModelInfo, rows: usize) -> bool {
    let lens = [s.entropy.len(), s.first.len(), s.recent.len(), s.distance.len()];
    let shape = [s.layers, s.heads, s.rows];
    filled(&shape, &lens) && shaped(&shape, &[model.layers, model.heads, rows])
}

fn kv_norms(s: &KvNorms, model: &ModelInfo, rows: usize) -> bool {
    let lens = [s.key_l2_pre.len(), s.key_l2.len(), s.value_l1.len(), s.value_l2.len()];
    let shape = [s.layers, s.kv_heads, s.rows];
    filled(&shape, &lens) && shaped(&shape, &[model.layers, model.kv_heads, rows])
}

fn kept(kept: &Kept, model: &ModelInfo, positions: usize) -> bool {
    let shape = [kept.layers, kept.kv_heads, kept.positions];
    filled(&[kept.layers, kept.kv_heads, kept.positions.div_ceil(64)], &[kept.bits.len()])
        && shaped(&shape, &[model.layers, model.kv_heads, positions])
}

fn reads(r: &Reads, model: &ModelInfo) -> bool {
    let (layers, kv_heads, heads) = (model.layers, model.kv_heads, model.heads);
    [r.layers, r.kv_heads, r.heads] == [layers, kv_heads, heads]
        && filled(&[layers], &[r.bytes.len(), r.bytes_seen.len(), r.metadata.len()])
        && filled(&[layers, kv_heads], &[r.entries.len(), r.seen.len()])
        && filled(&[layers, heads], &[r.covered.len()])
}
