//! Kept sets of NVIDIA kvpress on a prompt of two real models (tests/golden): equal but for exact ties.

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::Policy;
use super::part::Moment;
use super::testing::{Layer, decide};

/// What kvpress was asked to do.
#[derive(Deserialize)]
struct Golden {
    n_tokens: usize,
    /// Layers of the model that the file holds.
    layers: Vec<usize>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    press: String,
    ratio: f64,
    params: Params,
    n_kept: serde_json::Value,
}

#[derive(Deserialize)]
struct Params {
    window_size: Option<usize>,
    kernel_size: Option<usize>,
    n_sink: Option<usize>,
    lag_size: Option<usize>,
}

impl Run {
    /// The same run in our words; `None` for presses that this tool does not have.
    fn spec(&self, model: &str) -> Option<String> {
        let kept = 100.0 * (1.0 - self.ratio);
        Some(match (self.press.as_str(), &self.params) {
            ("knorm" | "tova" | "keydiff" | "cur" | "leverage", _) => format!("{}@{kept}%", self.press),
            ("observed_attention", _) => format!("observed@{kept}%"),
            ("qfilter", _) => format!("qfilter@{kept}%:file={}", path(model, "policies.safetensors").display()),
            ("lagkv" | "lagkv16", Params { n_sink: Some(sinks), lag_size: Some(lag), .. }) => {
                format!("lagkv@{kept}%:sinks={sinks},lag={lag}")
            }
            ("finch", Params { window_size: Some(window), .. }) => format!("finch@{kept}%:window={window}"),
            ("streaming_llm", Params { n_sink: Some(sinks), .. }) => format!("streaming@{kept}%:sinks={sinks}"),
            ("snapkv", Params { window_size: Some(window), kernel_size: Some(kernel), .. }) => {
                format!("snapkv@{kept}%:window={window},kernel={kernel}")
            }
            _ => return None,
        })
    }
}

fn path(model: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model).join(name)
}

pub(super) fn file(model: &str, name: &str) -> Vec<u8> {
    let path = path(model, name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// One item of the two leading dimensions of an f32 tensor.
fn item(file: &SafeTensors, tensor: &str, at: [usize; 2]) -> Vec<f32> {
    let view = file.tensor(tensor).unwrap();
    assert_eq!(view.dtype(), Dtype::F32);
    let shape = view.shape();
    let size: usize = shape[2..].iter().product();
    let from = (at[0] * shape[1] + at[1]) * size * 4;
    view.data()[from..from + size * 4].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

pub(super) fn layer(file: &SafeTensors, layer: usize, prompt: usize, rope_base: f32) -> Layer {
    let heads = |tensor: &str| {
        let count = file.tensor(tensor).unwrap().shape()[1];
        (0..count).map(|head| item(file, tensor, [layer, head])).collect::<Vec<_>>()
    };
    let dim = file.tensor("kv.k_post").unwrap().shape()[3];
    let turns = (0..dim / 2).map(|i| rope_base.powf(-2.0 * i as f32 / dim as f32)).collect();
    Layer { turns, ..Layer::new(heads("attn.full"), heads("kv.k_post"), heads("kv.v"), dim, prompt) }
}

/// Scores this close (relative) are equal but for rounding: the same token twice has the same key norm in layer 0.
const TIE: f32 = 5e-7;

/// Pairs of tied entries of which kvpress kept the other one.
fn swapped(model: &str, rope_base: f32) -> usize {
    let golden: Golden = serde_json::from_slice(&file(model, "policies.json")).unwrap();
    let tensors = file(model, "policies.safetensors");
    let tensors = SafeTensors::deserialize(&tensors).unwrap();
    let n = golden.n_tokens;
    let layers: Vec<Layer> = (0..golden.layers.len()).map(|i| layer(&tensors, i, n, rope_base)).collect();
    assert!(layers.len() >= 2);
    let (mut compared, mut swapped) = (0, 0);
    for run in &golden.runs {
        let Some(spec) = run.spec(model) else { continue };
        let policy = Policy::parse(&spec).unwrap();
        assert_eq!(policy.budget(0, n), run.n_kept.as_u64().map(|n| n as usize), "{spec}");
        let mask = tensors.tensor(&format!("kept.{}@{}", run.press, run.ratio)).unwrap();
        let bytes = n.div_ceil(8);
        for (i, layer) in layers.iter().enumerate() {
            let at = Moment { step: 0, prompt: n, layers: layers.len(), layer: i };
            let decision = decide(&policy, at, layer).unwrap();
            for (kv_head, ours) in decision.kept.iter().enumerate() {
                let theirs = &mask.data()[(i * decision.kept.len() + kv_head) * bytes..][..bytes];
                let theirs = |t: u32| theirs[t as usize / 8] >> (t % 8) & 1 == 1;
                let score = |t: u32| decision.scores.values[kv_head][t as usize];
                let only_ours = ours.iter().copied().filter(|&t| !theirs(t)).map(score);
                let only_theirs = (0..n as u32).filter(|t| theirs(*t) && !ours.contains(t)).map(score);
                for (ours, theirs) in only_ours.zip(only_theirs) {
                    assert!((ours - theirs).abs() <= TIE * ours.abs(), "{model} {spec} layer {i}: {ours} {theirs}");
                    swapped += 1;
                }
            }
        }
        compared += 1;
    }
    assert_eq!(compared, 12 * 3, "twelve presses at three ratios");
    swapped
}

#[test]
fn smollm2() {
    assert!(swapped("smollm2", 1e5) <= 4);
}

/// Only the full-attention layers of Gemma are compressed.
#[test]
fn gemma3() {
    assert_eq!(swapped("gemma3", 1e6), 0);
}
