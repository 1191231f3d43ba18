//! `attnscope eval`: policies judged by tasks at several budgets, as tables, plots and files.

mod contender;
mod measure;
mod record;
mod report;
mod runner;
mod store;
mod table;
mod task;

use std::path::PathBuf;

use miette::Result;
use sha2::{Digest, Sha256};

use super::args::{ModelArgs, no_tokenizer};
use super::bench::NO_PROBES;
use super::exit::{Interrupted, Io, Usage};
use super::output::{print, print_json};
use super::prompt;
use super::session::Session;
use crate::engine::{LaneSpec, Sampler};
use crate::model::source::Model;
use crate::policy::amount::Amount;
use record::{Mode, Piece, Setting};
use report::Report;
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
    let done = runner::run(&mut session, &jobs, &contenders, &setting, &mut store);
    // What was finished is shown also where the rest was not.
    if done.as_ref().is_err_and(|error| !error.is::<Interrupted>()) {
        return done;
    }
    let grid = (&args.lengths[..], &args.depths[..], args.seeds);
    let report = Report::new(&session.info, &setting, grid, &jobs, &contenders, &store);
    match args.json {
        true => print_json(&report)?,
        false => print(&table::text(&report, args.grid))?,
    }
    done
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
