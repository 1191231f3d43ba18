//! `attnscope exits`: how early a model knows its next token, and what a part of it is worth as its own draft.

mod ask;
mod measure;
mod report;
mod table;

use miette::Result;

use super::args::{ModelArgs, PromptArgs, non_negative, share};
use super::output::{print, print_json};
use super::prompt::Prompt;
use super::session::Session;
use crate::engine::{LaneSpec, Sampler};
use crate::policy::Policy;
use ask::DraftAsk;

/// Show after which layer each token is settled, and how well a part of the model drafts for the whole
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tokens to decode after the prompt and look at
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Leave at the first layer whose best token has this probability; repeatable [default: 0.5 0.8 0.95]
    #[arg(long = "confidence", value_name = "P", value_parser = share)]
    pub confidence: Vec<f32>,
    /// Layers that run in any case before it leaves: with tied embeddings the first ones are sure of the token that was fed
    /// [default: half of them]
    #[arg(long, value_name = "LAYERS")]
    pub from: Option<usize>,
    /// A part of the model as its draft; repeatable: exit=L (the first L layers), skip=N (without the N attention sublayers
    /// that turn the stream least), cosine=C (without those whose cosine is at least C), sublayers=1/5/7 (without these;
    /// attention of layer l is 2l, its MLP 2l + 1) [default: a few of each]
    #[arg(long = "draft", value_name = "DRAFT")]
    pub drafts: Vec<DraftAsk>,
    /// Tokens drafted before each look of the whole model
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32))]
    pub gamma: u32,
    /// 0 takes the most probable token; chances of acceptance are then those of temperature 1
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = non_negative)]
    pub temperature: f32,
    /// Seed of the draws
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
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
    let sampler = Sampler { temperature: args.temperature, seed: args.seed, ..Sampler::default() };
    let full = LaneSpec { policy: Policy::parse("full")?, sampler };
    let mut session = Session::open(&args.model, &args.model.options(vec![full]))?;
    let report = measure::measure(&mut session, &prompt, &args)?;
    match args.json {
        true => print_json(&report)?,
        false => print(&table::text(&report))?,
    }
    Ok(())
}
