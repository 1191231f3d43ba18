//! The analysis for people.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::heat::picture;
use super::report::{Layer, Pair, Report};
use crate::probe::spectrum::Spectrum;
use crate::tui::text::line;

/// Columns where the output is no terminal.
const PLAIN_WIDTH: u16 = 160;
/// Pairs of layers that are listed from each end.
const PAIRS: usize = 8;

pub fn text(report: &Report) -> String {
    let (maps, caches) = (&report.maps, &report.caches);
    let mut out = format!(
        "{}, {}, {}, KV {}; {} prompt tokens\n\n",
        line(&report.model),
        report.device,
        report.precision,
        report.kv_type,
        report.prompt_tokens
    );
    let rows = maps.similarity.rows;
    out += &picture(
        &format!("Attention maps of two layers, head by head: mean cosine over {rows} rows, without position 0"),
        &maps.similarity.heads_without_sink,
    );
    out.push('\n');
    out += &picture("The same with position 0", &maps.similarity.heads);
    let mean = |square: &crate::probe::square::Square| square.mean().map_or("-".into(), |x| format!("{x:.3}"));
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "\nMean over pairs of layers: head by head {} ({} with position 0), maps averaged over heads {} ({})",
        mean(&maps.similarity.heads_without_sink),
        mean(&maps.similarity.heads),
        mean(&maps.similarity.mean_without_sink),
        mean(&maps.similarity.mean),
    );
    let span = |s: &crate::probe::spans::Span| format!("{}-{} ({:.3})", s.first, s.last, s.least);
    let spans: Vec<String> = maps.spans.iter().map(span).collect();
    let _ = writeln!(out, "Most alike spans of 2, 3, … layers (least cosine to the first): {}\n", spans.join("  "));
    let source = if caches.of_prompt { "the prompt" } else { "our own text" };
    let (pieces, length) = (caches.pieces, caches.piece_tokens);
    out += &picture(
        &format!("Distance of two layers' caches, averaged over {pieces} pieces of {length} tokens of {source}"),
        &caches.distance,
    );
    let pairs = |pairs: &[Pair]| {
        let one = |p: &Pair| format!("{}>{} ({:.2})", p.layer, p.from, p.distance);
        pairs.iter().take(PAIRS).map(one).collect::<Vec<_>>().join("  ")
    };
    let _ = writeln!(out, "\nMost dissimilar first (KVSharer): {}", pairs(&caches.dissimilar_first));
    let _ = writeln!(out, "Most similar first (contrast):    {}\n", pairs(&caches.similar_first));
    let _ = writeln!(out, "{}", layers(report));
    let _ = write!(out, "{}", legend(report));
    out
}

fn layers(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(PLAIN_WIDTH);
    }
    table.set_header([
        "layer",
        "residual cosine",
        "K rank",
        "V rank",
        "all K",
        "before rope",
        "all V",
        "K|V 90/95/99 %",
        "GQA B",
        "MLA B",
        "MFA B",
        "maps in group",
        "K heads",
        "K CKA",
        "V heads",
        "V CKA",
    ]);
    for (index, layer) in report.layers.iter().enumerate() {
        table.add_row(row(index, layer));
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(index: usize, layer: &Layer) -> Vec<String> {
    let mean = |spectra: &[Spectrum]| {
        format!("{:.1}", spectra.iter().map(|s| s.effective_rank).sum::<f32>() / spectra.len().max(1) as f32)
    };
    let rank = |spectrum: &Spectrum| format!("{:.0}", spectrum.effective_rank);
    let number = |x: Option<f32>| x.filter(|x| !x.is_nan()).map_or_else(|| "-".into(), |x| format!("{x:.3}"));
    let (rank_of, bytes, alike) = (&layer.rank, &layer.bytes_per_token, &layer.alike);
    let groups = alike.maps_in_group.iter().sum::<f32>() / alike.maps_in_group.len().max(1) as f32;
    let [a, b, c] = rank_of.both.ranks;
    vec![
        index.to_string(),
        number(Some(layer.residual_cosine)),
        mean(&rank_of.keys_of_head),
        mean(&rank_of.values_of_head),
        rank(&rank_of.keys),
        rank(&rank_of.keys_before_rope),
        rank(&rank_of.values),
        format!("{a}/{b}/{c}"),
        bytes.gqa.to_string(),
        bytes.mla[1].to_string(),
        bytes.mfa[1].to_string(),
        number(Some(groups)),
        number(alike.keys.mean()),
        number(alike.keys_cka.mean()),
        number(alike.values.mean()),
        number(alike.values_cka.mean()),
    ]
}

fn legend(report: &Report) -> String {
    let (dim, kv_heads, tokens) = (report.head_dim, report.kv_heads, report.tokens);
    let width = 2 * kv_heads * dim;
    let mut out = format!(
        "Over {tokens} tokens, the first position left out. Ranks: exp of the entropy of the singular values, per kv head \
         (of {dim}) and over all (of {}).\n\
         K|V: how many singular values (of {width}) of keys before rope beside values, both of one weight, have so much of \
         Σ σ².\n\
         B: bytes per token and layer at 95 %: GQA as cached, MLA = that rank + D/2 for a rotated key, MFA = twice the \
         larger rank of K and V. Estimates, not converted models.\n\
         Maps in group: cosine of query heads on one kv head, without position 0. Heads: cosine token by token; CKA: up to \
         a rotation (K before rope).",
        kv_heads * dim
    );
    if tokens < width {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n{tokens} tokens cannot show a rank above {tokens}: a longer prompt tells more.");
    }
    out
}
