//! An evaluation for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::report::{Report, Row, Spread, Square};
use super::task;
use crate::tui::text::line;

/// Columns where the output is no terminal.
const PLAIN_WIDTH: u16 = 140;

/// A table for each task; `grids` adds those by length and depth.
pub fn text(report: &Report, grids: bool) -> String {
    let mut out = format!(
        "{}, {}, {}, KV {}; {}\n",
        line(&report.model),
        report.device,
        report.precision,
        report.kv_type,
        report.question.words()
    );
    if !report.complete {
        out.push_str("not complete: stopped before every policy had gone through every prompt\n");
    }
    for (name, rows) in by_task(report) {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n{}\n{}\n", heading(name, &rows, report), overview(&rows, report));
        if rows.iter().any(|row| !row.asks.is_empty()) {
            let _ = write!(out, "\n{name}: each one held (and answered), in percent\n{}\n", asks(&rows));
        }
        if grids && rows.iter().any(|row| !row.grid.is_empty()) {
            let _ = write!(out, "\n{name}: answered, in percent, by length and depth\n{}\n", grid(&rows));
        }
    }
    out.push_str("found: share of answers that greedy decoding gives. NLL: mean −ln p of the answer's tokens, nats.\n");
    out.push_str("±: standard deviation over seeds. A budget is what is kept of the context.");
    out
}

/// In the order of the report.
pub fn by_task(report: &Report) -> Vec<(&'static str, Vec<&Row>)> {
    let mut tasks: Vec<(&'static str, Vec<&Row>)> = Vec::new();
    for row in &report.rows {
        match tasks.last_mut() {
            Some((name, rows)) if *name == row.task => rows.push(row),
            _ => tasks.push((row.task, vec![row])),
        }
    }
    tasks
}

fn heading(name: &str, rows: &[&Row], report: &Report) -> String {
    let list = |numbers: &[u32]| numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let idea = task::find(name).map_or("", |task| task.idea);
    let prompts = rows.iter().map(|row| row.prompts).max().unwrap_or(0);
    let mut out = format!("{name} ({idea}): {prompts} prompts of {} tokens", list(&report.lengths));
    if task::find(name).is_ok_and(|task| task.depths) {
        let _ = write!(out, ", depths {} %", list(&report.depths));
    }
    let _ = write!(out, ", {} seed{}", report.seeds, if report.seeds == 1 { "" } else { "s" });
    out
}

/// A row for each policy, columns for each budget.
fn overview(rows: &[&Row], report: &Report) -> Table {
    let answers = rows.iter().any(|row| row.accuracy.is_some());
    let own = rows.iter().any(|row| row.budget.is_none() && row.policy != "full");
    let budgets: Vec<Option<&str>> =
        report.budgets.iter().map(|b| Some(b.as_str())).chain(own.then_some(None)).collect();
    let mut header = vec!["policy".to_owned()];
    for budget in &budgets {
        let budget = budget.unwrap_or("own budget");
        match answers {
            true => header.extend([format!("{budget} found"), format!("{budget} NLL")]),
            false => header.push(format!("{budget} NLL")),
        }
    }
    let mut table = table(header);
    let mut policies: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| !policies.contains(&row.policy.as_str())).collect::<Vec<_>>() {
        if policies.contains(&row.policy.as_str()) {
            continue;
        }
        policies.push(&row.policy);
        let mut cells = vec![line(&row.policy)];
        for budget in &budgets {
            let of = |r: &&&Row| r.policy == row.policy && (r.policy == "full" || r.budget.as_deref() == *budget);
            let found = rows.iter().find(of);
            if answers {
                cells.push(found.and_then(|row| row.accuracy).map_or("-".into(), percent));
            }
            cells.push(found.and_then(|row| row.nll).map_or("-".into(), nats));
        }
        table.add_row(cells);
    }
    table
}

/// A row for each policy at a budget, a column for each question of a prompt.
fn asks(rows: &[&Row]) -> Table {
    let count = rows.iter().map(|row| row.asks.len()).max().unwrap_or(0);
    let mut table = table(std::iter::once("policy".to_owned()).chain((1..=count).map(|i| i.to_string())).collect());
    for row in rows {
        let share = |x: Option<f32>| x.map_or("-".into(), |x| format!("{:.0}", 100.0 * x));
        let cells = row.asks.iter().map(|ask| format!("{} ({})", share(ask.span_kept), share(ask.accuracy)));
        table.add_row(std::iter::once(line(&row.spec)).chain(cells));
    }
    table
}

/// A row for each policy at a budget, a column for each length and depth.
fn grid(rows: &[&Row]) -> Table {
    let places: Vec<(u32, u32)> = match rows.iter().max_by_key(|row| row.grid.len()) {
        Some(row) => row.grid.iter().map(|square| (square.length, square.depth)).collect(),
        None => Vec::new(),
    };
    let header = places.iter().map(|(length, depth)| format!("{length} at {depth} %"));
    let mut table = table(std::iter::once("policy".to_owned()).chain(header).collect());
    for row in rows {
        let square = |place: &(u32, u32)| {
            let is = |square: &&Square| (square.length, square.depth) == *place;
            let accuracy = row.grid.iter().find(is).and_then(|square| square.accuracy);
            accuracy.map_or("-".into(), |x| format!("{:.0}", 100.0 * x))
        };
        table.add_row(std::iter::once(line(&row.spec)).chain(places.iter().map(square)));
    }
    table
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(PLAIN_WIDTH);
    }
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn percent(spread: Spread) -> String {
    match spread.sd {
        Some(sd) => format!("{:.0} ± {:.0} %", 100.0 * spread.mean, 100.0 * sd),
        None => format!("{:.0} %", 100.0 * spread.mean),
    }
}

fn nats(spread: Spread) -> String {
    match spread.sd {
        Some(sd) => format!("{:.2} ± {:.2}", spread.mean, sd),
        None => format!("{:.2}", spread.mean),
    }
}
