//! `attnscope memory`: how large a KV cache is, or would be, by arithmetic.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use miette::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::exit::Usage;
use super::output::{print, print_json};
use super::pull;
use crate::meter::kv::what_if::{self, Row};
use crate::meter::kv::{Change, Dtype, Terms, published, words};
use crate::model::catalog;
use crate::model::kv_shape::{KvFacts, KvShape, LayerKv};
use crate::model::locate::resolve;
use crate::tui::{text::line, units};

/// Work out the size of a KV cache, as a model is and as it would be
///
/// Nothing runs: the sizes follow from the model's configuration. Without --window, --shared-last, --latent and
/// --compress each of the known ways to keep less is shown, with them all that is asked for at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Catalog name, FILE.gguf, or a folder, whose config.json is enough, also of a model that is not run here
    #[arg(long, short, value_name = "MODEL", default_value_t = catalog::default_name().to_owned())]
    pub model: String,
    /// Instead: the shape of a published model (an unknown name lists them)
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    shape: Option<String>,
    /// Positions of one text: 131072, 128k, 1M
    #[arg(long, value_name = "TOKENS", default_value = "128k", value_parser = tokens)]
    context: u64,
    /// Texts at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    batch: u64,
    /// Number type of the cache: bf16, f16, f32, fp8, int8, int4 or int2 (of integers the codes alone)
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    dtype: Dtype,
    /// No layer looks back further
    #[arg(long, value_name = "W", value_parser = size)]
    window: Option<usize>,
    /// The last K layers read the last layer before them that is of their kind
    #[arg(long, value_name = "K", value_parser = size)]
    shared_last: Option<usize>,
    /// One row of R numbers per position, for all heads
    #[arg(long, value_name = "R", value_parser = size)]
    latent: Option<usize>,
    /// One row for M positions in layers that see everything; several values take turns: 4,128
    #[arg(long, value_name = "M", value_delimiter = ',', value_parser = size)]
    compress: Vec<usize>,
    /// What layers with --compress keep as it is
    #[arg(long, value_name = "W", default_value_t = what_if::COMPRESS_WINDOW, requires = "compress")]
    compress_window: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Above what any model's configuration may say.
const MOST: usize = 1 << 24;

fn size(text: &str) -> Result<usize, String> {
    text.trim().parse().ok().filter(|n| (1..=MOST).contains(n)).ok_or_else(|| format!("1 to {MOST}"))
}

/// `131072`, `128k` (k = 1024), `1M` (M = 1024²).
fn tokens(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        _ => (text, 1),
    };
    let tokens = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    tokens.ok_or_else(|| "a number of tokens such as 131072, 128k or 1M".into())
}

/// What the sizes are of.
#[derive(Debug, Serialize)]
struct About {
    name: String,
    about: String,
    /// attnscope runs the model, too; `None` for a shape without a model.
    runs: Option<bool>,
    #[serde(skip)]
    shape: KvShape,
}

impl Args {
    fn about(&self) -> Result<About> {
        if let Some(name) = &self.shape {
            let names = || published::PUBLISHED.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
            let model = published::find(name)
                .ok_or_else(|| Usage::new(format!("there is no shape {name:?}"), format!("known: {}", names())))?;
            let (name, about) = (model.name.clone(), model.about.clone());
            return Ok(About { name, about, runs: None, shape: model.shape() });
        }
        let facts = KvFacts::read(&pull::obtain(&resolve(&self.model)?)?)?;
        let about = match facts.runs {
            true => facts.family,
            false => format!("{}: attnscope does not run this model, its config.json is enough here", facts.family),
        };
        Ok(About { name: self.model.clone(), about, runs: Some(facts.runs), shape: facts.shape })
    }

    fn changes(&self) -> Vec<Change> {
        let compress = (!self.compress.is_empty())
            .then(|| Change::Compress { every: self.compress.clone(), window: self.compress_window });
        // layers are told apart by their kind before their rows are changed
        let share = self.shared_last.map(Change::ShareLast);
        let (window, latent) = (self.window.map(Change::Window), self.latent.map(Change::Latent));
        [share, window, latent, compress].into_iter().flatten().collect()
    }
}

pub fn run(args: Args) -> Result<()> {
    let about = args.about()?;
    let terms = Terms { context: args.context, batch: args.batch, dtype: args.dtype };
    let changes = args.changes();
    let rows = match changes.is_empty() {
        true => what_if::rows(&about.shape),
        false => vec![what_if::as_it_is(&about.shape), what_if::changed(&about.shape, &changes)],
    };
    if let (false, Some(Row { shape: Err(error), .. })) = (changes.is_empty(), rows.last()) {
        return Err(Usage::new(error.to_string(), "share fewer layers with --shared-last").into());
    }
    if args.json {
        return Ok(print_json(&as_json(&about, &terms, &rows))?);
    }
    Ok(print(&as_text(&about, &terms, &rows))?)
}

