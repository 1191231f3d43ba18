//! Options that several commands share.

use std::path::PathBuf;

use clap::Args;

use crate::cache::KvType;
use crate::engine::{Core, Device, EngineError, LaneSpec, Precision, REGRET_ABOVE, Sampler};
use crate::policy::{Policy, SpecError};
use crate::probe::prompt_span::SpanAsk;

use super::exit::Usage;
use super::prompt::Prompt;

/// Which model, where it runs, and in which numbers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Catalog name (see `attnscope models`), FILE.gguf, a Hugging Face folder, or hf:owner/name
    #[arg(long, short, value_name = "MODEL", default_value_t = crate::model::catalog::default_name().to_owned())]
    pub model: String,
    /// Where the model runs: auto, cpu or cuda[:N]
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: Device,
    /// native: weights as stored, fast; f32: everything in float32, the reference
    #[arg(long, default_value = "native", value_name = "native|f32", value_parser = precision)]
    pub precision: Precision,
    /// Threads [default: the physical cores that this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Number type of the KV cache: f32, f16 or bf16 [default: f16, f32 with --precision f32]
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<KvType>,
    /// Memory for the kept queries, from which attention maps are computed again
    #[arg(long, default_value = "512MiB", value_name = "BYTES", value_parser = bytes)]
    pub queries_budget: u64,
    /// Depth queries that were learned on this model (safetensors): what a sublayer reads becomes a weighted mix of all
    /// before it
    #[arg(long, value_name = "FILE")]
    pub depth: Option<PathBuf>,
}

/// What the model reads.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Prompt")]
pub struct PromptArgs {
    /// The prompt itself
    #[arg(long, short, value_name = "TEXT", group = "source")]
    pub prompt: Option<String>,
    /// Read the prompt from a file; - is standard input
    #[arg(long, value_name = "FILE", group = "source")]
    pub prompt_file: Option<PathBuf>,
    /// One of the built-in prompts (an unknown name lists them)
    #[arg(long, value_name = "NAME", group = "source")]
    pub sample: Option<String>,
    /// Token ids, separated by commas; nothing is put before them
    #[arg(long, value_name = "1,2,3", group = "source", value_parser = ids)]
    pub ids: Option<Ids>,
    /// Put the prompt into the model's chat template, as the user's turn
    #[arg(long, conflicts_with = "ids")]
    pub chat: bool,
}

/// What runs beside lane 0, and how the next token is drawn.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Lanes and sampling")]
pub struct LaneArgs {
    /// A KV-cache policy to run beside lane 0, which keeps everything; repeatable (see `attnscope policies`)
    #[arg(long = "lane", value_name = "SPEC")]
    pub lanes: Vec<String>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// How lanes are judged.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Judging")]
pub struct JudgeArgs {
    /// A part of the prompt to follow: NAME=FROM..TO in token positions, NAME=TEXT, or NAME=TEXT..TEXT (from where the
    /// first begins to where the second does); repeatable ; beside the roles
    /// of a chat, or document and question
    #[arg(long = "span", value_name = "NAME=PLACE")]
    pub spans: Vec<SpanAsk>,
    /// Report evicted entries that lane 0 gives more than this probability later
    #[arg(long, default_value_t = REGRET_ABOVE, value_name = "P", value_parser = share)]
    pub regret_above: f32,
}

#[derive(Debug, Clone, Default, Args)]
pub struct SamplingArgs {
    /// 0 takes the most probable token
    #[arg(long, default_value_t = 0.0, value_name = "T", value_parser = non_negative)]
    pub temperature: f32,
    /// Draw from the K most probable tokens; 0 = all
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub top_k: usize,
    /// Draw from the smallest set of tokens that holds this probability
    #[arg(long, default_value_t = 1.0, value_name = "P", value_parser = share)]
    pub top_p: f32,
    /// Cut tokens below this share of the largest probability
    #[arg(long, default_value_t = 0.0, value_name = "P", value_parser = share)]
    pub min_p: f32,
    /// Seed of the draws
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

/// A list of token ids, as one value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids(pub Vec<u32>);

impl ModelArgs {
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(physical_cores, usize::from)
    }
}

impl LaneArgs {
    /// Lane 0 and what was asked for; `full` names lane 0, which exists anyway.
    pub fn specs(&self) -> Result<Vec<LaneSpec>, SpecError> {
        let sampler = self.sampling.sampler();
        let mut policies = vec![Policy::parse("full")?];
        for text in &self.lanes {
            let policy = Policy::parse(text)?;
            if policy.spec() != policies[0].spec() {
                policies.push(policy);
            }
        }
        Ok(policies.into_iter().map(|policy| LaneSpec { policy, sampler: sampler.clone() }).collect())
    }
}

impl JudgeArgs {
    /// Tells the engine, before it reads `ids`, the tokens of `prompt`; fails with a span that is not in them. What a
    /// sample's answer depends on is a span, too.
    pub fn tell(&self, core: &mut Core, prompt: &Prompt, ids: &[u32]) -> Result<(), EngineError> {
        core.regret_above = self.regret_above;
        core.set_spans(self.spans.clone());
        core.check_spans(ids)?;
        let needle = prompt.sample().and_then(|sample| sample.header.needle.as_ref());
        let needle = needle.map(|words| SpanAsk::words("needle", words));
        core.set_spans(self.spans.iter().cloned().chain(needle).collect());
        Ok(())
    }
}

impl SamplingArgs {
    pub fn sampler(&self) -> Sampler {
        let (temperature, top_k, top_p, min_p) = (self.temperature, self.top_k, self.top_p, self.min_p);
        Sampler { temperature, top_k, top_p, min_p, seed: self.seed }
    }
}

/// Two threads on one core only wait for each other here: the products keep a core's units busy alone.
pub fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, |n| n.get());
    num_cpus::get_physical().clamp(1, allowed)
}

