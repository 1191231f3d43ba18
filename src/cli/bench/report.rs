//! What `bench` found: JSON fields say their unit.

use std::fmt::Write;

use indicatif::HumanBytes;
use serde::Serialize;

use super::drift::Drift;
use super::machine::Machine;
use super::ops::{self, Op};
use crate::engine::frame::Peaks;
use crate::meter::overhead::Overhead;
use crate::tui::text::line;

#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub machine: Machine,
    pub model: String,
    pub weight_types: String,
    pub device: String,
    pub precision: String,
    pub kv_type: String,
    pub repeats: u32,
    /// From the path to a model that can read: header, tokenizer, weights repacked.
    pub ready_ms: f64,
    pub prompt_tokens: u32,
    pub steps: u32,
    /// All default probes on, and all off.
    pub probes_on: Speed,
    pub probes_off: Speed,
    /// Share of the time that the default probes take.
    pub probes_share_of_prefill: f64,
    pub probes_share_of_decode: f64,
    /// What taking times costs, from steps with and without them in turn; nothing where they are too few.
    pub timings: Option<Overhead>,
    pub lanes: Lanes,
    pub memory: Memory,
    /// What the device does at best.
    pub peaks: Peaks,
    /// One pass over the prompt and one step, probes on; of the last repeat.
    pub prefill_ops: Vec<Op>,
    pub decode_ops: Vec<Op>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
}

/// Tokens per second, medians.
#[derive(Debug, Serialize)]
pub struct Speed {
    pub prefill_tok_s: f64,
    pub decode_tok_s: f64,
}

/// Median time of a step, probes on.
#[derive(Debug, Serialize)]
pub struct Lanes {
    pub specs: Vec<String>,
    pub one_ms: f64,
    pub all_ms: f64,
    pub ratio: f64,
    /// One step of all lanes.
    pub ops: Vec<Op>,
}

/// Bytes, after the longest run of one lane.
#[derive(Debug, Serialize)]
pub struct Memory {
    pub weights: u64,
    pub kv: u64,
    pub queries: u64,
    pub activations: u64,
    pub history: u64,
    /// Most that was resident until then; mapped model files count.
    pub peak_rss: Option<u64>,
}

pub fn text(report: &Report) -> String {
    let r = report;
    let mut out = format!("{}\n{}, {}, {}, KV {}\n\n", r.machine, line(&r.model), r.device, r.precision, r.kv_type);
    let mut row = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:34} {value}");
    };
    row("model ready", format!("{:.0} ms", r.ready_ms));
    let prefill = format!("prefill of {} tokens", r.prompt_tokens);
    let decode = format!("decode of {} tokens after it", r.steps);
    for (name, speed) in [("probes on", &r.probes_on), ("probes off", &r.probes_off)] {
        row(&format!("{prefill}, {name}"), format!("{:.0} tok/s", speed.prefill_tok_s));
        row(&format!("{decode}, {name}"), format!("{:.0} tok/s", speed.decode_tok_s));
    }
    row(
        "probes cost",
        format!(
            "{:.1} % of prefill, {:.1} % of decode",
            100.0 * r.probes_share_of_prefill,
            100.0 * r.probes_share_of_decode
        ),
    );
    let timings = |o: &Overhead| {
        let [low, high] = o.quartiles.map(|share| 100.0 * share);
        format!("{:.1} % of a step (middle half of {} pairs: {low:.1} to {high:.1} %)", 100.0 * o.share, o.pairs)
    };
    row("of them taking times", r.timings.as_ref().map_or_else(|| "too few steps to tell".into(), timings));
    row("a step of one lane", format!("{:.2} ms", r.lanes.one_ms));
    row(
        &format!("a step of {} lanes", r.lanes.specs.len()),
        format!("{:.2} ms ({:.2} ×): {}", r.lanes.all_ms, r.lanes.ratio, r.lanes.specs.join(", ")),
    );
    let m = &r.memory;
    for (name, bytes) in [
        ("weights", m.weights),
        ("KV", m.kv),
        ("kept queries", m.queries),
        ("activations", m.activations),
        ("history", m.history),
    ] {
        row(name, HumanBytes(bytes).to_string());
    }
    row("peak memory", m.peak_rss.map_or_else(|| "unknown".into(), |bytes| HumanBytes(bytes).to_string()));
    let p = &r.peaks;
    let [read, f32, products] = [p.read_bytes_per_s, p.flops_per_s, p.product_flops_per_s].map(|rate| rate / 1e9);
    row("peak", format!("reads {read:.1} GB/s, f32 {f32:.0} GFLOP/s, products {products:.0} GFLOP/s"));
    row("", p.how.to_string());
    if let Some(drift) = &r.drift {
        row("drift against f32", drift.to_string());
    }
    let prefill = ops::text("prefill", &r.prefill_ops);
    let decode = ops::text("a step of one lane", &r.decode_ops);
    let lanes = ops::text(&format!("a step of {} lanes", r.lanes.specs.len()), &r.lanes.ops);
    format!("{out}\nmedians of {}; the last run in parts:\n\n{prefill}\n{decode}\n{lanes}", r.repeats)
}
