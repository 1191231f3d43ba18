//! Every dialect of Attention Residuals on a small random model, against a decoder in f64 that keeps lists of sources as
//! the public code does (wdlctc/open-attention-residuals, wdlctc/delta-attention-residuals-code; Kimi K3's names).

use std::collections::BTreeMap;
use std::path::Path;

use attnscope::engine::{Pause, Precision};
use attnscope::model::source::Model;
use rand::{Rng, SeedableRng, rngs::StdRng};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde_json::json;

use crate::golden::core;

const D: usize = 16;
const HEADS: usize = 2;
const FF: usize = 24;
const LAYERS: usize = 5;
const VOCAB: usize = 40;
const EPS: f64 = 1e-5;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn random(rng: &mut StdRng, shape: &[usize], by: f32) -> (Vec<usize>, Vec<f32>) {
    (shape.to_vec(), (0..shape.iter().product()).map(|_| rng.random_range(-by..by)).collect())
}

/// What there is beside a llama.
struct Dialect {
    name: &'static str,
    config: serde_json::Value,
    /// Before `proj.weight`: attention, MLP, output.
    names: [&'static str; 3],
    output: bool,
    bias: bool,
    null: bool,
    gate: Option<&'static str>,
}

fn weights(dialect: &Dialect) -> Tensors {
    let mut rng = StdRng::seed_from_u64(11);
    let mut all = Tensors::new();
    let norm = |rng: &mut StdRng| (vec![D], (0..D).map(|_| rng.random_range(0.6..1.4)).collect::<Vec<f32>>());
    all.insert("model.embed_tokens.weight".into(), random(&mut rng, &[VOCAB, D], 1.0));
    all.insert("model.norm.weight".into(), norm(&mut rng));
    let query = |all: &mut Tensors, rng: &mut StdRng, prefix: String| {
        all.insert(format!("{prefix}proj.weight"), random(rng, &[1, D], 0.6));
        all.insert(format!("{prefix}norm.weight"), norm(rng));
    };
    for l in 0..LAYERS {
        let at = format!("model.layers.{l}.");
        for (name, shape) in [
            ("self_attn.q_proj", [D, D]),
            ("self_attn.k_proj", [D, D]),
            ("self_attn.v_proj", [D, D]),
            ("self_attn.o_proj", [D, D]),
            ("mlp.gate_proj", [FF, D]),
            ("mlp.up_proj", [FF, D]),
            ("mlp.down_proj", [D, FF]),
        ] {
            all.insert(format!("{at}{name}.weight"), random(&mut rng, &shape, 0.4));
        }
        all.insert(format!("{at}input_layernorm.weight"), norm(&mut rng));
        all.insert(format!("{at}post_attention_layernorm.weight"), norm(&mut rng));
        for (i, part) in ["attn", "mlp"].into_iter().enumerate() {
            query(&mut all, &mut rng, format!("{at}{}", dialect.names[i]));
            if dialect.bias {
                all.insert(format!("{at}{part}_res_bias"), random(&mut rng, &[1], 2.0));
            }
            if dialect.null {
                all.insert(format!("{at}{part}_null_source"), random(&mut rng, &[D], 0.5));
            }
            dialect.gate.iter().for_each(|gate| {
                all.insert(format!("{at}{part}_res_{gate}"), random(&mut rng, &[1], 1.0));
            });
        }
    }
    if dialect.output {
        query(&mut all, &mut rng, format!("model.{}", dialect.names[2]));
    }
    all
}

fn write(dialect: &Dialect, all: &Tensors, to: &Path) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = all
        .iter()
        .map(|(name, (shape, values))| {
            (name.clone(), shape.clone(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
        })
        .collect();
    let views =
        bytes.iter().map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
    let mut config = json!({
        "model_type": "llama", "vocab_size": VOCAB, "hidden_size": D, "intermediate_size": FF, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "max_position_embeddings": 64, "rms_norm_eps": EPS,
        "rope_theta": 10000.0, "tie_word_embeddings": true
    });
    let own = dialect.config.as_object().unwrap().clone();
    config.as_object_mut().unwrap().extend(own);
    std::fs::write(to.join("config.json"), config.to_string()).unwrap();
}

/// A row for each token.
type Rows = Vec<Vec<f64>>;

struct Reference<'a> {
    all: &'a Tensors,
    dialect: &'a Dialect,
}

fn rms(x: &[f64]) -> f64 {
    (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + EPS).sqrt()
}

fn plus(a: &Rows, b: &Rows, by: f64) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(x, y)| x + by * y).collect()).collect()
}

