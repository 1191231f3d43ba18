//! `attnscope eval`: policies judged by tasks at several budgets, as tables, plots and files.

mod columns;
mod contender;
mod measure;
mod plot;
mod record;
mod report;
mod runner;
mod store;
mod table;
mod task;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use miette::Result;
use sha2::{Digest, Sha256};

use super::args::{ModelArgs, no_tokenizer};
use super::bench::NO_PROBES;
use super::exit::{Interrupted, Io, Usage};
use super::output::{part_in, print, print_json};
use super::prompt;
use super::session::Session;
use crate::engine::{LaneSpec, Sampler};
use crate::model::source::Model;
use crate::model::tokenizer::Tokenizer;
use crate::policy::amount::Amount;
use crate::tui::text::line;
use crate::tui::theme::Depth;
use record::{Mode, Piece, Setting};
use report::Report;
use runner::Job;
use store::Store;
use task::{Maker, Task, Text};

/// Judge KV-cache policies by tasks at several budgets
///
/// Every policy reads the same prompts as lanes of one run beside the full cache. What is asked for is fed token by
/// token after the policies have decided, so every answer comes from the compressed cache. passkey, needle and multikey
/// hide an answer at a depth, instructions asks for eight rules, nll judges the continuation of a text.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Any of passkey, needle, multikey, instructions, nll, separated by commas
    #[arg(long, value_name = "TASKS", value_delimiter = ',', default_value = "needle,nll", value_parser = task::find)]
    pub tasks: Vec<&'static Task>,
    /// Policies, separated by commas or the option repeated (see `attnscope policies`); `full` always runs
    #[arg(long, value_name = "SPECS", default_value = POLICIES)]
    pub policies: Vec<String>,
    /// What policies without a budget of their own may keep: shares of the context (25%) or tokens (256)
    #[arg(long, value_name = "BUDGETS", value_delimiter = ',', default_value = "12%,25%,50%", value_parser = budget)]
    pub budgets: Vec<Amount>,
    /// Prompts for each length and depth: seeds 0 to N − 1
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub seeds: u64,
    /// Tokens of the context, separated by commas
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "512",
        value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub lengths: Vec<u32>,
    /// Where in the context the answer lies, in percent, separated by commas
    #[arg(long, value_name = "PERCENT", value_delimiter = ',', default_value = "0,25,50,75,100",
        value_parser = clap::value_parser!(u32).range(0..=100))]
    pub depths: Vec<u32>,
    /// What the policies see when they decide: the context alone, or the question too
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Hidden)]
    pub question: Mode,
    /// The text of nll [default: a bundled one of some 2400 tokens]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Tokens of the text that nll judges
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub continuation: u32,
    /// Keep the results in this file as they come (JSON lines); what is there already is not run again
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Add tables by length and depth
    #[arg(long)]
    pub grid: bool,
    /// Leave out the plots below the tables
    #[arg(long)]
    pub no_plot: bool,
    /// Write all results to a Parquet file, a row for each question
    #[arg(long, value_name = "FILE")]
    pub parquet: Option<PathBuf>,
    /// Write the plots as an SVG picture
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print the prompts, and run nothing
    #[arg(long)]
    pub show_prompts: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// One of each kind, and those that are compared most.
const POLICIES: &str = "random,streaming,h2o,tova,snapkv,pyramid+snapkv,adakv+snapkv,expected,knorm,keydiff,lagkv,cur,\
                        compactor,chunkkv+snapkv";

