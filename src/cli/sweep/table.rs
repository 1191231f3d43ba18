//! A sweep for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::report::Report;
use crate::tui::text::line;

const PLAIN_WIDTH: u16 = 120;

/// The `top` most costly; 0 = all.
pub fn text(report: &Report, top: usize) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(PLAIN_WIDTH);
    }
    table.set_header(["", "knocked out", "ΔNLL", "NLL", "KL", "top-1 flips", "sink rate"]);
    let shown = if top == 0 { report.ranked.len() } else { top };
    for (rank, knocked) in report.ranked.iter().take(shown).enumerate() {
        table.add_row([
            (rank + 1).to_string(),
            knocked.spec.clone(),
            format!("{:+.4}", knocked.delta_nll),
            format!("{:.4}", knocked.difference.nll),
            format!("{:.4}", knocked.difference.kl),
            format!("{:.1} %", 100.0 * knocked.difference.flips),
            format!("{:.1} %", 100.0 * knocked.sink_rate),
        ]);
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let mut out = format!(
        "{}, {}, {}; the first {} tokens of the prompt, NLL {:.4}, sink rate {:.1} %\n\n{table}\n",
        line(&report.model),
        report.device,
        report.precision,
        report.ids.len(),
        report.nll,
        100.0 * report.sink_rate
    );
    if !report.complete {
        out.push_str(&format!("interrupted: {} of {} were measured\n", report.ranked.len(), report.of));
    }
    if report.ranked.len() > shown {
        out.push_str(&format!("{} more: --top 0 prints all\n", report.ranked.len() - shown));
    }
    out.push_str(
        "ΔNLL, KL against the model as it is: nats, mean over the tokens behind the first. --lane takes each name.\n\
         sink rate: share of heads with more than 0.3 of their attention on the first token; a head knocked out still attends.",
    );
    out
}
