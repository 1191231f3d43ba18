//! The gates of all layers: a reduced attention each.

use std::path::{Path, PathBuf};

use crate::policy::part::Sizes;
use crate::policy::product::Matrix;
use crate::policy::tensor_file::{Tensors, Weights};

/// Rows of attention computed at a time.
const BLOCK: usize = 128;

pub struct Gates {
    path: PathBuf,
    /// h
    heads: usize,
    layers: Vec<Gate>,
}

struct Gate {
    /// Queries, keys and values [h·w, d].
    qkv: [Vec<f32>; 3],
    /// [kv heads, h·w]
    out: Vec<f32>,
    /// [kv heads]
    bias: Vec<f32>,
    /// d
    hidden: usize,
    /// h·w
    inner: usize,
}

impl Gates {
    /// Fails with a sentence about the file, which it does not name.
    pub fn read(path: &Path) -> Result<Self, String> {
        let weights = Weights::open(path)?;
        let tensors = weights.tensors()?;
        let mut layers = vec![gate(&tensors, 0)?];
        while tensors.has(&format!("layers.{}.q.weight", layers.len())) {
            layers.push(gate(&tensors, layers.len())?);
        }
        let heads = tensors.note("heads").and_then(|heads| heads.parse().ok()).filter(|heads| *heads > 0);
        let Some(heads) = heads else {
            return Err("its metadata have no number of `heads`: save_file(…, metadata={\"heads\": \"4\"})".into());
        };
        match layers.iter().find(|gate| gate.inner % heads != 0) {
            Some(gate) => Err(format!("gates of width {} cannot be divided among {heads} heads", gate.inner)),
            None => Ok(Self { path: path.into(), heads, layers }),
        }
    }

    /// Fails with the reason where the gates are for another model.
    pub fn fits(&self, model: Sizes) -> Result<(), String> {
        let of = |gate: &Gate| (gate.bias.len(), gate.hidden);
        if self.layers.len() == model.layers && self.layers.iter().all(|g| of(g) == (model.kv_heads, model.hidden)) {
            return Ok(());
        }
        let (heads, hidden) = self.layers.first().map_or((0, 0), of);
        Err(format!(
            "{} has gates of {} layers and {heads} heads over a width of {hidden}, the model needs {}, {} and {}",
            self.path.display(),
            self.layers.len(),
            model.layers,
            model.kv_heads,
            model.hidden
        ))
    }

    /// Gates of layer `layer` for its inputs [rows, d] → [rows, kv heads], 0 to 1; `None` where they are of another
    /// width.
    pub fn of(&self, layer: usize, inputs: &[f32], rows: usize) -> Option<Vec<f32>> {
        let gate = self.layers.get(layer)?;
        if inputs.len() != rows * gate.hidden {
            return None;
        }
        let x = Matrix::of(inputs, gate.hidden);
        let [q, k, v] = [0, 1, 2].map(|part| x.times(Matrix::of(&gate.qkv[part], gate.hidden).turned()));
        let (inner, width) = (gate.inner, gate.inner / self.heads);
        let mut mixed = vec![0.0; rows * inner];
        for head in 0..self.heads {
            // [rows, w]
            let own = |all: &[f32]| -> Vec<f32> {
                all.chunks_exact(inner).flat_map(|row| &row[head * width..(head + 1) * width]).copied().collect()
            };
            let (q, k, v) = (own(&q), own(&k), own(&v));
            for (block, q) in q.chunks(BLOCK * width).enumerate() {
                let mut maps = Matrix::of(q, width).times(Matrix::of(&k, width).turned());
                maps.chunks_exact_mut(rows).for_each(|row| softmax(row, (width as f32).powf(-0.5)));
                let out = Matrix::of(&maps, rows).times(Matrix::of(&v, width));
                let to = mixed[block * BLOCK * inner..].chunks_exact_mut(inner);
                to.zip(out.chunks_exact(width)).for_each(|(to, out)| to[head * width..][..width].copy_from_slice(out));
            }
        }
        let mut open = Matrix::of(&mixed, inner).times(Matrix::of(&gate.out, inner).turned());
        for row in open.chunks_exact_mut(gate.bias.len()) {
            row.iter_mut().zip(&gate.bias).for_each(|(z, b)| *z = 1.0 / (1.0 + (-*z - b).exp()));
        }
        Some(open)
    }
}

/// Of scaled logits, in place.
fn softmax(row: &mut [f32], scale: f32) {
    let most = row.iter().copied().fold(f32::MIN, f32::max);
    row.iter_mut().for_each(|s| *s = ((*s - most) * scale).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|a| *a /= sum);
}

fn gate(tensors: &Tensors<'_>, layer: usize) -> Result<Gate, String> {
    let name = |part: &str| format!("layers.{layer}.{part}");
    let (inner, hidden, q) = tensors.matrix(&name("q.weight"))?;
    let like_q = |part: &str| match tensors.matrix(&name(part))? {
        (rows, cols, values) if (rows, cols) == (inner, hidden) => Ok(values),
        (rows, cols, _) => {
            Err(format!("`{}` has shape [{rows}, {cols}], the queries' is [{inner}, {hidden}]", name(part)))
        }
    };
    let (k, v) = (like_q("k.weight")?, like_q("v.weight")?);
    let (outputs, width, out) = tensors.matrix(&name("o.weight"))?;
    let (_, bias) = tensors.numbers(&name("o.bias"))?;
    match width == inner && bias.len() == outputs {
        true => Ok(Gate { qkv: [q, k, v], out, bias, hidden, inner }),
        false => Err(format!(
            "`{}` of shape [{outputs}, {width}] does not fit a width of {inner} or a bias of {}",
            name("o.weight"),
            bias.len()
        )),
    }
}
