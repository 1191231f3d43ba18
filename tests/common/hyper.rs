//! Llama-like models with hyper-connections, written by the tests, and what they compute, by the papers and in f64.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::json;

pub const LAYERS: usize = 3;
pub const D: usize = 32;
pub const HEADS: usize = 4;
pub const KV_HEADS: usize = 2;
pub const DIM: usize = 8;
pub const FF: usize = 48;
pub const VOCAB: usize = 40;
pub const STREAMS: usize = 4;
const NORM_EPS: f64 = 1e-5;
const THETA: f64 = 10_000.0;

/// Tensors by name: shape and numbers.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Numbers from −1 to 1 that look random and are the same every time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn many(&mut self, count: usize, by: f32, around: f32) -> Vec<f32> {
        (0..count).map(|_| around + by * self.next()).collect()
    }
}

/// The llama itself.
pub fn plain(seed: u64) -> Tensors {
    let mut noise = Noise(seed);
    let mut all = Tensors::new();
    let mut put = |name: String, shape: &[usize], by: f32, around: f32| {
        let numbers = noise.many(shape.iter().product(), by, around);
        all.insert(name, (shape.to_vec(), numbers));
    };
    put("model.embed_tokens.weight".into(), &[VOCAB, D], 1.0, 0.0);
    put("model.norm.weight".into(), &[D], 0.3, 1.0);
    put("lm_head.weight".into(), &[VOCAB, D], 0.3, 0.0);
    for l in 0..LAYERS {
        let mut layer = |name: &str, shape: &[usize], by: f32, around: f32| {
            put(format!("model.layers.{l}.{name}.weight"), shape, by, around);
        };
        layer("input_layernorm", &[D], 0.3, 1.0);
        layer("post_attention_layernorm", &[D], 0.3, 1.0);
        layer("self_attn.q_proj", &[HEADS * DIM, D], 0.4, 0.0);
        layer("self_attn.k_proj", &[KV_HEADS * DIM, D], 0.4, 0.0);
        layer("self_attn.v_proj", &[KV_HEADS * DIM, D], 0.3, 0.0);
        layer("self_attn.o_proj", &[D, HEADS * DIM], 0.3, 0.0);
        layer("mlp.gate_proj", &[FF, D], 0.3, 0.0);
        layer("mlp.up_proj", &[FF, D], 0.3, 0.0);
        layer("mlp.down_proj", &[D, FF], 0.3, 0.0);
    }
    all
}

/// Names of the gates of each sublayer, then of the end.
fn sites() -> Vec<String> {
    let layer = |l: usize| [format!("model.layers.{l}.hc_attn_"), format!("model.layers.{l}.hc_ffn_")];
    (0..LAYERS).flat_map(layer).chain(["model.hc_head_".into()]).collect()
}

/// The same with gates that depend on the streams, and differ.
pub fn mixed(seed: u64) -> Tensors {
    let mut all = plain(seed);
    let mut noise = Noise(seed + 1);
    for site in sites() {
        let (gates, scales) = if site.contains("head") { (STREAMS, 1) } else { (STREAMS * STREAMS + 2 * STREAMS, 3) };
        all.insert(format!("{site}fn"), (vec![gates, STREAMS * D], noise.many(gates * STREAMS * D, 0.2, 0.0)));
        all.insert(format!("{site}base"), (vec![gates], noise.many(gates, 1.0, 0.0)));
        all.insert(format!("{site}scale"), (vec![scales], noise.many(scales, 0.3, 0.7)));
    }
    all
}

/// The same with H_res = I, H_pre = e_1 and H_post = e_1 whatever comes, which is the plain residual.
pub fn reduced(seed: u64) -> Tensors {
    let mut all = mixed(seed);
    const FAR: f32 = 60.0;
    for site in sites() {
        all.get_mut(&format!("{site}fn")).unwrap().1.fill(0.0);
        let base = &mut all.get_mut(&format!("{site}base")).unwrap().1;
        let first = |i: usize, on: f32| if i == 0 { on } else { -FAR };
        let length = base.len();
        for (i, b) in base.iter_mut().enumerate() {
            *b = match i {
                i if i < STREAMS => first(i, FAR),
                i if i < 2 * STREAMS => first(i - STREAMS, 0.0),
                i => {
                    if (i - 2 * STREAMS).is_multiple_of(STREAMS + 1) {
                        FAR
                    } else {
                        -FAR
                    }
                }
            };
        }
        assert!(length == STREAMS || length == 24);
    }
    all
}

