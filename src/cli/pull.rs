//! `attnscope pull NAME`: fetch a model and tell where it lies.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use miette::IntoDiagnostic;

use super::output::print;
use crate::model::fetch::{self, Progress};
use crate::model::locate::{Location, resolve};
use crate::tui::text::line;

/// Fetch a model, so that later runs need no network
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Catalog name (see `attnscope models`) or hf:owner/name[/FILE.gguf]
    name: String,
}

pub fn run(args: Args) -> miette::Result<()> {
    let location = resolve(&args.name)?;
    if let Location::Catalog(entry) = &location {
        match fetch::present(entry) {
            Some(path) => {
                return Ok(print(&line(&format!("{} is here: {}", entry.name, path.display())))?);
            }
            None => eprintln!("{}: {}, {} ({})", entry.name, entry.title, HumanBytes(entry.size), entry.licence),
        }
    }
    if let Location::Embedded(model) = &location {
        return Ok(print(&format!("{} is a part of the program: --model {}", model.name, model.name))?);
    }
    let path = obtain(&location)?;
    Ok(print(&line(&path.display().to_string()))?)
}

/// Fetch with a progress bar on the terminal; Ctrl-C stops cleanly. Nothing is shown for what is already here.
pub fn obtain(location: &Location) -> miette::Result<std::path::PathBuf> {
    let stop = Arc::new(AtomicBool::new(false));
    let handler = signal_hook::flag::register(signal_hook::consts::SIGINT, stop.clone()).into_diagnostic()?;
    let mut bar = Bar { bar: None, stop };
    let fetched = fetch::obtain(location, &mut bar);
    signal_hook::low_level::unregister(handler);
    if let Some(bar) = bar.bar {
        bar.finish_and_clear();
    }
    let path = fetched?;
    Ok(path)
}

struct Bar {
    bar: Option<ProgressBar>,
    stop: Arc<AtomicBool>,
}

impl Progress for Bar {
    fn begin(&mut self, source: &str, total: Option<u64>) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let size = total.map_or_else(String::new, |total| format!("{} ", HumanBytes(total)));
        eprintln!("fetching {size}from {source}");
        self.bar = Some(bar(total));
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(line(text)),
            _ => eprintln!("{}", line(text)),
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    const KNOWN: &str = "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    const UNKNOWN: &str = "{spinner} {bytes}  {bytes_per_sec}";
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), KNOWN),
        None => (ProgressBar::new_spinner(), UNKNOWN),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    // Both templates are constants; the default style stands in for a template that would not parse.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A path for a table: the home folder as `~`.
pub(super) fn short(path: &Path) -> String {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}