fn precision(text: &str) -> Result<Precision, String> {
    [Precision::Native, Precision::F32].into_iter().find(|p| p.name() == text).ok_or_else(|| "native or f32".into())
}

fn ids(text: &str) -> Result<Ids, String> {
    if text.trim().is_empty() {
        return Ok(Ids(Vec::new()));
    }
    let one = |id: &str| id.trim().parse::<u32>().map_err(|_| format!("{:?} is no token id", id.trim()));
    text.split(',').map(one).collect::<Result<_, _>>().map(Ids)
}

fn float(text: &str) -> Result<f32, String> {
    text.parse::<f32>().ok().filter(|x| x.is_finite()).ok_or_else(|| "a number is needed".into())
}

pub fn non_negative(text: &str) -> Result<f32, String> {
    float(text).and_then(|x| if x >= 0.0 { Ok(x) } else { Err("0 or more".into()) })
}

/// A number from 0 to 1.
pub fn share(text: &str) -> Result<f32, String> {
    float(text).and_then(|x| if (0.0..=1.0).contains(&x) { Ok(x) } else { Err("from 0 to 1".into()) })
}

/// `512MiB`, `2G`, `100000`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err("a number with K, M, G (KiB, MiB, GiB), kB, MB or GB".into()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    bytes.ok_or_else(|| "a number of bytes such as 512MiB".into())
}

/// The prompt's text or ids are missing or contradict the model.
pub fn no_tokenizer() -> Usage {
    Usage::new("this model has no tokenizer, so it cannot read text", "give token ids with --ids 1,2,3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_sizes_and_ids() {
        assert_eq!("cuda:3".parse(), Ok(Device::Cuda(3)));
        assert!("cuda:".parse::<Device>().is_err() && "gpu".parse::<Device>().is_err());
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("3 GB"), Ok(3_000_000_000));
        assert!(bytes("lots").is_err() && bytes("99999999999G").is_err());
        assert_eq!(ids("1, 2,3"), Ok(Ids(vec![1, 2, 3])));
        assert_eq!(ids(""), Ok(Ids(vec![])));
        assert!(ids("1,,2").is_err() && ids("-1").is_err());
        assert!(share("1.5").is_err() && non_negative("nan").is_err());
    }

    #[test]
    fn lane_zero_is_there_once() {
        let lanes = |lanes: &[&str]| LaneArgs {
            lanes: lanes.iter().map(|s| s.to_string()).collect(),
            sampling: SamplingArgs { top_p: 1.0, ..SamplingArgs::default() },
        };
        assert_eq!(lanes(&[]).specs().unwrap().len(), 1);
        assert_eq!(lanes(&["full", "knorm@50%"]).specs().unwrap().len(), 2);
        assert!(lanes(&["nonsense"]).specs().is_err());
    }
}
