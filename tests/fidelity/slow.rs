//! A llama of few lines in f64, whose layers may read each other: slow and obvious.

use std::path::Path;

use attnscope::model::config::Config;

use crate::golden::Tensors;

pub struct Slow {
    weights: Tensors,
    config: Config,
}

type Rows = Vec<Vec<f64>>;

impl Slow {
    pub fn open(folder: &Path, config: &Config) -> Self {
        Self { weights: Tensors::open(&folder.join("model.safetensors")), config: config.clone() }
    }

    fn vector(&self, name: &str) -> Vec<f64> {
        self.weights.f32(name).iter().map(|&x| x as f64).collect()
    }

    /// x · wᵀ
    fn product(&self, name: &str, x: &Rows) -> Rows {
        let w = self.vector(name);
        let row = |x: &Vec<f64>| w.chunks(x.len()).map(|w| dot(w, x)).collect();
        x.iter().map(row).collect()
    }

    fn norm(&self, name: &str, x: &Rows) -> Rows {
        let w = self.vector(name);
        let row = |x: &Vec<f64>| {
            let rms = (dot(x, x) / x.len() as f64 + self.config.norm_eps as f64).sqrt();
            x.iter().zip(&w).map(|(x, w)| x / rms * w).collect()
        };
        x.iter().map(row).collect()
    }

    fn turned(&self, x: Rows) -> Rows {
        let (dim, turns) = (self.config.head_dim, self.config.ropes[0].frequencies(self.config.head_dim));
        let row = |(position, mut row): (usize, Vec<f64>)| {
            for head in row.chunks_mut(dim) {
                for (i, turn) in turns.iter().enumerate() {
                    let (sin, cos) = ((position as f32 * turn) as f64).sin_cos();
                    let (a, b) = (head[i], head[i + dim / 2]);
                    (head[i], head[i + dim / 2]) = (a * cos - b * sin, b * cos + a * sin);
                }
            }
            row
        };
        x.into_iter().enumerate().map(row).collect()
    }

    /// Logits after the last of `ids`. Layer l weighs the values of layer `values[l]` by the map of queries of layer
    /// `queries[l]` and keys of layer `keys[l]`.
    pub fn logits(&self, ids: &[u32], queries: &[usize], keys: &[usize], values: &[usize]) -> Vec<f64> {
        let (dim, heads, group) = (self.config.head_dim, self.config.heads, self.config.heads / self.config.kv_heads);
        let table = self.vector("model.embed_tokens.weight");
        let hidden = self.config.hidden;
        let mut h: Rows = ids.iter().map(|&id| table[id as usize * hidden..][..hidden].to_vec()).collect();
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for layer in 0..self.config.layers.len() {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let x = self.norm(&name("input_layernorm"), &h);
            q.push(self.turned(self.product(&name("self_attn.q_proj"), &x)));
            k.push(self.turned(self.product(&name("self_attn.k_proj"), &x)));
            v.push(self.product(&name("self_attn.v_proj"), &x));
            let (q, k, v) = (&q[queries[layer]], &k[keys[layer]], &v[values[layer]]);
            let mut out = vec![vec![0.0; heads * dim]; ids.len()];
            for (i, out) in out.iter_mut().enumerate() {
                for head in 0..heads {
                    let own = head * dim..(head + 1) * dim;
                    let kv = head / group * dim..(head / group + 1) * dim;
                    let scores: Vec<f64> = (0..=i)
                        .map(|j| (dot(&q[i][own.clone()], &k[j][kv.clone()]) * self.config.attn_scale as f64).exp())
                        .collect();
                    let sum: f64 = scores.iter().sum();
                    for (j, score) in scores.iter().enumerate() {
                        out[own.clone()].iter_mut().zip(&v[j][kv.clone()]).for_each(|(o, v)| *o += score / sum * v);
                    }
                }
            }
            add(&mut h, self.product(&name("self_attn.o_proj"), &out));
            let x = self.norm(&name("post_attention_layernorm"), &h);
            let (gate, up) = (self.product(&name("mlp.gate_proj"), &x), self.product(&name("mlp.up_proj"), &x));
            let ff =
                gate.iter().zip(&up).map(|(g, u)| g.iter().zip(u).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect());
            add(&mut h, self.product(&name("mlp.down_proj"), &ff.collect()));
        }
        let last = self.norm("model.norm.weight", &h).split_off(ids.len() - 1);
        self.product("lm_head.weight", &last).remove(0)
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(h: &mut Rows, more: Rows) {
    h.iter_mut().zip(more).for_each(|(h, more)| h.iter_mut().zip(more).for_each(|(h, m)| *h += m));
}
