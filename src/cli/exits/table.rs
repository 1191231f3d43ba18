//! Exits and drafts for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::report::{Confidence, Depth, Draft, Report};
use crate::tui::text::{fit, line, token};

/// Columns where the output is no terminal.
const PLAIN_WIDTH: u16 = 160;
/// Tokens that are listed, the newest.
const TOKENS: usize = 16;
/// Spans that are listed.
const SPANS: usize = 8;

pub fn text(report: &Report) -> String {
    let layers = report.layers.len() - 1;
    let mut out = format!(
        "{}, {}, {}; {} prompt tokens, {} steps at temperature {}\n\n",
        line(&report.model),
        report.device,
        report.precision,
        report.prompt_tokens,
        report.tokens.len(),
        report.temperature,
    );
    let depths = report.tokens.iter().map(|token| token.exit_depth as f64);
    let newest = report.tokens.len().saturating_sub(TOKENS);
    let said = |t: &super::report::Token| format!("{} {}", fit(&token(&t.text), 14), t.exit_depth);
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "Exit depth (layers after which the best token stays what it is): mean {:.1} of {layers}. The newest tokens:\n{}\n",
        depths.sum::<f64>() / report.tokens.len().max(1) as f64,
        report.tokens[newest..].iter().map(said).collect::<Vec<_>>().join("  "),
    );
    let header = [
        "layers",
        "exit here",
        "same top-1",
        "p of token",
        "rank",
        "KL",
        "entropy",
        "accepted",
        "cost",
        "tokens/look",
        "speedup",
        "attention 1−cos",
        "MLP 1−cos",
    ];
    let _ = writeln!(out, "{}", table(&header, report.layers.iter().map(|depth| by_depth(report, depth))));
    let header = ["leave at p ≥", "from layer", "same top-1", "layers saved", "saved", "most leave after"];
    let _ = writeln!(out, "{}", table(&header, report.confidence.iter().map(|c| by_confidence(c, layers))));
    let header = [
        "draft",
        "left out",
        "same top-1",
        "KL",
        "accepted",
        "cost",
        "tokens/look",
        "speedup",
        "looks",
        "stood",
        "real tokens/look",
        "real tok/s",
        "real speedup",
        "same text",
    ];
    let _ = writeln!(out, "{}", table(&header, report.drafts.iter().map(by_draft)));
    let span = |s: &crate::probe::influence::AlikeSpan| match s.layers {
        1 => format!("{} ({:.3})", s.first, s.angle),
        n => format!("{}-{} ({:.3})", s.first, s.first + n - 1, s.angle),
    };
    let spans: Vec<String> = report.alike_spans.iter().take(SPANS).map(span).collect();
    let _ = writeln!(out, "Layers that turn the stream least (angle / π), 1, 2, 3, … together: {}\n", spans.join("  "));
    let _ = write!(
        out,
        "Lens: softmax(head(final norm(stream))). Rank: median; KL of the last layer from this one, nats. 1−cos: over the prompt.\n\
         accepted: mean of Σ min(p, q) at temperature {}; a draft of {} tokens: tokens/look = (1 − a^(γ+1)) / (1 − a), speedup \
         = that / (γ · cost + 1),\n\
         cost = weights of the draft over all. real: speculative decoding that was done, next to {:.1} tok/s of the same loop \
         without drafts.",
        report.acceptance_temperature, report.gamma, report.plain_tokens_per_s,
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
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

fn percent(share: f32) -> String {
    format!("{:.1} %", share * 100.0)
}

fn by_depth(report: &Report, depth: &Depth) -> Vec<String> {
    // What the layer that came last changes.
    let influence = |sublayer: usize| {
        let at = (2 * depth.layers).checked_sub(sublayer).and_then(|i| report.influence.get(i));
        at.map_or("-".into(), |x| format!("{x:.3}"))
    };
    let chance = &depth.draft;
    vec![
        depth.layers.to_string(),
        percent(depth.exits),
        percent(depth.agreement),
        format!("{:.3}", depth.probability),
        depth.rank.to_string(),
        format!("{:.3}", depth.kl),
        format!("{:.2}", depth.entropy),
        format!("{:.3}", chance.acceptance),
        format!("{:.2}", chance.cost),
        format!("{:.2}", chance.tokens_per_look),
        format!("{:.2}", chance.speedup),
        influence(2),
        influence(1),
    ]
}

fn by_confidence(confidence: &Confidence, layers: usize) -> Vec<String> {
    let mut most: Vec<usize> = (0..=layers).collect();
    most.sort_by(|&a, &b| confidence.exits[b].total_cmp(&confidence.exits[a]));
    let most = most.iter().take(3).filter(|&&at| confidence.exits[at] > 0.0);
    vec![
        confidence.at_least.to_string(),
        confidence.from.to_string(),
        percent(confidence.agreement),
        format!("{:.1} of {layers}", confidence.layers_saved),
        percent(confidence.layers_saved / layers.max(1) as f32),
        most.map(|&at| format!("{at} ({:.0} %)", confidence.exits[at] * 100.0)).collect::<Vec<_>>().join("  "),
    ]
}

fn by_draft(draft: &Draft) -> Vec<String> {
    let (chance, run) = (&draft.chance, &draft.run);
    vec![
        draft.spec.clone(),
        draft.skipped.len().to_string(),
        percent(draft.agreement),
        format!("{:.3}", draft.kl),
        format!("{:.3}", chance.acceptance),
        format!("{:.2}", chance.cost),
        format!("{:.2}", chance.tokens_per_look),
        format!("{:.2}", chance.speedup),
        run.looks.to_string(),
        format!("{} of {}", run.accepted, run.drafted),
        format!("{:.2}", run.tokens_per_look),
        format!("{:.1}", run.tokens_per_s),
        format!("{:.2}", run.speedup),
        run.same_tokens.map_or("-", |same| if same { "yes" } else { "no" }).into(),
    ]
}
