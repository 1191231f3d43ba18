//! The same for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::report::{Report, Run};
use crate::probe::massive::{Element, Massive};
use crate::tui::text::line;

const PLAIN_WIDTH: u16 = 120;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(PLAIN_WIDTH);
    }
    table.set_header(header);
    table
}

pub fn text(report: &Report) -> String {
    let mut out = format!(
        "{}, {}, {}; {} texts of {} tokens from {}\n",
        line(&report.model),
        report.device,
        report.precision,
        report.texts,
        report.length,
        line(&report.source)
    );
    for run in &report.runs {
        one(&mut out, run, report.length);
    }
    out.push_str(
        "massive: |x| > 100 and ≥ 1000 × the median |H| of that point over all texts; ~: by the ratio alone.\n\
         sink rate: share of heads with α_0 > 0.3 (mean attention of the queries on the first token); comparable at 64 tokens.\n\
         PPL is e to the mean −ln p of the texts' tokens; KL against the original, nats a token; mean: of the same channel over\n\
         the first tokens of all texts, or over later massive ones.\n",
    );
    out.truncate(out.trim_end().len());
    out
}

fn element(e: &Element) -> String {
    let mark = match e.massive {
        Some(Massive::Yes) => "",
        Some(Massive::RelativeOnly) => "~",
        None => "·",
    };
    format!("{mark}{:.0} at ({}, {}), {:.0}×", e.value, e.position, e.channel, e.ratio)
}

fn one(out: &mut String, run: &Run, length: usize) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n{}", if run.bos { "with BOS" } else { "without BOS" });
    let mut layers = table(&["layer", "median |H|", "largest at (token, channel), × median", "", ""]);
    for (layer, point) in run.points.iter().skip(2).step_by(2).enumerate() {
        let mut row = vec![layer.to_string(), format!("{:.3}", point.median)];
        row.extend(point.top.iter().map(element));
        layers.add_row(row);
    }
    for column in layers.column_iter_mut().take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let _ = writeln!(out, "{layers}");
    match (&run.onset, run.layers) {
        (None, _) => out.push_str("no massive activations\n"),
        (Some(onset), layers) => {
            let where_ = layers.map_or("by the ratio alone".to_owned(), |[first, last]| {
                format!("outputs of layers {first} to {last}")
            });
            let _ = writeln!(out, "massive: {where_}; first written by the {} in {} texts", onset.writer, onset.texts);
            for channel in &onset.channels {
                let mean = |x: Option<f32>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.1}"));
                let _ = writeln!(
                    out,
                    "  channel {}: first token in {} texts, mean {}; {} later tokens, mean {}",
                    channel.channel,
                    channel.first,
                    mean(channel.first_mean),
                    channel.later,
                    mean(channel.later_mean)
                );
            }
        }
    }
    let _ = writeln!(
        out,
        "largest |x| {:.0}{}; sink rate {:.1} % at T = {length}; values of first tokens looked at: {:.2} × the median length, {:.0} % drained; \
         φ ≥ 20: {:.0} % of first tokens, {:.1} % of later ones",
        run.most,
        if run.f16_overflow { " (near the end of f16, 65504)" } else { "" },
        100.0 * run.sink_rate,
        run.value_ratio,
        100.0 * run.drained,
        100.0 * run.generic_sinks[0],
        100.0 * run.generic_sinks[1],
    );
    let mut effects = table(&["", "NLL", "PPL", "ΔNLL", "KL", "top-1 flips", "sink rate"]);
    effects.add_row([
        "original".to_owned(),
        format!("{:.4}", run.nll),
        perplexity(run.perplexity),
        "-".into(),
        "-".into(),
        "-".into(),
        format!("{:.1} %", 100.0 * run.sink_rate),
    ]);
    for intervention in &run.interventions {
        effects.add_row([
            intervention.name.to_owned(),
            format!("{:.4}", intervention.nll),
            perplexity(intervention.perplexity),
            format!("{:+.4}", intervention.nll - run.nll),
            format!("{:.4}", intervention.kl),
            format!("{:.1} %", 100.0 * intervention.flips),
            format!("{:.1} %", 100.0 * intervention.sink_rate),
        ]);
    }
    effects.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let _ = writeln!(out, "{effects}");
}

fn perplexity(x: f32) -> String {
    if x < 1e5 { format!("{x:.2}") } else { format!("{x:.2e}") }
}
