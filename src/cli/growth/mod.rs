//! `attnscope growth`: how the residual stream grows over depth, models beside each other.

mod measure;
mod svg;
mod table;

use std::path::PathBuf;

use miette::Result;

use super::args::{ModelArgs, PromptArgs};
use super::exit::Io;
use super::output::{print, print_json};
use super::prompt::Prompt;
use super::session::Session;
use crate::engine::{LaneSpec, Sampler};
use crate::policy::Policy;

/// Measure how the residual stream grows over depth, several models beside each other, and what their sublayers read
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Another model to read the same prompt, with its own tokenizer; repeatable
    #[arg(long, value_name = "MODEL")]
    pub beside: Vec<String>,
    /// Write a picture
    #[arg(long, value_name = "FILE.svg")]
    pub svg: Option<PathBuf>,
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
    let mut all = Vec::new();
    for name in [&args.model.model].into_iter().chain(&args.beside) {
        // Learned depth belongs to the first one.
        let depth = if all.is_empty() { args.model.depth.clone() } else { None };
        let model = ModelArgs { model: name.clone(), depth, ..args.model.clone() };
        let full = LaneSpec { policy: Policy::parse("full")?, sampler: Sampler::default() };
        let mut session = Session::open(&model, &model.options(vec![full]))?;
        all.push(measure::measure(&mut session, &prompt)?);
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::picture(&all)).map_err(Io::while_(format!("write {path:?}")))?;
    }
    match args.json {
        true => print_json(&all)?,
        false => print(&table::text(&all))?,
    }
    Ok(())
}
