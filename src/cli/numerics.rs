//! `attnscope numerics`: what each layer's attention loses in f16, in bf16, and in flash order.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use miette::Result;
use serde::Serialize;

use super::args::{ModelArgs, PromptArgs};
use super::output::{print, print_json};
use super::prompt::Prompt;
use super::session::{Session, tell, told};
use crate::engine::message::LayerDrift;
use crate::engine::{LaneSpec, Sampler};
use crate::policy::Policy;
use crate::probe::numerics::Arithmetic;
use crate::tui::text::line;

/// Compare attention in f16, bf16 and flash order with f64, layer by layer
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Queries to compare, spread over the prompt
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rows: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub prompt: PromptArgs,
}

#[derive(Serialize)]
struct Report {
    schema: u32,
    model: String,
    device: String,
    precision: String,
    /// What keys and values had been rounded to before; kept queries are f16, f32 with --precision f32.
    kv_type: String,
    prompt_tokens: usize,
    /// Of the queries.
    positions: Vec<u32>,
    layers: Vec<Layer>,
}

#[derive(Serialize)]
struct Layer {
    layer: usize,
    f16: Errors,
    bf16: Errors,
    flash: Errors,
    /// max |p − p_f64| of the probabilities as the program computes them for maps: e^(s − lse), lse of the pass.
    own_probs: f32,
}

/// Null where something overflowed.
#[derive(Clone, Copy, Serialize)]
struct Errors {
    /// ‖o − o_f64‖ / ‖o_f64‖ over all heads and queries.
    output: f32,
    /// max |p − p_f64|
    probs: f32,
}

pub fn run(args: Args) -> Result<()> {
    let prompt = Prompt::read(&args.prompt)?;
    let full = LaneSpec { policy: Policy::parse("full")?, sampler: Sampler::default() };
    let mut session = Session::open(&args.model, &args.model.options(vec![full]))?;
    let ids = prompt.encode(&session.model)?;
    session.check(&ids, 0)?;
    session.read(&ids, |read| tell(&format!("reading the prompt: {read} of {} tokens", ids.len())))?;
    tell("attention in f64");
    let (positions, drift) = session.core.drift_over(args.rows as usize)?;
    told();
    let info = &session.info;
    let report = Report {
        schema: 1,
        model: info.id.clone(),
        device: info.device.clone(),
        precision: info.precision.clone(),
        kv_type: info.kv_type.clone(),
        prompt_tokens: ids.len(),
        positions,
        layers: drift.iter().enumerate().map(|(layer, drift)| Layer::of(layer, drift)).collect(),
    };
    match args.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    Ok(())
}

impl Layer {
    fn of(layer: usize, drift: &LayerDrift) -> Self {
        let of = |arithmetic: Arithmetic| {
            let at = arithmetic as usize;
            Errors { output: drift.output[at], probs: drift.probs[at] }
        };
        let [f16, bf16, flash] = Arithmetic::ALL.map(of);
        Self { layer, f16, bf16, flash, own_probs: drift.own_probs }
    }
}

fn text(report: &Report) -> String {
    let mut out = format!(
        "{}, {}, {}, KV {}; {} prompt tokens, {} queries\n\n",
        line(&report.model),
        report.device,
        report.precision,
        report.kv_type,
        report.prompt_tokens,
        report.positions.len()
    );
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["layer", "f16 output", "bf16", "flash", "f16 probability", "bf16", "flash", "here"]);
    for layer in &report.layers {
        let all = [layer.f16, layer.bf16, layer.flash];
        let numbers = all.iter().map(|e| e.output).chain(all.iter().map(|e| e.probs)).chain([layer.own_probs]);
        table.add_row(std::iter::once(layer.layer.to_string()).chain(numbers.map(number)));
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{table}\nAgainst f64 on the same queries, keys and values. Output: ‖o − o'‖ / ‖o‖ over heads and queries; probability: \
         max |p − p'|.\n16 bits: q, k, v, scores, probabilities and outputs are rounded, sums and the softmax are f32. Flash: f32, \
         softmax in tiles of 64 keys.\nHere: probabilities as this program computes them for maps. In \
         native precision queries, keys and values are f16 before: --precision f32 shows what that loses, too."
    );
    out
}

fn number(x: f32) -> String {
    if x.is_finite() { format!("{x:.1e}") } else { "overflow".into() }
}
