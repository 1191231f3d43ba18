//! Times of load, prefill, decode, with and without probes, with one lane and several.

use std::time::Instant;

use miette::Result;

use super::Args;
use super::drift::Drift;
use super::machine::{Machine, peak_rss};
use super::ops::Totals;
use super::report::{Lanes, Memory, Report, Speed};
use crate::cli::exit::Interrupted;
use crate::cli::interrupt::Interrupt;
use crate::cli::session::{Session, tell, told};
use crate::engine::frame::{Frame, Peaks};
use crate::engine::message::Probes;
use crate::engine::{Core, LaneSpec, Pause, Precision, Sampler};
use crate::meter::overhead::{Overhead, overhead};
use crate::model::source::Model;
use crate::policy::Policy;

pub const NO_PROBES: Probes =
    Probes { residual: false, attention: false, kv_norms: false, lens: false, timings: false };

/// Steps of the comparison of one lane with several, at most.
const LANE_STEPS: u32 = 64;

/// A prompt that no tokenizer is needed for.
pub fn synthetic(tokens: u32, vocab: usize) -> Vec<u32> {
    let ids = (vocab as u64).clamp(1, 40_000);
    (0..u64::from(tokens)).map(|i| ((i * 37 + 11) % ids) as u32).collect()
}

pub fn lanes(specs: &[&str]) -> Result<Vec<LaneSpec>> {
    let one = |spec: &&str| Ok(LaneSpec { policy: Policy::parse(spec)?, sampler: Sampler::default() });
    specs.iter().map(one).collect()
}

/// Reads `ids`; seconds.
pub fn prefill(core: &mut Core, ids: &[u32], interrupt: &Interrupt) -> Result<f64> {
    prefill_ops(core, ids, interrupt, &mut Totals::default())
}

fn prefill_ops(core: &mut Core, ids: &[u32], interrupt: &Interrupt, ops: &mut Totals) -> Result<f64> {
    let started = Instant::now();
    let frame = core.read_prompt(ids, |_, _| if interrupt.check().is_err() { Pause::Stop } else { Pause::Continue })?;
    let seconds = started.elapsed().as_secs_f64();
    ops.add(&frame.ok_or(Interrupted)?.ops);
    Ok(seconds)
}

/// Takes `steps` steps; seconds of each.
pub fn decode(core: &mut Core, steps: u32, interrupt: &Interrupt) -> Result<Vec<f64>> {
    decode_ops(core, steps, interrupt, &mut Totals::default())
}

fn decode_ops(core: &mut Core, steps: u32, interrupt: &Interrupt, ops: &mut Totals) -> Result<Vec<f64>> {
    let one = |_| {
        interrupt.check()?;
        let started = Instant::now();
        let frame = core.step()?;
        let seconds = started.elapsed().as_secs_f64();
        ops.add(&frame.ops);
        Ok(seconds)
    };
    (0..steps).map(one).collect()
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]),
    }
}

