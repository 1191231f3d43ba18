//! A comparison of two recordings for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::trace::diff::{At, Facts, LaneDiff, Report, Side, StepDiff};
use crate::tui::text::{line, token};

/// Columns where the output is no terminal.
const PLAIN_WIDTH: u16 = 140;
/// Steps in a table; JSON has all.
const STEPS: usize = 32;

pub fn text(report: &Report, sides: &[&Side; 2]) -> String {
    let mut out = String::from(if report.equal { "equal\n" } else { "different\n" });
    for (name, facts) in [("A", &report.a), ("B", &report.b)] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}  {}", facts_line(facts));
    }
    for (equal, what) in [(report.prompts_equal, "prompts"), (report.shapes_equal, "layers and heads")] {
        if !equal {
            let _ = writeln!(out, "the {what} are not the same");
        }
    }
    for lane in &report.lanes {
        let _ = write!(out, "\n{}", lane_text(lane, sides));
    }
    out.truncate(out.trim_end().len());
    out
}

fn facts_line(facts: &Facts) -> String {
    let Facts { prompt_tokens, steps, .. } = facts;
    let (file, model) = (line(&facts.file), line(&facts.model));
    let (device, precision) = (line(&facts.device), line(&facts.precision));
    format!(
        "{file}: {model}, {device}, {precision}; {prompt_tokens} prompt tokens, {steps} steps, {} lanes",
        facts.lanes.len()
    )
}

fn lane_text(lane: &LaneDiff, sides: &[&Side; 2]) -> String {
    let [a, b] = lane.lane;
    let [spec_a, spec_b] = [line(&lane.spec[0]), line(&lane.spec[1])];
    let mut out = format!("lane A:{a} {spec_a} | B:{b} {spec_b}: ");
    if lane.equal {
        let _ = writeln!(out, "every number of {} frames is the same", lane.steps.len());
        return out;
    }
    let first = |step: Option<u32>| step.map_or("never".to_owned(), |step| format!("step {step}"));
    let _ = writeln!(
        out,
        "different from {} on\n  first difference: tokens fed {}, most probable token {}, kept sets {}",
        first(lane.first.number),
        first(lane.first.fed),
        first(lane.first.argmax),
        first(lane.first.kept)
    );
    let shared = lane.steps.iter().filter(|step| step.same_prefix).count();
    let agree = lane.top1_agree.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    let _ = writeln!(out, "  on the same text ({shared} frames): same most probable token after {agree} of them");
    out.push_str(&largest(lane));
    let _ = writeln!(out, "{}", table(&lane.steps, sides));
    if lane.steps.len() > STEPS {
        let _ = writeln!(out, "and {} more steps (--json has all)", lane.steps.len() - STEPS);
    }
    out
}

/// The largest differences while on the same text, a line each.
fn largest(lane: &LaneDiff) -> String {
    let most = &lane.largest;
    let mut lines = Vec::new();
    let mut number = |name: &str, at: Option<At<f32>>| {
        lines.extend(at.map(|at| format!("  {name:<22}{:+.6} nats at step {}", at.what, at.step)));
    };
    number("entropy, B − A", most.entropy);
    number("NLL, B − A", most.nll);
    lines.extend(most.jaccard.map(|at| {
        let (place, step) = (at.what, at.step);
        let head = place.head.unwrap_or(0);
        format!(
            "  {:<22}{:.4} at step {step}, layer {}, kv head {head}",
            "kept sets, Jaccard", place.value, place.layer
        )
    }));
    for (name, at) in [("residual l2", most.residual_l2), ("residual max |x|", most.residual_absmax)] {
        lines.extend(at.map(|at| {
            let (point, step) = (at.what, at.step);
            let (value, position) = (100.0 * point.value, point.position);
            format!("  {name:<22}{value:.4} % at step {step}, {}, position {position}", place_of(point.point))
        }));
    }
    lines.extend(most.attention_entropy.map(|at| {
        let (place, step) = (at.what, at.step);
        let (head, position) = (place.head.unwrap_or(0), place.position.unwrap_or(0));
        let (value, layer) = (place.value, place.layer);
        format!(
            "  {:<22}{value:.6} nats at step {step}, layer {layer}, head {head}, position {position}",
            "attention entropy"
        )
    }));
    lines.into_iter().map(|line| line + "\n").collect()
}

fn place_of(point: usize) -> String {
    match point.checked_sub(1) {
        None => "embedding".into(),
        Some(sublayer) => format!("{} of layer {}", if sublayer % 2 == 0 { "attention" } else { "MLP" }, sublayer / 2),
    }
}

fn table(steps: &[StepDiff], sides: &[&Side; 2]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(PLAIN_WIDTH);
    }
    table.set_header([
        "step",
        "fed",
        "best next",
        "Δ entropy",
        "Δ NLL",
        "kept J",
        "least",
        "Δ resid l2",
        "Δ resid max",
        "Δ attn H",
    ]);
    for step in steps.iter().take(STEPS) {
        let both = |ids: [Option<u32>; 2]| {
            let shown = |side: usize| ids[side].map_or("-".to_owned(), |id| token(&sides[side].spell(id)));
            let (a, b) = (shown(0), shown(1));
            if ids[0] == ids[1] { a } else { format!("{a} | {b}") }
        };
        let number = |x: Option<f32>, digits: usize| x.map_or("-".to_owned(), |x| format!("{x:.digits$}"));
        let percent = |x: Option<f32>| x.map_or("-".to_owned(), |x| format!("{:.3} %", 100.0 * x));
        table.add_row([
            step.step.to_string(),
            both(step.fed),
            both(step.argmax),
            number(step.entropy, 4),
            number(step.nll, 4),
            number(step.jaccard, 3),
            number(step.jaccard_least.map(|p| p.value), 3),
            percent(step.residual_l2.map(|p| p.value)),
            percent(step.residual_absmax.map(|p| p.value)),
            number(step.attention_entropy.map(|p| p.value), 4),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
