//! Trace events for Perfetto (ui.perfetto.dev) and chrome://tracing: what each step's time went into, and the bytes
//! of every lane's cache.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::{Failed, List, frames};
use crate::engine::frame::Frame;
use crate::trace::Trace;

/// Tracks of the one process.
const STEPS: u32 = 1;
const OPERATIONS: u32 = 2;
const CALLS: u32 = 3;

const NOTE: &str = "Steps follow each other without the waiting between them. A frame has the calls of each operation \
    in their order, not how operations alternated: within a step they stand grouped by operation.";

/// Microseconds, as the format asks for.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// One JSON object with `traceEvents`: a slice for each step, below it one for each operation (all calls together),
/// below that one for each call; counters of the bytes held by each lane.
pub fn chrome(trace: &mut Trace, out: &mut impl Write) -> Result<(), Failed> {
    let header = trace.header.clone();
    let about = json!({
        "program": header.program, "model": header.model.id, "device": header.model.device, "note": NOTE,
    });
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{about},\"traceEvents\":[")?;
    let mut list = List::new(out);
    list.put(&json!({ "ph": "M", "name": "process_name", "pid": 1, "args": { "name": header.model.id } }))?;
    for (track, name) in [(STEPS, "steps"), (OPERATIONS, "operations"), (CALLS, "calls")] {
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
    let slice = |track: u32, name: &str, at: u64, ns: u64, args: Value| json!({ "ph": "X", "pid": 1, "tid": track, "name": name, "ts": micros(at), "dur": micros(ns), "args": args });
    let name = if frame.step == 0 { "prompt".to_owned() } else { format!("step {}", frame.step) };
    let tokens = frame.lanes.first().map_or(0, |lane| lane.fed.len());
    let args = json!({ "step": frame.step, "tokens": tokens, "lanes": frame.lanes.len() });
    list.put(&slice(STEPS, &name, start, frame.wall_ns, args))?;
    let mut at = start;
    for op in &frame.ops {
        let args = json!({ "calls": op.calls, "bytes": op.bytes, "flops": op.flops });
        list.put(&slice(OPERATIONS, &op.name, at, op.total_ns, args))?;
        let mut call = at;
        for (i, ns) in op.ns.iter().enumerate() {
            list.put(&slice(CALLS, &op.name, call, u64::from(*ns), json!({ "call": i })))?;
            call = call.saturating_add(u64::from(*ns));
        }
        at = at.saturating_add(op.total_ns);
    }
    let counter = |name: &str, of: &dyn Fn(usize) -> u64| {
        let lanes = frame.lanes.iter().enumerate();
        let args: Map<String, Value> = lanes.map(|(i, lane)| (format!("{i} {}", lane.spec), json!(of(i)))).collect();
        json!({ "ph": "C", "pid": 1, "name": name, "ts": micros(start.saturating_add(frame.wall_ns)), "args": args })
    };
    list.put(&counter("KV bytes", &|i| frame.lanes[i].kv.held))?;
    list.put(&counter("KV entries", &|i| frame.lanes[i].kv.slots_per_layer.iter().map(|n| u64::from(*n)).sum()))
}
