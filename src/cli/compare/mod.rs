//! `attnscope compare`: policies side by side against lane 0, as a table or JSON.

mod damage;
mod effects;
mod hindsight;
mod judged;
mod measure;
mod reads;
mod regret;
mod report;
mod table;

use miette::Result;

use super::args::{JudgeArgs, LaneArgs, ModelArgs, PromptArgs};
use super::exit::Usage;
use super::output::{print, print_json};
use super::prompt::Prompt;
use super::session::Session;
use report::Report;

/// Compare KV-cache policies with the full cache
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tokens to decode after the prompt
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub steps: u32,
    /// Feed lane 0's tokens to every lane
    #[arg(long)]
    pub teacher_forced: bool,
    /// Add the raw scores of each policy after the prompt (JSON)
    #[arg(long, requires = "json")]
    pub scores: bool,
    /// Say whether this text was produced [default: the sample's answer]
    #[arg(long, value_name = "TEXT")]
    pub answer: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub prompt: PromptArgs,
    #[command(flatten)]
    pub lanes: LaneArgs,
    #[command(flatten)]
    pub judge: JudgeArgs,
}

pub fn run(args: Args) -> Result<()> {
    let lanes = args.lanes.specs()?;
    if lanes.len() < 2 {
        let help = "give one or more, e.g. --lane snapkv@50% --lane streaming@50%; see `attnscope policies`";
        return Err(Usage::new("there is nothing to compare lane 0 with: no --lane", help).into());
    }
    let prompt = Prompt::read(&args.prompt)?;
    let mut session = Session::open(&args.model, &args.model.options(lanes))?;
    let report = measure::measure(&mut session, &prompt, &args)?;
    match args.json {
        true => print_json(&report)?,
        false => print(&table::text(&report))?,
    }
    Ok(())
}
