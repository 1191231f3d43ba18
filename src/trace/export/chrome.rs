//! Trace events for Perfetto (ui.perfetto.dev) and chrome://tracing: what each step's time went into, and the bytes
//! of every lane's cache.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::{Failed, List, frames};
use crate::engine::frame::{Call, CardSample, Frame};
use crate::trace::Trace;

/// Tracks of the one process.
const STEPS: u32 = 1;
const LAYERS: u32 = 2;
const CALLS: u32 = 3;
const GROUPED: u32 = 4;

const NOTE: &str = "Steps follow each other without the waiting between them. The calls of a step stand where they ran, \
    but what lies between two runs of the backend is left out. The order of a prompt's calls is not recorded: they \
    stand grouped by operation.";

/// Microseconds, as the format asks for.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// One JSON object with `traceEvents`: a slice for each step; below it one for each layer and below that one for each
/// call, named `layer → operation`, or, where their order is not known, one for each operation (all calls together);
/// counters of the bytes held by each lane and of the card.
pub fn chrome(trace: &mut Trace, out: &mut impl Write) -> Result<(), Failed> {
    let header = trace.header.clone();
    let about = json!({
        "program": header.program, "model": header.model.id, "device": header.model.device, "note": NOTE,
    });
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{about},\"traceEvents\":[")?;
    let mut list = List::new(out);
    list.put(&json!({ "ph": "M", "name": "process_name", "pid": 1, "args": { "name": header.model.id } }))?;
    for (track, name) in [(STEPS, "steps"), (LAYERS, "layers"), (CALLS, "calls"), (GROUPED, "calls by operation")] {
        list.put(&json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": track, "args": { "name": name } }))?;
        list.put(&json!({ "ph": "M", "name": "thread_sort_index", "pid": 1, "tid": track,
            "args": { "sort_index": track } }))?;
    }
    let mut now = 0u64;
    frames(trace, |frame| {
        step(&mut list, frame, now)?;
        now = now.saturating_add(frame.wall_ns);
        Ok(())
    })?;
    Ok(writeln!(out, "\n]}}")?)
}

fn step(list: &mut List<impl Write>, frame: &Frame, start: u64) -> Result<(), Failed> {
    let name = if frame.step == 0 { "prompt".to_owned() } else { format!("step {}", frame.step) };
    let tokens = frame.lanes.first().map_or(0, |lane| lane.fed.len());
    let args = json!({ "step": frame.step, "tokens": tokens, "lanes": frame.lanes.len() });
    list.put(&slice(STEPS, &name, start, frame.wall_ns, args))?;
    match frame.timeline.is_empty() {
        true => grouped(list, frame, start)?,
        false => ordered(list, frame, start)?,
    }
    if let Some(card) = &frame.card {
        card_counters(list, card, start.saturating_add(frame.wall_ns))?;
    }
    let counter = |name: &str, of: &dyn Fn(usize) -> u64| {
        let lanes = frame.lanes.iter().enumerate();
        let args: Map<String, Value> = lanes.map(|(i, lane)| (format!("{i} {}", lane.spec), json!(of(i)))).collect();
        json!({ "ph": "C", "pid": 1, "name": name, "ts": micros(start.saturating_add(frame.wall_ns)), "args": args })
    };
    list.put(&counter("KV bytes", &|i| frame.lanes[i].kv.held))?;
    list.put(&counter("KV entries", &|i| frame.lanes[i].kv.slots_per_layer.iter().map(|n| u64::from(*n)).sum()))
}

fn slice(track: u32, name: &str, at: u64, ns: u64, args: Value) -> Value {
    json!({ "ph": "X", "pid": 1, "tid": track, "name": name, "ts": micros(at), "dur": micros(ns), "args": args })
}

/// Each call where it ran.
fn ordered(list: &mut List<impl Write>, frame: &Frame, start: u64) -> Result<(), Failed> {
    let calls = frame.timeline.calls(&frame.ops);
    for part in calls.chunk_by(|a, b| a.layer == b.layer) {
        if let Some(layer) = part[0].layer {
            let end = part.iter().map(Call::end_ns).max().unwrap_or(0);
            let ns = end.saturating_sub(part[0].start_ns);
            let at = start.saturating_add(part[0].start_ns);
            list.put(&slice(LAYERS, &format!("layer {layer}"), at, ns, json!({ "layer": layer })))?;
        }
    }
    for call in calls {
        let name = &frame.ops[call.op].name;
        let name = call.layer.map_or_else(|| name.to_string(), |layer| format!("layer {layer} → {name}"));
        let at = start.saturating_add(call.start_ns);
        list.put(&slice(CALLS, &name, at, u64::from(call.ns), json!({ "bytes": call.bytes })))?;
    }
    Ok(())
}

/// All calls of an operation together, one operation after the other.
fn grouped(list: &mut List<impl Write>, frame: &Frame, start: u64) -> Result<(), Failed> {
    let mut at = start;
    for op in &frame.ops {
        let args = json!({ "calls": op.calls, "bytes": op.bytes, "flops": op.flops });
        list.put(&slice(GROUPED, &op.name, at, op.total_ns, args))?;
        at = at.saturating_add(op.total_ns);
    }
    Ok(())
}

/// Those that the card has told.
fn card_counters(list: &mut List<impl Write>, card: &CardSample, at: u64) -> Result<(), Failed> {
    let watts = card.power_mw.map(|mw| f64::from(mw) / 1e3);
    let counters = [
        ("card busy, %", card.busy_percent.map(f64::from)),
        ("card memory busy, %", card.memory_busy_percent.map(f64::from)),
        ("card memory used, bytes", card.used_bytes.map(|bytes| bytes as f64)),
        ("card power, W", watts),
        ("card temperature, °C", card.temperature_c.map(f64::from)),
    ];
    for (name, value) in counters {
        if let Some(value) = value {
            list.put(&json!({ "ph": "C", "pid": 1, "name": name, "ts": micros(at), "args": { "card": value } }))?;
        }
    }
    Ok(())
}
