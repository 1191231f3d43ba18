//! `attnscope trace`: what happens inside, written to a safetensors file for other programs.

mod collect;
mod depth;
mod layout;
mod lens;
mod output;

use std::path::PathBuf;

use clap::ValueEnum;
use miette::Result;

use super::args::{ModelArgs, PromptArgs, SamplingArgs};
use super::exit::{Io, Usage};
use super::output::print;
use super::prompt::Prompt;
use super::session::{Session, told};
use crate::engine::LaneSpec;
use crate::policy::Policy;
use layout::Layout;
use output::Output;

/// Write attention, residual stream, norms, logits and lens of a run to a safetensors file
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tokens to decode after the prompt; 0 = the prompt alone
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub steps: u32,
    /// Attention rows to write: none, of the last query, or full maps (every query)
    #[arg(long, value_enum, default_value_t)]
    pub attn: Rows,
    /// Tokens of the logit lens for each layer and position; 0 leaves it out
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub lens_k: u16,
    /// The file to write
    #[arg(long, short, value_name = "FILE.safetensors")]
    pub out: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub prompt: PromptArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Rows {
    None,
    #[default]
    Last,
    Full,
}

impl Rows {
    /// Q of `attn.{l}`.
    pub fn count(self, positions: usize) -> usize {
        match self {
            Rows::None => 0,
            Rows::Last => 1,
            Rows::Full => positions,
        }
    }
}

/// Rows of the prompt read in one pass: the residual stream of all points is copied for that many.
const CHUNK: usize = 128;

pub fn run(args: Args) -> Result<()> {
    if args.out.is_dir() {
        return Err(Usage::new(format!("{:?} is a folder", args.out), "give a file name to --out").into());
    }
    let prompt = Prompt::read(&args.prompt)?;
    let full = LaneSpec { policy: Policy::parse("full")?, sampler: args.sampling.sampler() };
    let mut options = args.model.options(vec![full]);
    options.chunk = CHUNK;
    if args.attn == Rows::Full {
        // Every query is needed at the end.
        options.queries_budget = u64::MAX;
    }
    let mut session = Session::open(&args.model, &options)?;
    let ids = prompt.encode(&session.model)?;
    session.check(&ids, args.steps)?;
    let config = session.core.config();
    let vocab = config.vocab;
    let lens_k = usize::from(args.lens_k).min(vocab);
    let depth = layout::Depth { sources: session.core.depth_sources().across(), mixed: session.core.mixes_depth() };
    let layout = Layout::new(config, depth, ids.len(), args.steps as usize, args.attn, lens_k);
    let sha256 = session.model.sha256().map_err(Io::while_("hash the model"))?;
    let metadata = [
        ("schema", layout::SCHEMA.to_owned()),
        ("model", session.info.id.clone()),
        ("model_sha256", sha256.to_owned()),
        ("prompt", prompt.text().unwrap_or_default().to_owned()),
        ("prompt_tokens", ids.len().to_string()),
        ("device", session.info.device.clone()),
        ("precision", session.info.precision.clone()),
        ("kv_type", session.info.kv_type.clone()),
        ("program", concat!("attnscope ", env!("CARGO_PKG_VERSION")).to_owned()),
    ];
    let mut output = Output::create(&args.out, &layout, &metadata)?;
    collect::collect(&mut session, &ids, &args, lens_k, &mut output)?;
    let size = output.finish()?;
    told();
    let file = crate::tui::text::line(&args.out.display().to_string());
    print(&format!("{file}: {} tensors, {}", layout.tensors.len(), indicatif::HumanBytes(size)))?;
    Ok(())
}
