//! The tensors of a trace file, known before anything is computed.
//!
//! L layers, H query heads, G kv heads, P positions (prompt and steps), V vocabulary; points and targets N = 1 + 2L.

use super::Rows;
use crate::model::config::Config;

pub const SCHEMA: &str = "1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    F32,
    I64,
}

impl Number {
    pub const fn name(self) -> &'static str {
        match self {
            Number::F32 => "F32",
            Number::I64 => "I64",
        }
    }

    pub const fn bytes(self) -> usize {
        match self {
            Number::F32 => 4,
            Number::I64 => 8,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub number: Number,
    pub shape: Vec<usize>,
}

/// What targets are made of: most sources of one, and whether these have weights.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    pub sources: usize,
    pub mixed: bool,
}

pub struct Layout {
    pub tensors: Vec<Tensor>,
}

impl Layout {
    pub fn new(config: &Config, depth: Depth, prompt: usize, steps: usize, rows: Rows, lens_k: usize) -> Self {
        let (l, h, g, v) = (config.layers.len(), config.heads, config.kv_heads, config.vocab);
        let (p, n) = (prompt + steps, 1 + 2 * l);
        let mut tensors = Vec::new();
        let mut add = |name: &str, number, shape: &[usize]| {
            tensors.push(Tensor { name: name.to_owned(), number, shape: shape.to_vec() });
        };
        // 8-byte numbers first: every tensor then begins at a multiple of its number's size.
        add("ids", Number::I64, &[p]);
        add("resid.argmax", Number::I64, &[n, p]);
        if lens_k > 0 {
            add("lens.ids", Number::I64, &[l, lens_k, p]);
            add("lens.prob", Number::F32, &[l, lens_k, p]);
        }
        add("logits", Number::F32, &[steps + 1, v]);
        add("attn_entropy", Number::F32, &[l, h, p]);
        add("attn_first", Number::F32, &[l, h, p]);
        for field in ["resid.l2", "resid.rms", "resid.absmax", "resid.median"] {
            add(field, Number::F32, &[n, p]);
        }
        add("depth.share", Number::F32, &[n, depth.sources, p]);
        if depth.mixed {
            add("depth.weight", Number::F32, &[n, depth.sources, p]);
            for field in ["stream.l2", "stream.rms", "stream.absmax", "stream.median"] {
                add(field, Number::F32, &[n, p]);
            }
        }
        for layer in 0..l {
            if rows != Rows::None {
                add(&format!("attn.{layer}"), Number::F32, &[h, rows.count(p), p]);
            }
            add(&format!("attn_received.{layer}"), Number::F32, &[h, p]);
            for norm in ["key_l2_pre", "key_l2", "value_l1", "value_l2"] {
                add(&format!("{norm}.{layer}"), Number::F32, &[g, p]);
            }
        }
        Self { tensors }
    }
}
