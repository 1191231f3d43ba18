//! HeadKV: heads that retrieve get more (Fu et al. 2024, arXiv 2410.19258).
//!
//! w entries per kv head are forced by the scorer (SnapKV's window), base = budget − w. Every kv head of the model gets
//! base − base/β, and its importance (all add up to 1) times the pool of base/β · (number of kv heads); fractions go to
//! the largest remainders, and what a head does not hold to the others. The importance of a kv head is the mean of its
//! query heads'.
//!
//! Importances come from a `file`: JSON as the authors publish it, {"layer-head": score or list of scores, …}, or
//! safetensors with an f32 tensor `head_importance` [layers, heads]; heads are the query heads or the kv heads of the
//! model. `file=auto` calibrates after the prompt with the model's own tokenizer (see `needle`): `runs` more passes over
//! about `length` tokens. `importance=retrieval`: how often a head looks at the token of the needle that comes next;
//! `reasoning` (HeadKV-R2): attention on the needle among as many best entries as the needle has tokens.
//!
//! β = 1.2 (the authors try 1.005 to 10): a higher β makes the pool smaller, contrary to their README; theirs divides
//! whole numbers. Their answer steps are generated, and R2 counts those that succeed; here the answer is given, so that
//! a small model that fails still shows which heads look. Scorer: SnapKV, w = 32, kernel 7, max.

use std::path::{Path, PathBuf};

use linkme::distributed_slice;

use super::{acting, divide_heads};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Auto, Choice, Count, File, Key, Real};
use crate::policy::needle::{Measure, Needle};
use crate::policy::part::{Allocator, Divide, Level, Part, Scores, Sizes};
use crate::policy::registry::REGISTERED;
use crate::policy::spec::PartSpec;
use crate::policy::tensor_file;

static BETA: Key<Real> = Key::new("beta", "1/beta of the budget is shared by importance", Real(1.0, 1000.0), 1.2);
static FILE: Key<Auto<File>> =
    Key::new("file", "JSON or safetensors file with importances", Auto(File, "calibrated with a needle"), None);
static IMPORTANCE: Key<Choice<Measure>> = Key::new(
    "importance",
    "what the calibration measures",
    Choice(&[("retrieval", Measure::Retrieval), ("reasoning", Measure::Reasoning)]),
    Measure::Retrieval,
);
static RUNS: Key<Count> = Key::new("runs", "needles of the calibration, at even depths", Count(1, 1000), 3);
static LENGTH: Key<Count> = Key::new("length", "tokens around each needle", Count(0, 1_000_000), 256);
static SEED: Key<Count> = Key::new("seed", "which needles", Count(0, u64::MAX), 0).spelled_out();

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "headkv",
    family: Family::Budget,
    idea: "heads that find a needle get more (calibrates with extra passes, or reads a file)",
    paper: Some(Paper {
        title: "Not All Heads Matter: A Head-Level KV Cache Compression Method with Integrated Retrieval and Reasoning",
        arxiv: "2410.19258",
    }),
    budget: None,
    keys: &[&BETA, &FILE, &IMPORTANCE, &RUNS, &LENGTH, &SEED],
    build: |spec: &PartSpec| {
        let beta = spec.get(&BETA);
        let source = match spec.get(&FILE) {
            None => Source::Needle(Needle {
                measure: spec.get(&IMPORTANCE),
                runs: spec.get(&RUNS) as usize,
                length: spec.get(&LENGTH) as usize,
                seed: spec.get(&SEED),
            }),
            Some(path) => match read(&path) {
                Ok(heads) => Source::File(path, heads),
                Err(why) => return Part::Missing(format!("cannot use `{}`: {why}", path.display())),
            },
        };
        Part::allocator(HeadKv { beta, source })
    },
};

struct HeadKv {
    beta: f64,
    source: Source,
}

enum Source {
    /// [layers][heads]
    File(PathBuf, Vec<Vec<f32>>),
    Needle(Needle),
}

impl Allocator for HeadKv {
    fn level(&self) -> Level {
        Level::Layers
    }