pub fn measure(args: &Args) -> Result<Report> {
    let path = args.model.path()?;
    let interrupt = Interrupt::watch()?;
    let mut ready = Vec::new();
    let mut open = |specs: &[&str]| -> Result<Session> {
        let started = Instant::now();
        let mut session = Session::with(Model::open(&path)?, &args.model.options(lanes(specs)?), interrupt.clone())?;
        session.core.logit_rows = args.logits;
        ready.push(started.elapsed().as_secs_f64());
        Ok(session)
    };
    tell("loading");
    let mut session = open(&["full"])?;
    let ids = synthetic(args.prompt_tokens, session.core.config().vocab);
    session.check(&ids, args.steps)?;
    // Probes on, off: [repeat] seconds.
    let (mut reading, mut stepping) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let [mut prefill_totals, mut decode_totals] = [Totals::default(), Totals::default()];
    for repeat in 0..args.repeats {
        tell(&format!("prefill and decode, {} of {}", repeat + 1, args.repeats));
        for (at, probes) in [Probes::default(), NO_PROBES].into_iter().enumerate() {
            session.core.probes = probes;
            let (mut prefill, mut decode) = (Totals::default(), Totals::default());
            reading[at].push(prefill_ops(&mut session.core, &ids, &interrupt, &mut prefill)?);
            stepping[at].push(decode_ops(&mut session.core, args.steps, &interrupt, &mut decode)?.iter().sum());
            if probes.timings {
                (prefill_totals, decode_totals) = (prefill, decode);
            }
        }
    }
    let timings = timings(&mut session, &ids, args.steps, &interrupt)?;
    let memory = memory(&mut session, &ids, &interrupt)?;
    let peaks = session.core.peaks()?;
    let specs: Vec<&str> = std::iter::once("full").chain(args.lanes.iter().map(String::as_str)).collect();
    let mut several = open(&specs)?;
    let lanes = compare_lanes(&mut session, &mut several, &ids, args, &peaks, &interrupt)?;
    drop(several);
    drop(open(&["full"])?);
    let drift = match args.model.precision {
        Precision::Native if !args.no_drift => Drift::measure(&mut session, args)?,
        _ => None,
    };
    told();
    let speed = |at: usize| Speed {
        prefill_tok_s: f64::from(args.prompt_tokens) / median(&reading[at]),
        decode_tok_s: f64::from(args.steps) / median(&stepping[at]),
    };
    let share = |seconds: &[Vec<f64>; 2]| 1.0 - median(&seconds[1]) / median(&seconds[0]);
    Ok(Report {
        schema: 1,
        machine: Machine::this(args.model.threads()),
        model: session.info.id.clone(),
        weight_types: session.info.weight_types.clone(),
        device: session.info.device.clone(),
        precision: session.info.precision.clone(),
        kv_type: session.info.kv_type.clone(),
        repeats: args.repeats,
        ready_ms: 1e3 * median(&ready),
        prompt_tokens: args.prompt_tokens,
        steps: args.steps,
        probes_on: speed(0),
        probes_off: speed(1),
        probes_share_of_prefill: share(&reading),
        probes_share_of_decode: share(&stepping),
        timings,
        lanes,
        memory,
        prefill_ops: prefill_totals.ops(&peaks),
        decode_ops: decode_totals.ops(&peaks),
        peaks: Peaks::clone(&peaks),
        drift,
    })
}

/// Every other step without times.
fn timings(session: &mut Session, ids: &[u32], steps: u32, interrupt: &Interrupt) -> Result<Option<Overhead>> {
    session.core.probes = Probes::default();
    prefill(&mut session.core, ids, interrupt)?;
    session.core.alternate_timings(steps);
    let one = |_| {
        interrupt.check()?;
        Ok(session.core.step()?)
    };
    let frames = (0..steps).map(one).collect::<Result<Vec<Frame>>>()?;
    Ok(overhead(frames.iter()))
}

fn memory(session: &mut Session, ids: &[u32], interrupt: &Interrupt) -> Result<Memory> {
    session.core.probes = Probes::default();
    prefill(&mut session.core, ids, interrupt)?;
    let m = session.core.step()?.memory;
    Ok(Memory {
        weights: m.weights,
        kv: m.kv,
        queries: m.queries,
        activations: m.activations,
        history: m.history,
        peak_rss: peak_rss(),
    })
}

/// One lane and several take turns.
fn compare_lanes(
    one: &mut Session,
    all: &mut Session,
    ids: &[u32],
    args: &Args,
    peaks: &Peaks,
    interrupt: &Interrupt,
) -> Result<Lanes> {
    let steps = args.steps.min(LANE_STEPS);
    let (mut one_s, mut all_s) = (Vec::new(), Vec::new());
    let mut ops = Totals::default();
    for repeat in 0..args.repeats {
        tell(&format!("lanes, {} of {}", repeat + 1, args.repeats));
        for (session, seconds) in [(&mut *one, &mut one_s), (&mut *all, &mut all_s)] {
            ops = Totals::default();
            prefill(&mut session.core, ids, interrupt)?;
            seconds.extend(decode_ops(&mut session.core, steps, interrupt, &mut ops)?);
        }
    }
    let (one_ms, all_ms) = (1e3 * median(&one_s), 1e3 * median(&all_s));
    let specs = all.core.lanes().iter().map(|lane| lane.spec.to_string()).collect();
    Ok(Lanes { specs, one_ms, all_ms, ratio: all_ms / one_ms, ops: ops.ops(peaks) })
}
