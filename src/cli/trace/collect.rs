//! Runs the prompt and the steps, and hands every number to the file.

use miette::Result;

use super::depth;
use super::lens::Lens;
use super::output::Output;
use super::{Args, Rows};
use crate::cli::exit::Interrupted;
use crate::cli::session::{Session, tell};
use crate::engine::frame::Frame;
use crate::engine::{Core, Pause};

/// Attention rows taken at once, so that a map never has to fit memory.
const ROWS: usize = 256;

pub fn collect(session: &mut Session, ids: &[u32], args: &Args, lens_k: usize, out: &mut Output) -> Result<()> {
    let positions = ids.len() + args.steps as usize;
    let core = &mut session.core;
    core.probes.timings = false;
    core.backend().save_all_points(true);
    let layers = core.config().layers.len();
    let mut lens = Lens::new(core.config(), positions, lens_k)?;
    let mut seen = 0;
    let mut failed = None;
    let interrupt = session.interrupt.clone();
    let frame = core.read_prompt(ids, |core, read| {
        seen += 1;
        // The last layer of a chunk: all points of its rows are there.
        if seen % layers == 0 {
            tell(&format!("reading the prompt: {read} of {} tokens", ids.len()));
            failed = residual(core, positions, read, &mut lens, out).err();
        }
        if failed.is_some() || interrupt.check().is_err() { Pause::Stop } else { Pause::Continue }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let frame = frame.ok_or(Interrupted)?;
    out.integers("ids", 0, ids.iter().map(|&id| id.into()));
    put(core, &frame, 0, ids.len(), positions, out)?;
    for step in 1..=args.steps as usize {
        interrupt.check()?;
        tell(&format!("step {step} of {}", args.steps));
        let frame = core.step()?;
        let at = ids.len() + step - 1;
        out.integers("ids", at, frame.lanes[0].fed.iter().map(|&id| id.into()));
        put(core, &frame, at, 1, positions, out)?;
        residual(core, positions, at, &mut lens, out)?;
    }
    attention(session, args.attn, positions, out)?;
    lens.write(&mut session.core, &session.interrupt, out)
}

/// What a frame says about positions `first..first + count`, and the logits after them.
fn put(core: &mut Core, frame: &Frame, first: usize, count: usize, positions: usize, out: &mut Output) -> Result<()> {
    let lane = &frame.lanes[0];
    let vocab = core.config().vocab;
    out.floats("logits", frame.step as usize * vocab, core.logits(0)?);
    let r = &lane.residual;
    for (name, values) in [("l2", &r.l2), ("rms", &r.rms), ("absmax", &r.absmax), ("median", &r.median)] {
        out.columns(&format!("resid.{name}"), positions, first, count, values);
    }
    let s = &lane.stream;
    for (name, values) in [("l2", &s.l2), ("rms", &s.rms), ("absmax", &s.absmax), ("median", &s.median)] {
        out.columns(&format!("stream.{name}"), positions, first, count, values);
    }
    for (point, channels) in r.argmax.chunks_exact(count).enumerate() {
        out.integers("resid.argmax", point * positions + first, channels.iter().map(|&c| c.into()));
    }
    out.columns("attn_entropy", positions, first, count, &lane.attention.entropy);
    out.columns("attn_first", positions, first, count, &lane.attention.first);
    let n = &lane.kv_norms;
    for (name, values) in
        [("key_l2_pre", &n.key_l2_pre), ("key_l2", &n.key_l2), ("value_l1", &n.value_l1), ("value_l2", &n.value_l2)]
    {
        for (layer, values) in values.chunks_exact(n.kv_heads * count).enumerate() {
            out.columns(&format!("{name}.{layer}"), positions, first, count, values);
        }
    }
    Ok(())
}

/// Depth shares of the rows of the last pass, whose first is at position `first`; their points go to the lens.
fn residual(core: &mut Core, positions: usize, first: usize, lens: &mut Lens, out: &mut Output) -> Result<()> {
    let (points, hidden) = (1 + 2 * core.config().layers.len(), core.config().hidden);
    let rows = core.backend().residual(0).len() / hidden;
    depth::write(core, rows, positions, first, out);
    let backend = core.backend();
    let saved: Vec<&[f32]> = (0..points).map(|point| backend.residual(point)).collect();
    lens.keep(&saved, first);
    Ok(())
}

/// Column sums over all queries, and the rows asked for.
fn attention(session: &mut Session, rows: Rows, positions: usize, out: &mut Output) -> Result<()> {
    let core = &mut session.core;
    let (layers, heads) = (core.config().layers.len(), core.config().heads);
    let cache = core.lanes()[0].cache;
    for layer in 0..layers {
        session.interrupt.check()?;
        if rows == Rows::Full {
            tell(&format!("attention maps: layer {layer} of {layers}"));
        }
        for head in 0..heads {
            let received = core.backend().received(cache, layer, head);
            out.floats(&format!("attn_received.{layer}"), head * positions, received);
            let name = format!("attn.{layer}");
            match rows {
                Rows::None => {}
                Rows::Last => out.floats(&name, head * positions, core.backend().newest_row(cache, layer, head)),
                Rows::Full => {
                    for from in (0..positions).step_by(ROWS) {
                        let to = (from + ROWS).min(positions);
                        let block = core.attention_rows(layer, head, from as u32..to as u32)?;
                        out.floats(&name, (head * positions + from) * positions, &block);
                    }
                }
            }
        }
    }
    Ok(())
}
