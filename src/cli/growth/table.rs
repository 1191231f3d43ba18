//! As text: one table of the streams, one of what is read.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::measure::Growth;
use crate::tui::text::line;
use crate::tui::units;

/// Cells of the longest bar.
const BAR: usize = 24;

fn point(p: usize) -> String {
    match p {
        0 => "embedding".into(),
        p if p % 2 == 1 => format!("L{} attention", p / 2),
        p => format!("L{} MLP", p / 2 - 1),
    }
}

fn target(t: usize, targets: usize) -> String {
    match t {
        t if t + 1 == targets => "output".into(),
        t if t % 2 == 0 => format!("L{} attention", t / 2),
        t => format!("L{} MLP", t / 2),
    }
}

fn bar(share: f32) -> String {
    "█".repeat((share.clamp(0.0, 1.0) * BAR as f32).round() as usize)
}

pub fn text(all: &[Growth]) -> String {
    let mut out = String::new();
    for one in all {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{} ({}), {} tokens: {:.3} nats a token; stream grows ×{} ({:.2} in log-log)",
            line(&one.model),
            one.residual,
            one.tokens,
            one.nll,
            units::number(one.growth as f32),
            one.slope
        );
    }
    out.push_str(
        "\nRMS of the stream after each sublayer, median over tokens (┌ begins a block, whose sum starts from zero)\n",
    );
    out.push_str(&streams(all));
    for one in all.iter().filter(|one| !one.edges.is_empty()) {
        let _ = writeln!(out, "\n\nWhat {} reads, mean weights over the prompt", line(&one.model));
        out.push_str(&weights(one));
    }
    out
}

fn streams(all: &[Growth]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let names = all.iter().flat_map(|one| [line(&one.model), String::new()]);
    table.set_header([String::new()].into_iter().chain(names));
    let most = all.iter().flat_map(|one| &one.stream).map(|p| p.rms).fold(0.0, f32::max);
    let points = all.iter().map(|one| one.stream.len()).max().unwrap_or(0);
    for p in 0..points {
        let cells = all.iter().flat_map(|one| {
            let edge = p > 0 && one.edges.len() < one.stream.len() - 1 && one.edges.contains(&(p as u32 - 1));
            match one.stream.get(p) {
                Some(at) => [format!("{} {}", if edge { "┌" } else { " " }, units::number(at.rms)), bar(at.rms / most)],
                None => [String::new(), String::new()],
            }
        });
        table.add_row([point(p)].into_iter().chain(cells));
    }
    table.to_string()
}

fn weights(one: &Growth) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["", "entropy", "of uniform", "sources", "embedding", "distance", "weights, embedding first"]);
    for column in 1..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (t, row) in one.targets.iter().enumerate() {
        let values: Vec<String> = row.values.iter().map(|v| format!("{v:.2}")).collect();
        table.add_row([
            target(t, one.targets.len()),
            format!("{:.3}", row.entropy),
            format!("{:.3}", row.uniform),
            format!("{:.2} of {}", row.entropy.exp(), row.sources),
            format!("{:.2}", row.embedding),
            format!("{:.2}", row.distance),
            if values.len() > 12 {
                format!("{} … {}", values[..5].join(" "), values[values.len() - 5..].join(" "))
            } else {
                values.join(" ")
            },
        ]);
    }
    table.to_string()
}
