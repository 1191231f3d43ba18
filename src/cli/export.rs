//! `attnscope export`: a recorded run in a format of other programs.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::HumanBytes;
use miette::{Report, Result};

use super::exit::{Io, Usage};
use super::output::print;
use super::replay;
use crate::trace::Trace;
use crate::trace::export::{self, Failed};
use crate::tui::text;

/// Write a recorded run as trace events, a table or JSON
///
/// chrome: what every step's time went into and the bytes of each cache, for ui.perfetto.dev. csv: a row for each step
/// and lane. json: every field of every frame.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The trace file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What to write
    #[arg(long, value_enum)]
    pub format: Format,
    /// The file to write; - is standard output
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Chrome,
    Csv,
    Json,
}

pub fn run(args: Args) -> Result<()> {
    if args.out.is_dir() {
        return Err(Usage::new(format!("{:?} is a folder", args.out), "give a file name to --out").into());
    }
    let mut trace = replay::open(&args.file)?;
    if args.out == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        return write(&mut trace, args.format, &mut out, "write to standard output");
    }
    let doing = format!("write {:?}", args.out);
    let folder = args.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let part = super::output::part_in(folder).map_err(Io::while_(doing.clone()))?;
    let file = std::fs::OpenOptions::new().write(true).open(&part).map_err(Io::while_(doing.clone()))?;
    let mut out = BufWriter::new(file);
    write(&mut trace, args.format, &mut out, &doing)?;
    let size = out.get_ref().metadata().map_err(Io::while_(doing.clone()))?.len();
    part.persist(&args.out).map_err(|e| Io::while_(doing)(e.error))?;
    Ok(print(&format!("{}: {}", text::line(&args.out.display().to_string()), HumanBytes(size)))?)
}

fn write(trace: &mut Trace, format: Format, out: &mut impl Write, doing: &str) -> Result<()> {
    let written = match format {
        Format::Chrome => export::chrome(trace, out),
        Format::Csv => export::csv(trace, &text::line, out),
        Format::Json => export::json(trace, out),
    };
    written.and_then(|()| Ok(out.flush()?)).map_err(|failed| match failed {
        Failed::Read(error) => Report::from(error),
        Failed::Write(source) => Io { doing: doing.to_owned(), source }.into(),
    })
}
