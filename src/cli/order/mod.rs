//! `attnscope order`: the parts of a prompt in other orders, and what that does to the answer and to where it looks.
//!
//! A lane continues the prompt that all lanes share: orders are read one after another, each on its own.

mod arrange;
mod measure;
mod report;
mod table;

use clap::ValueEnum;
use miette::Result;

use super::args::{ModelArgs, PromptArgs};
use super::output::{print, print_json};
use super::prompt::Prompt;
use super::session::Session;
use crate::engine::{LaneSpec, Sampler};
use crate::policy::Policy;
use crate::probe::prompt_span::SpanAsk;

/// Shuffle the parts of a prompt and compare answers and attention
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A part to shuffle, two or more of them: NAME=FROM..TO in token positions, NAME=TEXT, or NAME=TEXT..TEXT (from where
    /// the first begins to where the second does); what is in none stays where it is
    #[arg(long = "span", value_name = "NAME=PLACE", conflicts_with = "by")]
    pub spans: Vec<SpanAsk>,
    /// Without --span: shuffle the paragraphs or the lines of the prompt's document, which ends before its last paragraph
    #[arg(long, value_enum, default_value_t)]
    pub by: By,
    /// Orders to try beside the prompt's own
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub shuffles: u32,
    /// Seed of the shuffles
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Tokens to answer with, each the most probable one
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// The right answer, as the text goes on with it: look for it, and take its −ln p and its attention
    /// [default: the sample's answer]
    #[arg(long, value_name = "TEXT")]
    pub answer: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub prompt: PromptArgs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum By {
    #[default]
    Paragraphs,
    Lines,
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
