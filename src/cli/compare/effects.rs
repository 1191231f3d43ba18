//! What interventions do, as a table.

use comfy_table::{CellAlignment, Table};

use super::report::Report;

/// Fills `table`; nothing where no lane intervenes. What it means comes with it.
pub fn fill(table: &mut Table, report: &Report) -> Option<String> {
    let tokens = report.lanes.iter().find_map(|lane| lane.effect)?.tokens;
    let steps = report.lanes.iter().any(|lane| lane.delta_nll.is_some());
    let mut header = vec!["lane", "intervention", "prompt NLL", "ΔNLL", "KL", "top-1 flips", "sink rate", "Δ"];
    if steps {
        header.push("ΔNLL*");
    }
    table.set_header(header);
    for (i, lane) in report.lanes.iter().enumerate() {
        let Some(effect) = lane.effect else { continue };
        let mut row = vec![
            i.to_string(),
            lane.spec.clone(),
            format!("{:.4}", effect.nll),
            format!("{:+.4}", effect.nll - effect.nll_full),
            format!("{:.4}", effect.kl),
            format!("{:.1} %", 100.0 * effect.flips),
            format!("{:.1} %", 100.0 * effect.sink_rate),
            format!("{:+.1}", 100.0 * (effect.sink_rate - effect.sink_rate_full)),
        ];
        if steps {
            row.push(lane.delta_nll.map_or_else(|| "-".into(), |delta| format!("{delta:+.4}")));
        }
        table.add_row(row);
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    Some(format!(
        "on the prompt's last {tokens} tokens, against lane 0: nats, means. sink rate: share of heads with more than 0.3 of their\n\
         attention on the first token read. *: on lane 0's continuation.\n"
    ))
}
