//! `attnscope massive`: massive activations and attention sinks by their published definitions, and what the model loses
//! when the former are set to zero or to their mean.

mod measure;
mod report;
mod table;

use std::path::PathBuf;

use miette::Result;

use super::args::ModelArgs;
use super::output::{print, print_json};
use super::session::Session;
use crate::engine::{LaneSpec, Sampler};
use crate::policy::Policy;

/// Find massive activations and attention sinks by their published definitions; set the former to zero and to their mean
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Texts that are read, spread evenly over the source; they overlap where it is short
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub texts: u32,
    /// Tokens of each; sink rates are comparable at 64
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=128))]
    pub length: u32,
    /// Source of the texts [default: the prose and prompts that come along]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn run(args: Args) -> Result<()> {
    let full = LaneSpec { policy: Policy::parse("full")?, sampler: Sampler::default() };
    let mut session = Session::open(&args.model, &args.model.options(vec![full]))?;
    let report = measure::measure(&mut session, &args)?;
    match args.json {
        true => print_json(&report)?,
        false => print(&table::text(&report))?,
    }
    Ok(())
}
