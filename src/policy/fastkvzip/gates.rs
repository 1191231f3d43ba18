//! The gates of all layers.

use std::path::{Path, PathBuf};

use crate::policy::part::Sizes;
use crate::policy::product::Matrix;
use crate::policy::tensor_file::{Tensors, Weights};

pub struct Gates {
    path: PathBuf,
    layers: Vec<Gate>,
}

struct Gate {
    /// [kv heads · g · w, d]
    queries: Vec<f32>,
    /// [kv heads · g · w]
    query_bias: Vec<f32>,
    /// [kv heads · w, d]
    keys: Vec<f32>,
    /// [w]
    query_norm: Vec<f32>,
    key_norm: Vec<f32>,
    /// [kv heads, sinks, w]
    sinks: Vec<f32>,
    /// [kv heads, g]
    bias: Vec<f32>,
    kv_heads: usize,
    /// d
    hidden: usize,
}

impl Gates {
    /// Fails with a sentence about the file, which it does not name.
    pub fn read(path: &Path) -> Result<Self, String> {
        let weights = Weights::open(path)?;
        let tensors = weights.tensors()?;
        let mut layers = vec![gate(&tensors, 0)?];
        while tensors.has(&format!("layers.{}.q_proj.weight", layers.len())) {
            layers.push(gate(&tensors, layers.len())?);
        }
        Ok(Self { path: path.into(), layers })
    }

    /// Fails with the reason where the gates are for another model.
    pub fn fits(&self, model: Sizes) -> Result<(), String> {
        let of = |gate: &Gate| (gate.bias.len(), gate.kv_heads, gate.hidden);
        let wanted = (model.heads, model.kv_heads, model.hidden);
        if self.layers.len() == model.layers && self.layers.iter().all(|gate| of(gate) == wanted) {
            return Ok(());
        }
        let (path, layers) = (self.path.display(), self.layers.len());
        let found = self.layers.first().map_or((0, 0, 0), of);
        Err(format!(
            "{path} has gates of {layers} layers, (heads, kv heads, width) {found:?}; the model has {} and {wanted:?}",
            model.layers
        ))
    }

    /// Scores of layer `layer` for its inputs [rows, d] → [rows, kv heads], 0 to 1; `None` where they are of another
    /// width.
    pub fn of(&self, layer: usize, inputs: &[f32], rows: usize) -> Option<Vec<f32>> {
        let gate = self.layers.get(layer)?;
        if inputs.len() != rows * gate.hidden {
            return None;
        }
        let x = Matrix::of(inputs, gate.hidden);
        let mut queries = x.times(Matrix::of(&gate.queries, gate.hidden).turned());
        for row in queries.chunks_exact_mut(gate.query_bias.len()) {
            row.iter_mut().zip(&gate.query_bias).for_each(|(q, b)| *q += b);
        }
        let mut keys = x.times(Matrix::of(&gate.keys, gate.hidden).turned());
        norm(&mut queries, &gate.query_norm);
        norm(&mut keys, &gate.key_norm);
        let (width, group) = (gate.key_norm.len(), gate.bias.len() / gate.kv_heads);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() / (width as f32).sqrt();
        let score = |row: usize, head: usize| {
            let key = &keys[(row * gate.kv_heads + head) * width..][..width];
            let sinks = gate.sinks.chunks_exact(gate.sinks.len() / gate.kv_heads).nth(head).unwrap_or(&[]);
            let of_query = |g: usize| {
                let query = &queries[(row * gate.bias.len() + head * group + g) * width..][..width];
                let own = dot(query, key) + gate.bias[head * group + g];
                1.0 / (1.0 + sinks.chunks_exact(width).map(|sink| (dot(query, sink) - own).exp()).sum::<f32>())
            };
            (0..group).map(of_query).sum::<f32>() / group as f32
        };
        Some((0..rows * gate.kv_heads).map(|i| score(i / gate.kv_heads, i % gate.kv_heads)).collect())
    }
}

/// x / rms(x) · weight, for each part as long as `weight`.
fn norm(x: &mut [f32], weight: &[f32]) {
    for part in x.chunks_exact_mut(weight.len()) {
        let mean = part.iter().map(|x| x * x).sum::<f32>() / weight.len() as f32;
        let scale = 1.0 / (mean + 1e-6).sqrt();
        part.iter_mut().zip(weight).for_each(|(x, w)| *x *= scale * w);
    }
}

fn gate(tensors: &Tensors<'_>, layer: usize) -> Result<Gate, String> {
    let name = |part: &str| format!("layers.{layer}.{part}");
    let numbers = |part: &str| tensors.numbers(&name(part));
    let (all_queries, hidden, queries) = tensors.matrix(&name("q_proj.weight"))?;
    let (all_keys, key_inputs, keys) = tensors.matrix(&name("k_proj.weight"))?;
    let (_, query_norm) = numbers("q_norm.weight")?;
    let width = query_norm.len();
    let sized = |holds: bool, part: &str, shape: &[usize]| match holds {
        true => Ok(()),
        false => Err(format!("`{}` of shape {shape:?} does not fit the others", name(part))),
    };
    sized(width > 0, "q_norm.weight", &[width])?;
    let kv_heads = all_keys / width;
    sized(
        all_keys == kv_heads * width && key_inputs == hidden && kv_heads > 0,
        "k_proj.weight",
        &[all_keys, key_inputs],
    )?;
    let group = all_queries / all_keys;
    sized(all_queries == group * all_keys && group > 0, "q_proj.weight", &[all_queries, hidden])?;
    let (shape, query_bias) = numbers("q_proj.bias")?;
    sized(shape == [all_queries], "q_proj.bias", &shape)?;
    let (shape, key_norm) = numbers("k_norm.weight")?;
    sized(shape == [width], "k_norm.weight", &shape)?;
    let (shape, sinks) = numbers("k_base")?;
    sized(matches!(shape[..], [h, 1, s, w] if (h, w) == (kv_heads, width) && s > 0), "k_base", &shape)?;
    let (shape, bias) = numbers("b")?;
    sized(shape == [kv_heads, 1, group], "b", &shape)?;
    Ok(Gate { queries, query_bias, keys, query_norm, key_norm, sinks, bias, kv_heads, hidden })
}