impl Reference<'_> {
    fn get(&self, name: &str) -> Vec<f64> {
        self.all[name].1.iter().map(|&x| x as f64).collect()
    }

    fn normed(&self, x: &Rows, name: &str) -> Rows {
        let w = self.get(name);
        x.iter()
            .map(|x| {
                let r = rms(x);
                x.iter().zip(&w).map(|(x, w)| x / r * w).collect()
            })
            .collect()
    }

    fn linear(&self, x: &Rows, name: &str) -> Rows {
        let w = self.get(name);
        let cols = self.all[name].0[1];
        x.iter().map(|x| w.chunks(cols).map(|w| w.iter().zip(x).map(|(a, b)| a * b).sum()).collect()).collect()
    }

    fn attention(&self, x: &Rows, l: usize) -> Rows {
        let at = format!("model.layers.{l}.self_attn.");
        let [q, k, v] = ["q", "k", "v"].map(|p| self.linear(x, &format!("{at}{p}_proj.weight")));
        let d = D / HEADS;
        let turned = |x: &[f64], position: usize, head: usize| -> Vec<f64> {
            let x = &x[head * d..(head + 1) * d];
            (0..d)
                .map(|c| {
                    let i = c % (d / 2);
                    let angle = position as f64 * 10000f64.powf(-(2.0 * i as f64) / d as f64);
                    let other = if c < d / 2 { -x[c + d / 2] } else { x[c - d / 2] };
                    x[c] * angle.cos() + other * angle.sin()
                })
                .collect()
        };
        let mut out = vec![vec![0.0; D]; x.len()];
        for head in 0..HEADS {
            for i in 0..x.len() {
                let query = turned(&q[i], i, head);
                let score = |j: usize| {
                    query.iter().zip(turned(&k[j], j, head)).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt()
                };
                let scores: Vec<f64> = (0..=i).map(score).collect();
                let top = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                for (j, s) in scores.iter().enumerate() {
                    for c in 0..d {
                        out[i][head * d + c] += (s - top).exp() / sum * v[j][head * d + c];
                    }
                }
            }
        }
        self.linear(&out, &format!("{at}o_proj.weight"))
    }

    fn mlp(&self, x: &Rows, l: usize) -> Rows {
        let at = format!("model.layers.{l}.mlp.");
        let [gate, up] = ["gate", "up"].map(|p| self.linear(x, &format!("{at}{p}_proj.weight")));
        let act = |g: &f64| g / (1.0 + (-g).exp());
        let inner = gate.iter().zip(&up).map(|(g, u)| g.iter().zip(u).map(|(g, u)| act(g) * u).collect()).collect();
        self.linear(&inner, &format!("{at}down_proj.weight"))
    }

    /// Σ α v over the sources of each row.
    fn mix(&self, sources: &[Rows], prefix: &str, bias: f64) -> Rows {
        let (w, norm) = (self.get(&format!("{prefix}proj.weight")), self.get(&format!("{prefix}norm.weight")));
        let row = |r: usize| {
            let mut s: Vec<f64> = sources
                .iter()
                .map(|v| v[r].iter().zip(w.iter().zip(&norm)).map(|(x, (w, n))| x * w * n).sum::<f64>() / rms(&v[r]))
                .collect();
            *s.last_mut().unwrap() += bias;
            let sum: f64 = s.iter().map(|s| s.exp()).sum();
            (0..D).map(|c| sources.iter().zip(&s).map(|(v, s)| s.exp() / sum * v[r][c]).sum()).collect()
        };
        (0..sources[0].len()).map(row).collect()
    }

    fn logits(&self, ids: &[u32]) -> Vec<f64> {
        let table = self.get("model.embed_tokens.weight");
        let embedded: Rows = ids.iter().map(|&id| table[id as usize * D..][..D].to_vec()).collect();
        let (mode, per_block) = (self.dialect.name, 2);
        let faithful = matches!(mode, "faithful" | "full" | "k3");
        let (mut blocks, mut partial): (Vec<Rows>, Option<Rows>) = (Vec::new(), Some(embedded.clone()));
        if mode == "cumulative" {
            blocks.push(embedded);
        }
        for l in 0..LAYERS {
            for (i, part) in ["attn", "mlp"].into_iter().enumerate() {
                let prefix = format!("model.layers.{l}.{}", self.dialect.names[i]);
                let scalar = |name: &str| self.get(&format!("model.layers.{l}.{part}_res_{name}"))[0];
                let now = partial.clone().unwrap();
                let mut sources = blocks.clone();
                if self.dialect.null {
                    let null = self.get(&format!("model.layers.{l}.{part}_null_source"));
                    sources.insert(0, vec![null; ids.len()]);
                }
                let h = match mode {
                    "delta" | "delta_block" if sources.is_empty() => now.clone(),
                    "delta" | "delta_block" => plus(&now, &self.mix(&sources, &prefix, 0.0), 1.0),
                    _ => {
                        sources.push(now.clone());
                        self.mix(&sources, &prefix, if self.dialect.bias { scalar("bias") } else { 0.0 })
                    }
                };
                let gate = self.dialect.gate.map(|name| match name {
                    "gate_logit" => 1.0 / (1.0 + (-scalar(name)).exp()),
                    _ => scalar(name),
                });
                let h = gate.map_or(h.clone(), |g| plus(&plus(&now, &now, -g), &h, g));
                let (edge, full) = (i == 0 && l % per_block == 0, mode == "full");
                if faithful && (edge || full) {
                    blocks.push(partial.take().unwrap());
                }
                let norm = ["input_layernorm", "post_attention_layernorm"][i];
                let x = self.normed(&h, &format!("model.layers.{l}.{norm}.weight"));
                let out = if i == 0 { self.attention(&x, l) } else { self.mlp(&x, l) };
                if mode == "delta_block" && edge {
                    blocks.push(blocks.last().map_or(now.clone(), |last| plus(&now, last, -1.0)));
                }
                if mode == "delta" {
                    if blocks.is_empty() {
                        blocks.push(now.clone());
                    }
                    blocks.push(out.clone());
                }
                partial = Some(partial.map_or(out.clone(), |p| plus(&p, &out, 1.0)));
                if mode == "cumulative" && i == 1 && (l + 1) % per_block == 0 {
                    blocks.push(partial.clone().unwrap());
                }
            }
        }
        let mut h = partial.unwrap();
        if self.dialect.output {
            blocks.push(h);
            h = self.mix(&blocks, &format!("model.{}", self.dialect.names[2]), 0.0);
        }
        let normed = self.normed(&h, "model.norm.weight");
        let last = normed.last().unwrap();
        table.chunks(D).map(|w| w.iter().zip(last).map(|(a, b)| a * b).sum()).collect()
    }
}

