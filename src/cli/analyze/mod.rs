//! `attnscope analyze`: what layers and heads have in common, and how many dimensions their caches use.

mod heads;
mod heat;
mod measure;
mod report;
mod table;

use miette::Result;

use super::args::{ModelArgs, PromptArgs};
use super::output::{print, print_json};
use super::prompt::Prompt;
use super::session::Session;
use crate::engine::{LaneSpec, Sampler};
use crate::policy::Policy;

/// Analyse what layers share: alike attention maps, unlike caches, ranks of keys and values
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rows of the attention maps to compare, spread over the prompt
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rows: u32,
    /// Tokens whose keys and values are looked at, spread over the prompt
    #[arg(long, default_value_t = 1024, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=16384))]
    pub tokens: u32,
    /// Pieces of text over which caches are averaged
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pieces: u32,
    /// Tokens in each piece
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=512))]
    pub piece: u32,
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
        false => print(&table::text(&report))?,
    }
    Ok(())
}
