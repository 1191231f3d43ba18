//! What is left of each part of the prompt and how well it was chosen, as a table.

use comfy_table::{CellAlignment, Table};

use super::report::{LaneReport, Report, SpanLeft};
use crate::tui::text::line;

/// Fills `table`; nothing where there is nothing to judge. What it means comes with it.
pub fn fill(table: &mut Table, report: &Report) -> Option<String> {
    let spans = !report.spans.is_empty() && report.lanes.iter().any(|lane| !lane.spans.is_empty());
    let hindsight = report.lanes.iter().any(|lane| lane.hindsight.is_some());
    let mut oracles: Vec<&str> =
        report.lanes.iter().flat_map(|lane| lane.recall_of.keys().map(String::as_str)).collect();
    oracles.sort_unstable();
    oracles.dedup();
    if !spans && !hindsight && oracles.is_empty() {
        return None;
    }
    let named = |name: &str| line(name);
    let mut header = vec!["lane".to_owned(), "policy".to_owned()];
    if spans {
        header.extend(report.spans.iter().map(|span| named(&span.name)));
    }
    if hindsight {
        header.extend(["recall", "later mass", "of best"].map(str::to_owned));
    }
    header.extend(oracles.iter().map(|oracle| format!("recall of {oracle}")));
    table.set_header(header);
    for (i, lane) in report.lanes.iter().enumerate() {
        let mut row = vec![i.to_string(), lane.spec.clone()];
        if spans {
            row.extend((0..report.spans.len()).map(|span| lane.spans.get(span).map_or_else(none, left)));
        }
        if hindsight {
            row.extend(judgement(lane));
        }
        row.extend(oracles.iter().map(|oracle| lane.recall_of.get(*oracle).map_or_else(none, |&share| percent(share))));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Some(legend(report, spans, hindsight))
}

fn none() -> String {
    "-".into()
}

fn percent(share: f32) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The mean, and under it the worst head where that is worse.
fn left(span: &SpanLeft) -> String {
    match span.least < span.share {
        true => format!("{}\n{} L{} h{}", percent(span.share), percent(span.least), span.layer, span.kv_head),
        false => percent(span.share),
    }
}

fn judgement(lane: &LaneReport) -> [String; 3] {
    let Some(of) = &lane.hindsight else { return [(); 3].map(|()| none()) };
    let recall = match of.least < of.recall {
        true => format!("{}\n{} L{} h{}", percent(of.recall), percent(of.least), of.layer, of.kv_head),
        false => percent(of.recall),
    };
    [recall, percent(of.covered), percent(of.of_best)]
}

fn legend(report: &Report, spans: bool, hindsight: bool) -> String {
    let mut out = String::new();
    if spans {
        let places = report.spans.iter().map(|s| format!("{} (tokens {} to {})", line(&s.name), s.from, s.to - 1));
        let places: Vec<String> = places.collect();
        out += &format!(
            "{}: share of it held after the prompt, mean over layers and kv heads; below it the worst one.\n",
            places.join(", ")
        );
    }
    if hindsight {
        out += "recall: share of the entries that lane 0's steps looked at most (as many of them as are kept) among those kept;\n\
                later mass: share of these steps' attention on what was kept; of best: of what the best entries would get.\n";
    }
    out
}