fn agrees(dialect: Dialect, told: &str) {
    let all = weights(&dialect);
    let folder = tempfile::tempdir().unwrap();
    write(&dialect, &all, folder.path());
    let model = Model::open(folder.path()).unwrap();
    let described = model.weights.residual.mixing().unwrap().describe();
    assert!(described.contains(told), "{described}, not {told}");
    let ids = [3, 17, 8, 30, 3, 22, 1];
    let mut core = core(&model, Precision::F32, &["full"]);
    core.read_prompt(&ids[..5], |_, _| Pause::Continue).unwrap();
    for &id in &ids[5..] {
        core.force(0, id).unwrap();
        let frame = core.step().unwrap();
        let depth = frame.lanes[0].depth.as_ref().unwrap();
        for target in 0..depth.counts.len() {
            let sum: f32 = depth.row(&depth.share, target).iter().sum();
            assert!((sum - 1.0).abs() < 1e-4, "{}: shares of target {target} sum to {sum}", dialect.name);
        }
    }
    let (ours, theirs) = (core.logits(0).unwrap().to_vec(), Reference { all: &all, dialect: &dialect }.logits(&ids));
    let scale = theirs.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (a, b) in ours.iter().zip(&theirs) {
        assert!((*a as f64 - b).abs() < 1e-4 * scale, "{}: {a}, not {b}", dialect.name);
    }
}

