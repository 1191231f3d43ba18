//! `attnscope bench`: how fast this machine runs a model here, what the probes cost, and how far the fast path is
//! from the reference; or how fast a card's kernels are alone.

mod drift;
mod kernels;
mod machine;
mod ops;
mod report;
mod serve;
mod speed;

use miette::Result;

pub use speed::NO_PROBES;

use super::args::ModelArgs;
use super::output::{print, print_json};
use crate::engine::LogitRows;

/// Four that evict at every step.
const LANES: [&str; 4] = ["streaming@50%", "snapkv@50%", "h2o@50%", "tova@50%"];

/// Measure load, prefill, decode, the cost of probes and lanes, memory, and the drift of the fast path; or kernels alone
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub prompt_tokens: u32,
    /// Tokens decoded after it
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub steps: u32,
    /// Times that everything is measured; medians are reported
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeats: u32,
    /// A lane measured beside lane 0; repeatable
    #[arg(long = "lane", value_name = "SPEC", default_values = LANES)]
    pub lanes: Vec<String>,
    /// Leave out the comparison with --precision f32
    #[arg(long)]
    pub no_drift: bool,
    /// Measure kernels alone on a card (--device, else the first one) instead of a model
    #[arg(long, conflicts_with = "serve")]
    pub kernels: bool,
    /// With sizes that a machine without a card can bear: to try the whole, not for its figures
    #[arg(long, hide = true, requires = "kernels")]
    pub tiny: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Obey `pp N`, `tg N` and `probes on|off` on standard input; answer with seconds (for benches/peers.py)
    #[arg(long, hide = true)]
    pub serve: bool,
    /// Logits of a step: keep them, drop them where nothing needs them (one lane, temperature 0 or 1), or drop them where
    /// the device draws without them (auto)
    #[arg(long, default_value = "auto", value_name = "auto|keep|drop")]
    pub logits: LogitRows,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn run(args: Args) -> Result<()> {
    if args.serve {
        return serve::run(&args);
    }
    if args.kernels {
        return kernels::run(&args);
    }
    let report = speed::measure(&args)?;
    match args.json {
        true => print_json(&report)?,
        false => print(&report::text(&report))?,
    }
    Ok(())
}