pub fn run(args: Args) -> Result<()> {
    let contenders = contender::contenders(&args.policies, &args.budgets)?;
    for path in [&args.out, &args.parquet, &args.svg].into_iter().flatten() {
        if path.is_dir() {
            return Err(Usage::new(format!("{path:?} is a folder"), "give a file name").into());
        }
    }
    let mut store = args.out.as_deref().map_or_else(|| Ok(Store::new()), Store::open)?;
    let lanes = contenders.iter().map(|c| LaneSpec { policy: c.policy.clone(), sampler: Sampler::default() }).collect();
    let mut session = Session::open(&args.model, &args.model.options(lanes))?;
    session.core.probes = NO_PROBES;
    let (text, sha256) = text(&args, &session.model)?;
    let setting = Setting {
        model_sha256: session.model.sha256().map_err(Io::while_("hash the model"))?.to_owned(),
        precision: session.info.precision.clone(),
        kv_type: session.info.kv_type.clone(),
        question: args.question,
        text: Piece { sha256, tokens: args.continuation },
    };
    let places = runner::places(&args.tasks, &args.lengths, &args.depths, args.seeds);
    let model = session.model.clone();
    let tokenizer = model.tokenizer.as_ref().ok_or_else(no_tokenizer)?;
    let jobs = runner::jobs(&places, &Maker { tokenizer, text: &text, continuation: args.continuation }, &session)?;
    if args.show_prompts {
        return Ok(print(&shown(&jobs, tokenizer))?);
    }
    let done = runner::run(&mut session, &jobs, &contenders, &setting, &mut store);
    // What was finished is shown also where the rest was not.
    if done.as_ref().is_err_and(|error| !error.is::<Interrupted>()) {
        return done;
    }
    let grid = (&args.lengths[..], &args.depths[..], args.seeds);
    let report = Report::new(&session.info, &setting, grid, &jobs, &contenders, &store);
    if let Some(path) = &args.parquet {
        write(path, |out| columns::write(&report, out).map(drop).map_err(std::io::Error::other))?;
    }
    let plots = plot::plots(&report);
    if let Some(path) = &args.svg {
        write(path, |out| out.write_all(plot::svg(&plots).as_bytes()))?;
    }
    match args.json {
        true => print_json(&report)?,
        false => {
            print(&table::text(&report, args.grid))?;
            if !args.no_plot && plots.iter().any(|plot| plot.budgets().len() > 1) {
                print(&drawn(&plots))?;
            }
        }
    }
    done
}

/// Plots for the terminal that standard output is, or for a file.
fn drawn(plots: &[plot::Plot]) -> String {
    let terminal = std::io::stdout().is_terminal();
    let depth = if terminal { Depth::detect(|name| std::env::var(name).ok()) } else { Depth::Mono };
    let columns =
        if terminal { crossterm::terminal::size().map_or(PLOT, |(columns, _)| columns.min(PLOT)) } else { PLOT };
    plots.iter().map(|plot| format!("\n{}", plot::draw(plot, columns, depth).trim_end())).collect::<Vec<_>>().join("\n")
}

/// Columns of a plot, at most.
const PLOT: u16 = 100;

/// A file that appears when it is complete.
fn write(path: &Path, put: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let doing = || format!("write {path:?}");
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let part = part_in(folder).map_err(Io::while_(doing()))?;
    let file = File::options().write(true).open(&part).map_err(Io::while_(doing()))?;
    let mut out = BufWriter::new(file);
    put(&mut out).and_then(|()| out.flush()).map_err(Io::while_(doing()))?;
    Ok(part.persist(path).map_err(|e| Io::while_(doing())(e.error))?)
}

/// Every prompt with its questions; `…` stands where the answer is expected.
fn shown(jobs: &[Job], tokenizer: &Tokenizer) -> String {
    let mut out = String::new();
    for job in jobs {
        // Writing to a String cannot fail.
        let _ = write!(out, "=== {job}\n\n{}", visible(&tokenizer.decode(&job.item.context)));
        for ask in &job.item.asks {
            let [question, lead, answer] = [&ask.question, &ask.lead, &ask.answer].map(|ids| tokenizer.decode(ids));
            let _ = writeln!(out, "{}{}…{}", visible(&question), visible(&lead), visible(&answer));
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out
}

/// Line ends stay, everything else that could steer a terminal is made visible.
fn visible(text: &str) -> String {
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// The text of nll in tokens, and its hash.
fn text(args: &Args, model: &Model) -> Result<(Text, String)> {
    let (name, text) = match &args.text {
        Some(path) => (format!("{path:?}"), prompt::file(path)?),
        None => ("the bundled text".to_owned(), task::PROSE.clone()),
    };
    if text.is_empty() {
        return Err(Usage::new(format!("{name} is empty"), "give a file with text to --text").into());
    }
    let tokenizer = model.tokenizer.as_ref().ok_or_else(no_tokenizer)?;
    let ids = tokenizer.encode(&text, false)?;
    let hash = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((Text { name, ids }, hash))
}

fn budget(text: &str) -> Result<Amount, String> {
    let amount = text.trim().parse::<Amount>().ok().filter(|budget| !budget.is_zero());
    amount.ok_or_else(|| "a share such as 25%, or a number of tokens".into())
}