    fn decodes(&self) -> bool {
        matches!(self.source, Source::File(..))
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        let Sizes { layers, kv_heads, .. } = model;
        let Source::File(path, heads) = &self.source else { return Ok(()) };
        let of_file = (heads.len(), heads.first().map_or(0, Vec::len));
        match of_file.0 == layers && of_file.1.is_multiple_of(kv_heads) {
            true => Ok(()),
            false => Err(format!(
                "{} has importances for {} layers with {} heads each, the model has {layers} with {kv_heads} kv heads",
                path.display(),
                of_file.0,
                of_file.1
            )),
        }
    }

    fn allocate(&self, ask: Divide<'_>, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]) {
        let heads = match &self.source {
            Source::File(_, heads) => Some(heads.clone()),
            Source::Needle(needle) => needle.importance(ask.lane, ask.at.layers),
        };
        // a context that the needle does not fit into tells nothing: all stay alike
        let Some(heads) = heads.filter(|heads| heads.len() == ask.at.layers) else { return };
        let of_kv_heads = acting(budgets).flat_map(|layer| grouped(&heads[layer], budgets[layer].len()));
        let importance: Vec<f64> = of_kv_heads.collect();
        let counts = scores.iter().flatten().flat_map(|scores| &scores.forced);
        let forced = counts.map(|forced| forced.iter().filter(|&&forced| forced).count()).max().unwrap_or(0);
        divide_heads(&self.weights(&importance), forced, scores, budgets);
    }
}

impl HeadKv {
    /// Budgets of the kv heads, relative to base.
    fn weights(&self, importance: &[f64]) -> Vec<f64> {
        let sum: f64 = importance.iter().sum();
        let share = |x: f64| if sum > 0.0 { x / sum } else { 1.0 / importance.len() as f64 };
        let pool = importance.len() as f64 / self.beta;
        importance.iter().map(|&x| share(x) * pool + 1.0 - 1.0 / self.beta).collect()
    }
}

/// Mean over the heads of each of `kv_heads` groups; zeros where the layer was not measured.
fn grouped(heads: &[f32], kv_heads: usize) -> Vec<f64> {
    let group = heads.len() / kv_heads;
    let mean = |heads: &[f32]| heads.iter().map(|&x| x as f64).sum::<f64>() / heads.len() as f64;
    match group {
        0 => vec![0.0; kv_heads],
        _ => heads.chunks_exact(group).map(mean).collect(),
    }
}

/// Importances [layers][heads] of a file, none below 0.
fn read(path: &Path) -> Result<Vec<Vec<f32>>, String> {
    let heads = match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        true => of_json(&tensor_file::bytes(path)?)?,
        false => {
            let ([_, heads], all) = tensor_file::read(path, "head_importance", "[layers, heads]")?;
            all.chunks_exact(heads).map(<[f32]>::to_vec).collect()
        }
    };
    let negative = heads.iter().flatten().any(|&x: &f32| !x.is_finite() || x < 0.0);
    if negative { Err("an importance is below 0 or not finite".into()) } else { Ok(heads) }
}

fn of_json(bytes: &[u8]) -> Result<Vec<Vec<f32>>, String> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Score {
        One(f32),
        Several(Vec<f32>),
    }
    let all: std::collections::BTreeMap<String, Score> =
        serde_json::from_slice(bytes).map_err(|_| "not a JSON object of `\"layer-head\": score`".to_owned())?;
    let mut heads = Vec::new();
    for (name, score) in &all {
        let number = |text: &str| text.parse::<usize>().ok();
        let place = name.split_once('-').and_then(|(layer, head)| Some((number(layer)?, number(head)?)));
        let Some(place) = place else { return Err("a name is not `layer-head`".into()) };
        heads.push((
            place,
            match score {
                Score::One(score) => *score,
                Score::Several(scores) => scores.iter().sum::<f32>() / scores.len().max(1) as f32,
            },
        ));
    }
    heads.sort_by_key(|&(place, _)| place);
    let width = heads.iter().take_while(|((layer, _), _)| *layer == 0).count().max(1);
    let complete = heads.iter().enumerate().all(|(i, &(place, _))| place == (i / width, i % width));
    if heads.is_empty() || !complete || heads.len() % width != 0 {
        return Err("it does not name every head of every layer".into());
    }
    Ok(heads.chunks(width).map(|layer| layer.iter().map(|&(_, score)| score).collect()).collect())
}

#[cfg(test)]
#[path = "headkv_tests.rs"]
mod tests;
