//! `attnscope sweep`: every head, layer or sublayer knocked out in turn, and what the prompt costs without it.

mod measure;
mod report;
mod table;

use clap::ValueEnum;
use miette::Result;

use super::args::{ModelArgs, PromptArgs};
use super::exit::Interrupted;
use super::output::{print, print_json};
use super::prompt::Prompt;
use super::session::Session;
use crate::engine::{LaneSpec, Sampler};
use crate::policy::Policy;

/// What is knocked out one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Over {
    /// Every query head of every layer
    Heads,
    /// Every layer, attention and MLP together
    Layers,
    /// The attention of every layer
    Attention,
    /// The MLP of every layer
    Mlp,
}

/// Knock out every head, layer, attention or MLP in turn and rank them by what the prompt costs without
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to knock out
    #[arg(long, value_enum, default_value_t = Over::Layers)]
    pub over: Over,
    /// Tokens of the prompt that are read, from its start; all but the first are judged
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=256))]
    pub tokens: u32,
    /// Rows of the table; 0 = all
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub top: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub prompt: PromptArgs,
}

pub fn run(args: Args) -> Result<()> {
    let prompt = Prompt::read(&args.prompt)?;
    let full = LaneSpec { policy: Policy::parse("full")?, sampler: Sampler::default() };
    let mut session = Session::open(&args.model, &args.model.options(vec![full]))?;
    let report = measure::measure(&mut session, &prompt, &args)?;
    match args.json {
        true => print_json(&report)?,
        false => print(&table::text(&report, args.top as usize))?,
    }
    // What was measured until then has been printed.
    if report.complete { Ok(()) } else { Err(Interrupted.into()) }
}
