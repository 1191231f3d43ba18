//! Orders for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::report::{Order, Report};
use crate::tui::text::{fit, line};

/// Columns where the output is no terminal.
const PLAIN_WIDTH: u16 = 140;
/// Columns of a text.
const WORDS: usize = 40;

pub fn text(report: &Report) -> String {
    let mut out = format!(
        "{}, {}, {}; {} prompt tokens, {} parts, seed {}\n\n",
        line(&report.model),
        report.device,
        report.precision,
        report.prompt_tokens,
        report.parts.len(),
        report.seed,
    );
    let percent = |share: f32| format!("{:.1} %", share * 100.0);
    let nll = |nll: Option<f32>| nll.map_or("-".into(), |nll| format!("{nll:.3}"));
    let order = |(i, order): (usize, &Order)| {
        let places: Vec<String> = order.order.iter().map(usize::to_string).collect();
        let most = (0..order.mass.len()).max_by(|&a, &b| order.mass[a].total_cmp(&order.mass[b]));
        vec![
            if i == 0 { "own".into() } else { i.to_string() },
            places.join(" "),
            fit(&line(&order.text), WORDS),
            order.found.map_or("-", |found| if found { "yes" } else { "no" }).into(),
            nll(order.nll),
            order.same_tokens.to_string(),
            most.map_or(String::new(), |part| format!("{part} ({})", percent(order.mass[part]))),
            percent(order.sink),
            percent(order.rest),
        ]
    };
    let header =
        ["order", "parts by place", "answer", "right", "NLL", "same tokens", "looks most at", "position 0", "rest"];
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", table(&header, report.orders.iter().enumerate().map(order)));
    let parts = report.parts.iter().enumerate().map(|(i, part)| {
        vec![
            format!("{i}{}", if part.needed { " *" } else { "" }),
            line(&part.name),
            fit(&line(&part.text), WORDS),
            (part.to - part.from).to_string(),
            percent(part.mass),
            format!("{} to {}", percent(part.least), percent(part.most)),
            format!("{:.2}", 1000.0 * part.mass / (part.to - part.from).max(1) as f32),
        ]
    });
    let header = ["part", "name", "text", "tokens", "attention", "over orders", "per token, ‰"];
    let _ = writeln!(out, "{}", table(&header, parts));
    let places = report.places.iter().enumerate().map(|(i, place)| {
        vec![
            i.to_string(),
            percent(place.mass),
            place.needed.to_string(),
            nll(place.nll),
            if place.needed > 0 { format!("{} of {}", place.found, place.needed) } else { "-".into() },
        ]
    });
    let header = ["place", "attention", "orders with * here", "NLL then", "right then"];
    let _ = writeln!(out, "{}", table(&header, places));
    let _ = write!(
        out,
        "* what the answer depends on. Attention: mean over layers, heads and the queries that say the {}: the prompt's last \
         token and its tokens but the last, without position 0.\nNLL: of the right answer, nats per token. Same tokens: in which the answer begins \
         like that of the prompt's own order. Orders are read one after another.",
        if report.answer.is_some() { "right answer" } else { "answer" }
    );
    out
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(PLAIN_WIDTH);
    }
    table.set_header(header).add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        let words = ["parts by place", "answer", "name", "text"].contains(&header[i]);
        column.set_cell_alignment(if words { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}
