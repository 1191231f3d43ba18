//! `attnscope config`: what is set, and where.

use std::io::ErrorKind;

use comfy_table::{Table, presets};
use miette::Result;
use serde::Serialize;

use super::exit::{Io, Usage};
use super::output::{print, print_json};
use super::settings::{self, KEYS, Settings};
use crate::tui::text::line;

/// Show the settings and where each comes from
///
/// The command line wins over the file, the file over the built-in values. ATTNSCOPE_CONFIG names another file;
/// keys.toml and views/ are looked for beside it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the file with every setting at its built-in value, commented out
    #[arg(long, conflicts_with = "json")]
    pub init: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Report {
    schema: u32,
    file: Option<String>,
    exists: bool,
    settings: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    /// As it stands in the file.
    value: String,
    /// `file` or `built-in`.
    source: &'static str,
    meaning: &'static str,
}

pub fn run(args: Args) -> Result<()> {
    let path = settings::path();
    if args.init {
        let nowhere = || Usage::new("this machine has no home folder", "name a file with ATTNSCOPE_CONFIG");
        let path = path.ok_or_else(nowhere)?;
        return match settings::init(&path) {
            Ok(()) => Ok(print(&line(&path.display().to_string()))?),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                Err(Usage::new(format!("{path:?} exists already"), "edit it, or take it away first").into())
            }
            Err(e) => Err(Io::while_(format!("write {path:?}"))(e).into()),
        };
    }
    let set = Settings::load()?;
    let row = |key: &settings::Key| {
        let (value, source) = match (key.shown)(&set) {
            Some(value) => (value, "file"),
            None => ((key.default)(), "built-in"),
        };
        Row { name: key.name, value, source, meaning: key.meaning }
    };
    let report = Report {
        schema: 1,
        file: path.as_ref().map(|path| path.display().to_string()),
        exists: path.as_ref().is_some_and(|path| path.exists()),
        settings: KEYS.iter().map(row).collect(),
    };
    match args.json {
        true => print_json(&report)?,
        false => print(&text(&report))?,
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let file = report.file.as_deref().map_or("none".to_owned(), line);
    let state = if report.exists { "" } else { " (not there; `attnscope config --init` writes it)" };
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["setting", "value", "from", "meaning"]);
    for row in &report.settings {
        table.add_row([row.name.to_owned(), line(&row.value), row.source.to_owned(), row.meaning.to_owned()]);
    }
    format!("file {file}{state}\n\n{table}")
}