fn as_text(about: &About, terms: &Terms, rows: &[Row]) -> String {
    let mut out = format!("{} ({}), {} layers\n", line(&about.name), line(&about.about), about.shape.layers.len());
    let codes = if terms.dtype.is_codes() { ", codes alone" } else { "" };
    let Terms { context, batch, dtype } = terms;
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "KV cache at {} tokens × {batch}, {dtype}{codes}; derived, not measured\n",
        units::count(*context)
    );
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["cache", "bytes", "of it as it is", "bytes of a further token"]);
    for column in 1..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let whole = rows.first().and_then(|row| row.bytes(terms)).unwrap_or(0);
    for row in rows {
        table.add_row(match &row.shape {
            Ok(shape) => [
                row.name.clone(),
                units::bytes(shape.bytes(terms)),
                format!("{:.1} %", 100.0 * shape.bytes(terms) as f64 / whole.max(1) as f64),
                format!("{:.1}", further(shape, terms)),
            ],
            Err(error) => [row.name.clone(), "-".into(), "-".into(), error.to_string()],
        });
    }
    let _ = writeln!(out, "{table}");
    let kept = about.shape.kept_whole();
    if about.runs == Some(true) && kept != about.shape {
        let held = units::bytes(kept.bytes(terms));
        let _ = writeln!(out, "\nattnscope itself keeps what windows hide: {held} (its caches can go back in time)");
    }
    // what is asked for last is what is looked at
    if let Some(Row { name, shape: Ok(shape), .. }) = if rows.len() == 2 { rows.last() } else { rows.first() } {
        let _ = writeln!(out, "\nLayers, {name}:");
        for (count, layer) in shape.kinds() {
            let bytes = KvShape { layers: vec![layer] }.bytes(terms);
            let _ = writeln!(out, "{count:>4} × {:<10} {}", units::bytes(bytes), words(layer));
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Bytes that one more token takes at the end, on average over the next 1024.
fn further(shape: &KvShape, terms: &Terms) -> f64 {
    const AHEAD: u64 = 1024;
    let later = Terms { context: terms.context.saturating_add(AHEAD), ..*terms };
    (shape.bytes(&later) - shape.bytes(terms)) as f64 / AHEAD as f64
}

fn as_json(about: &About, terms: &Terms, rows: &[Row]) -> Value {
    let row = |row: &Row| match &row.shape {
        Ok(shape) => json!({
            "name": row.name,
            "bytes": shape.bytes(terms),
            "bytes_per_further_token": further(shape, terms),
            "layers": shape.layers.iter().zip(shape.layer_bytes(terms)).map(|(l, b)| layer(*l, b, terms)).collect::<Vec<_>>(),
        }),
        Err(error) => json!({ "name": row.name, "error": error.to_string() }),
    };
    json!({
        "schema": 1,
        "model": about,
        "context": terms.context,
        "batch": terms.batch,
        "dtype": terms.dtype.name,
        "bits": terms.dtype.bits,
        "kept_whole_bytes": about.shape.kept_whole().bytes(terms),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn layer(layer: LayerKv, bytes: u64, terms: &Terms) -> Value {
    let kind = match layer {
        LayerKv::Heads { kv_heads, head_dim, window } => {
            json!({ "kind": "heads", "kv_heads": kv_heads, "head_dim": head_dim, "window": window })
        }
        LayerKv::Latent { width, window } => json!({ "kind": "latent", "width": width, "window": window }),
        LayerKv::Compressed { every, window, width, indexer } => {
            json!({ "kind": "compressed", "every": every, "window": window, "width": width, "indexer": indexer })
        }
        LayerKv::Shared { with } => json!({ "kind": "shared", "with": with }),
    };
    let mut out = kind;
    out["rows"] = layer.held(terms.context).rows.into();
    out["bytes"] = bytes.into();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_lengths() {
        assert_eq!(["131072", "128k", "128K", "1M"].map(|t| tokens(t).unwrap()), [131_072, 131_072, 131_072, 1 << 20]);
        assert!(
            ["", "k", "12x", "-1", "99999999999999999999", "99999999999999M", "1.5k"]
                .iter()
                .all(|t| tokens(t).is_err())
        );
        assert!(size("0").is_err() && size("16777217").is_err() && size("4") == Ok(4));
    }
}