const COMMON: [&str; 3] = ["attn_res_", "mlp_res_", "final_res_"];

fn plain(name: &'static str, config: serde_json::Value) -> Dialect {
    Dialect { name, config, names: COMMON, output: false, bias: false, null: false, gate: None }
}

#[test]
fn the_papers_blocks() {
    let config = json!({"model_type": "llama_attnres", "attnres_mode": "block", "attnres_num_blocks": 3});
    agrees(Dialect { output: true, ..plain("faithful", config) }, "faithful, 3 blocks");
}

#[test]
fn the_papers_full_form() {
    let config = json!({"model_type": "llama_attnres", "attnres_mode": "full"});
    agrees(Dialect { output: true, ..plain("full", config) }, "faithful, full");
}

#[test]
fn kimi_k3_names() {
    let names = ["self_attention_res_", "mlp_res_", "output_attn_res_"];
    agrees(Dialect { output: true, names, ..plain("k3", json!({"attn_res_block_size": 2})) }, "faithful, 3 blocks");
}

#[test]
fn cumulative_states_with_a_recency_bias() {
    let config = json!({"attnres_mode": "block", "attnres_num_blocks": 3});
    agrees(Dialect { bias: true, ..plain("cumulative", config.clone()) }, "cumulative, 3 blocks");
    let gate = Some("gate_logit");
    agrees(Dialect { bias: true, gate, ..plain("cumulative", config) }, "cumulative, 3 blocks");
}

#[test]
fn deltas() {
    agrees(plain("delta", json!({"attnres_mode": "delta"})), "delta, full");
    agrees(Dialect { null: true, ..plain("delta", json!({"attnres_mode": "delta"})) }, "delta, full");
    let gate = Some("alpha");
    agrees(Dialect { gate, ..plain("delta", json!({"attnres_mode": "delta"})) }, "delta, full");
}

#[test]
fn deltas_of_blocks() {
    let config = json!({"attnres_mode": "delta_block", "attnres_num_blocks": 3});
    agrees(plain("delta_block", config.clone()), "delta block, 3 blocks");
    agrees(Dialect { null: true, ..plain("delta_block", config) }, "delta block, 3 blocks");
}

#[test]
fn what_cannot_be_run_is_told_by_name() {
    let refused = |change: &dyn Fn(&mut Tensors), config: serde_json::Value| {
        let dialect = Dialect { output: true, ..plain("faithful", config) };
        let mut all = weights(&dialect);
        change(&mut all);
        let folder = tempfile::tempdir().unwrap();
        write(&dialect, &all, folder.path());
        Model::open(folder.path()).err().unwrap().to_string()
    };
    let v = |all: &mut Tensors| drop(all.insert("model.layers.0.v_res_proj.weight".into(), (vec![1, D], vec![0.0; D])));
    assert!(refused(&v, json!({"attnres_mode": "delta_v"})).contains("v_res_proj"));
    let gone = |all: &mut Tensors| drop(all.remove("model.layers.3.mlp_res_norm.weight"));
    assert!(refused(&gone, json!({})).contains("layers.3.mlp_res_norm"));
    let gate = |all: &mut Tensors| {
        all.insert("model.layers.1.attn_res_gate_proj.weight".into(), (vec![D, D], vec![0.0; D * D]));
    };
    assert!(refused(&gate, json!({})).contains("gate_proj"));
    assert!(refused(&|_| {}, json!({"model_type": "kimi_k3"})).contains("mixing of depth"));
}