/// Writes a folder that a model can be opened from. `more`: keys of the configuration beside the llama's.
pub fn write(folder: &Path, tensors: &Tensors, more: serde_json::Value) {
    let mut config = json!({
        "model_type": "llama", "hidden_size": D, "intermediate_size": FF, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": DIM, "num_hidden_layers": LAYERS, "vocab_size": VOCAB,
        "max_position_embeddings": 256, "rms_norm_eps": NORM_EPS, "rope_theta": THETA, "tie_word_embeddings": false,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let bytes: BTreeMap<&String, (&[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, numbers))| (name, (&shape[..], numbers.iter().flat_map(|x| x.to_le_bytes()).collect())))
        .collect();
    let views =
        bytes.iter().map(|(name, (shape, bytes))| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    std::fs::write(folder.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
}

// --- the same by the formulas, in f64, one row of numbers after the other ---

type Row = Vec<f64>;

/// What the model computes.
pub struct Reference<'a> {
    pub tensors: &'a Tensors,
    pub rounds: usize,
    pub transposed: bool,
}

/// What it gives: logits of every position, and H_pre, H_post, H_res of every sublayer of the last one.
pub struct Run {
    pub logits: Vec<Row>,
    pub gates: Vec<(Row, Row, Vec<Row>)>,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn rms(x: &[f64]) -> f64 {
    (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + NORM_EPS).sqrt()
}

impl Reference<'_> {
    fn numbers(&self, name: &str) -> Row {
        self.tensors[name].1.iter().map(|&x| x.into()).collect()
    }

    /// w x
    fn times(&self, name: &str, x: &[f64]) -> Row {
        self.numbers(name).chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    }

    fn normed(&self, name: &str, x: &[f64]) -> Row {
        let by = rms(x);
        x.iter().zip(self.numbers(name)).map(|(x, w)| x / by * w).collect()
    }

    /// H_pre, and, but for the end, H_post and H_res.
    fn gates(&self, site: &str, streams: &[Row]) -> (Row, Row, Vec<Row>) {
        let z: Row = streams.concat();
        let by = rms(&z);
        let z: Row = z.iter().map(|z| z / by).collect();
        let (p, base) = (self.times(&format!("{site}fn"), &z), self.numbers(&format!("{site}base")));
        let scale = self.numbers(&format!("{site}scale"));
        let at = |i: usize, which: usize| scale[which] * p[i] + base[i];
        let pre = (0..STREAMS).map(|i| sigmoid(at(i, 0))).collect();
        if p.len() == STREAMS {
            return (pre, Row::new(), Vec::new());
        }
        let post = (0..STREAMS).map(|i| 2.0 * sigmoid(at(STREAMS + i, 1))).collect();
        let cell = |i: usize, j: usize| at(2 * STREAMS + i * STREAMS + j, 2).exp();
        let mut matrix: Vec<Row> = (0..STREAMS).map(|i| (0..STREAMS).map(|j| cell(i, j)).collect()).collect();
        for _ in 0..self.rounds {
            for row in &mut matrix {
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }
            for j in 0..STREAMS {
                let sum: f64 = matrix.iter().map(|row| row[j]).sum();
                matrix.iter_mut().for_each(|row| row[j] /= sum);
            }
        }
        let turned = (0..STREAMS).map(|j| matrix.iter().map(|row| row[j]).collect()).collect();
        (pre, post, if self.transposed { turned } else { matrix })
    }

    fn rope(&self, x: &mut [f64], position: usize) {
        for head in x.chunks_exact_mut(DIM) {
            for i in 0..DIM / 2 {
                let angle = position as f64 / THETA.powf(2.0 * i as f64 / DIM as f64);
                let (a, b) = (head[i], head[i + DIM / 2]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + DIM / 2] = b * angle.cos() + a * angle.sin();
            }
        }
    }

    /// `past`: keys and values of the layer, this position's to be added.
    fn attention(&self, l: usize, h: &[f64], past: &mut Vec<(Row, Row)>) -> Row {
        let of = |part: &str| format!("model.layers.{l}.self_attn.{part}_proj.weight");
        let n = self.normed(&format!("model.layers.{l}.input_layernorm.weight"), h);
        let (mut q, mut k, v) = (self.times(&of("q"), &n), self.times(&of("k"), &n), self.times(&of("v"), &n));
        self.rope(&mut q, past.len());
        self.rope(&mut k, past.len());
        past.push((k, v));
        let mut out = Row::new();
        for (head, q) in q.chunks_exact(DIM).enumerate() {
            let g = head / (HEADS / KV_HEADS) * DIM;
            let dot = |k: &Row| q.iter().zip(&k[g..]).map(|(a, b)| a * b).sum::<f64>() / (DIM as f64).sqrt();
            let e: Row = past.iter().map(|(k, _)| dot(k).exp()).collect();
            let sum: f64 = e.iter().sum();
            out.extend((0..DIM).map(|c| e.iter().zip(&*past).map(|(e, (_, v))| e * v[g + c]).sum::<f64>() / sum));
        }
        self.times(&of("o"), &out)
    }

    fn mlp(&self, l: usize, h: &[f64]) -> Row {
        let of = |part: &str| format!("model.layers.{l}.mlp.{part}_proj.weight");
        let n = self.normed(&format!("model.layers.{l}.post_attention_layernorm.weight"), h);
        let gate = self.times(&of("gate"), &n);
        let inner: Row = gate.iter().zip(self.times(&of("up"), &n)).map(|(g, u)| g * sigmoid(*g) * u).collect();
        self.times(&of("down"), &inner)
    }

    pub fn run(&self, ids: &[u32]) -> Run {
        let embeddings = self.numbers("model.embed_tokens.weight");
        let mut past: Vec<Vec<(Row, Row)>> = vec![Vec::new(); LAYERS];
        let mut run = Run { logits: Vec::new(), gates: Vec::new() };
        for &id in ids {
            let mut streams = vec![embeddings[id as usize * D..][..D].to_vec(); STREAMS];
            run.gates.clear();
            let sum = |pre: &[f64], streams: &[Row]| -> Row {
                (0..D).map(|c| pre.iter().zip(streams).map(|(p, x)| p * x[c]).sum()).collect()
            };
            for (s, site) in sites().iter().enumerate() {
                let (pre, post, matrix) = self.gates(site, &streams);
                let h = sum(&pre, &streams);
                let Some(past) = past.get_mut(s / 2) else {
                    run.logits.push(self.times("lm_head.weight", &self.normed("model.norm.weight", &h)));
                    break;
                };
                let y = if s % 2 == 0 { self.attention(s / 2, &h, past) } else { self.mlp(s / 2, &h) };
                let mixed: Vec<Row> = matrix.iter().map(|row| sum(row, &streams)).collect();
                for ((x, mixed), by) in streams.iter_mut().zip(mixed).zip(&post) {
                    *x = mixed.iter().zip(&y).map(|(m, y)| m + by * y).collect();
                }
                run.gates.push((pre, post, matrix));
            }
        }
        run
    }
}
