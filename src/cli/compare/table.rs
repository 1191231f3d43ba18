//! A comparison for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::HumanBytes;

use super::effects;
use super::judged;
use super::measure::mean;
use super::report::{LaneReport, Report};
use crate::policy::sharing::{Shared, Tried, What};
use crate::tui::text::line;

/// Columns where the output is no terminal.
const PLAIN_WIDTH: u16 = 140;
/// Characters of each lane's text.
const TEXT: usize = 300;
const REGRETS: usize = 3;

fn empty() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(PLAIN_WIDTH);
    }
    table
}

pub fn text(report: &Report) -> String {
    let mut table = empty();
    let answer = report.lanes.iter().any(|lane| lane.answer_found.is_some());
    let mut header = vec![
        "lane",
        "policy",
        "kept",
        "KV",
        "bits",
        "KL step 1",
        "KL mean*",
        "top-1",
        "NLL*",
        "lost mass",
        "output error",
    ];
    let reads = report.lanes.iter().any(|lane| lane.reads.is_some() || lane.prompt_reads.is_some());
    if reads {
        header.extend(["reads", "covers", "least"]);
    }
    if answer {
        header.push("answer");
    }
    table.set_header(header);
    for (i, lane) in report.lanes.iter().enumerate() {
        let mut row = row(i, lane, report.prompt_ids.len());
        if reads {
            row.extend(reading(lane));
        }
        if answer {
            row.push(lane.answer_found.map_or("-", |found| if found { "yes" } else { "no" }).into());
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = format!(
        "{}, {}, {}; {} prompt tokens, {} steps\n\n{table}\n",
        line(&report.model),
        report.device,
        report.precision,
        report.prompt_ids.len(),
        report.steps
    );
    out.push_str(
        "kept, KV, bits per element held, lost mass and output error (mean over layers): after the prompt.\n\
         *: on lane 0's tokens. Nats.\n",
    );
    if reads {
        out.push_str(
            "reads: bytes read in a step per byte held, what is chosen by included; covers: share of the dense attention\n\
             that falls on what was read, mean and least over layers, heads and steps (delta: of the prompt's rows, the mean of\n\
             each head). No memory is saved by it.\n",
        );
    }
    let mut changed = empty();
    if let Some(legend) = effects::fill(&mut changed, report) {
        out.push_str(&format!("\n{changed}\n{legend}"));
    }
    let mut judged = empty();
    if let Some(legend) = judged::fill(&mut judged, report) {
        out.push_str(&format!("\n{judged}\n{legend}"));
    }
    for (i, lane) in report.lanes.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(out, "\nlane {i}  {}\n  {}\n", lane.spec, shortened(&lane.text));
        if lane.on_host {
            out.push_str("  its attention has no kernel and runs on the CPU\n");
        }
        if let Some(shared) = &lane.sharing {
            let _ = writeln!(out, "  {}", sharing(shared));
        }
        for regret in lane.regret.iter().take(REGRETS) {
            let _ = writeln!(
                out,
                "  regret: position {}, gone from layer {}, gets {:.0} % of head {}'s attention in lane 0 at step {}",
                regret.position,
                regret.layer,
                100.0 * regret.mass,
                regret.head,
                regret.step
            );
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Who takes what from whom, in the order in which it was decided, and what was found out about it.
fn sharing(shared: &Shared) -> String {
    let one = |tried: &Tried| {
        let what = if tried.what == What::Map { "map" } else { "cache" };
        let measured = match (tried.cosine, tried.similarity) {
            (Some(cosine), _) => format!(" (output cosine so far {cosine:.3})"),
            (None, Some(similarity)) => format!(" (cosine of maps {similarity:.3})"),
            (None, None) => String::new(),
        };
        format!("{} uses {}'s {what}{measured}", tried.layer, shared.wiring.keys(tried.layer))
    };
    let all: Vec<String> = shared.tried.iter().filter(|tried| tried.kept).map(one).collect();
    let none = if all.is_empty() { "no layer shares" } else { "layer " };
    format!("{none}{}; {} tried; {}", all.join(", "), shared.tried.len(), shared.note)
}

fn row(i: usize, lane: &LaneReport, prompt: usize) -> Vec<String> {
    let held: usize = lane.n_kept.iter().flatten().sum();
    let slots = prompt * lane.n_kept.iter().map(Vec::len).sum::<usize>();
    let lost: Vec<f32> = lane.damage.lost_mass.iter().flatten().copied().collect();
    let error: Vec<f32> = lane.damage.out_rel_err.iter().flatten().copied().collect();
    let number = |x: Option<f32>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.4}"));
    let against = |x: Option<f32>| if i == 0 { "-".to_owned() } else { number(x) };
    let percent = |x: Option<f32>| x.map_or_else(|| "-".to_owned(), |x| format!("{:.1} %", 100.0 * x));
    vec![
        i.to_string(),
        lane.spec.clone(),
        percent(Some(held as f32 / slots.max(1) as f32)),
        HumanBytes(lane.kv_bytes).to_string(),
        format!("{:.2}", lane.bits_per_element),
        against(lane.kl_teacher_forced.first().copied()),
        against(mean(&lane.kl_teacher_forced)),
        percent(lane.top1_agree),
        number(lane.nll),
        percent(mean(&lost)),
        percent(mean(&error)),
    ]
}

/// Share read, what it covers on average, and at least.
fn reading(lane: &LaneReport) -> [String; 3] {
    let percent = |x: Option<f32>| x.map_or_else(|| "-".to_owned(), |x| format!("{:.1} %", 100.0 * x));
    let Some(reads) = lane.reads.as_ref().or(lane.prompt_reads.as_ref()) else {
        return [1.0; 3].map(|all| percent(Some(all)));
    };
    let least = reads.covered_min.iter().copied().reduce(f32::min);
    [mean(&reads.share), mean(&reads.covered_mean), least].map(percent)
}

fn shortened(text: &str) -> String {
    let mut cut: String = text.chars().take(TEXT).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    line(&cut)
}
