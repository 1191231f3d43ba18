//! One step of one lane in two runs.

use serde::Serialize;

use crate::engine::frame::{Kept, LaneFrame};

/// A difference and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Place {
    pub value: f32,
    pub layer: usize,
    /// Query head, or kv head of kept sets; none for residual statistics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<usize>,
    /// Original position of the token; none for kept sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
}

/// A residual point: 0 = embedding, then after attention and after MLP of each layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// |a − b| / max(|a|, |b|)
    pub value: f32,
    pub point: usize,
    pub position: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepDiff {
    pub step: u32,
    /// All numbers are the same, bit for bit.
    pub equal: bool,
    /// Both have been fed the same tokens up to and with this step.
    pub same_prefix: bool,
    /// Last token fed, in each.
    pub fed: [Option<u32>; 2],
    pub fed_equal: bool,
    /// Most probable next token, in each.
    pub argmax: [Option<u32>; 2],
    pub argmax_equal: bool,
    /// Of the next-token distribution, b − a, nats; `null` where one has none.
    pub entropy: Option<f32>,
    /// −ln p of the fed token, b − a, nats; only where both were fed the same one.
    pub nll: Option<f32>,
    pub kept_equal: bool,
    /// |A ∩ B| / |A ∪ B| of the kept sets, mean over layers and kv heads; `null` where shapes differ.
    pub jaccard: Option<f32>,
    /// The least of them.
    pub jaccard_least: Option<Place>,
    /// Largest relative difference of the residual stream's norm.
    pub residual_l2: Option<Point>,
    /// And of its largest absolute value.
    pub residual_absmax: Option<Point>,
    /// Largest absolute difference of an attention row's entropy, nats.
    pub attention_entropy: Option<Place>,
}

impl StepDiff {
    /// `shapes`: layers and heads are the same in number. `prefix`: the same tokens were fed before.
    pub fn of(step: u32, a: &LaneFrame, b: &LaneFrame, shapes: bool, equal: bool, prefix: bool) -> Self {
        let (fed_equal, argmax) = (a.fed == b.fed, [a, b].map(|lane| lane.candidates.first().map(|c| c.id)));
        let (jaccard, jaccard_least) = if shapes { jaccard(&a.kept, &b.kept) } else { (None, None) };
        let rows = shapes && a.fed.len() == b.fed.len();
        let residual = |x: &[f32], y: &[f32]| {
            let same = (a.residual.points, a.residual.rows) == (b.residual.points, b.residual.rows);
            if rows && same { point(x, y, a.residual.rows, a.pos as usize) } else { None }
        };
        Self {
            step,
            equal,
            same_prefix: prefix && fed_equal,
            fed: [a, b].map(|lane| lane.fed.last().copied()),
            fed_equal,
            argmax,
            argmax_equal: argmax[0] == argmax[1],
            entropy: finite(b.entropy - a.entropy),
            nll: a.nll.zip(b.nll).filter(|_| fed_equal).and_then(|(a, b)| finite(b - a)),
            kept_equal: a.kept == b.kept,
            jaccard,
            jaccard_least,
            residual_l2: residual(&a.residual.l2, &b.residual.l2),
            residual_absmax: residual(&a.residual.absmax, &b.residual.absmax),
            attention_entropy: if rows { attention_entropy(a, b) } else { None },
        }
    }
}

fn finite(value: f32) -> Option<f32> {
    Some(value).filter(|v| v.is_finite())
}

/// The largest of `values` with its index; NaN is none.
fn largest(values: impl Iterator<Item = f32>) -> Option<(usize, f32)> {
    let found = values.enumerate().filter(|(_, v)| !v.is_nan());
    found.fold(None, |best: Option<(usize, f32)>, (i, v)| match best {
        Some((_, most)) if most >= v => best,
        _ => Some((i, v)),
    })
}

/// Both `[points][rows]`.
fn point(a: &[f32], b: &[f32], rows: usize, first: usize) -> Option<Point> {
    let relative = |(a, b): (&f32, &f32)| if a == b { 0.0 } else { (a - b).abs() / a.abs().max(b.abs()) };
    let (at, value) = largest(a.iter().zip(b).map(relative))?;
    Some(Point { value, point: at / rows, position: first + at % rows })
}

fn attention_entropy(a: &LaneFrame, b: &LaneFrame) -> Option<Place> {
    let (x, y) = (&a.attention, &b.attention);
    if (x.layers, x.heads, x.rows) != (y.layers, y.heads, y.rows) {
        return None;
    }
    let (at, value) = largest(x.entropy.iter().zip(&y.entropy).map(|(a, b)| (a - b).abs()))?;
    let (cell, row) = (at / x.rows, at % x.rows);
    let position = Some(a.pos as usize + row);
    Some(Place { value, layer: cell / x.heads, head: Some(cell % x.heads), position })
}

/// Mean over all sets, and the least with its place. Two empty sets are the same.
fn jaccard(a: &Kept, b: &Kept) -> (Option<f32>, Option<Place>) {
    if (a.layers, a.kv_heads) != (b.layers, b.kv_heads) || a.layers * a.kv_heads == 0 {
        return (None, None);
    }
    let (words_a, words_b) = (a.positions.div_ceil(64), b.positions.div_ceil(64));
    let of = |set: usize| {
        let (mut both, mut either) = (0, 0);
        for word in 0..words_a.max(words_b) {
            let get = |bits: &[u64], words: usize| if word < words { bits[set * words + word] } else { 0 };
            let (x, y) = (get(&a.bits, words_a), get(&b.bits, words_b));
            both += (x & y).count_ones();
            either += (x | y).count_ones();
        }
        if either == 0 { 1.0 } else { both as f32 / either as f32 }
    };
    let all: Vec<f32> = (0..a.layers * a.kv_heads).map(of).collect();
    let mean = all.iter().sum::<f32>() / all.len() as f32;
    let least = largest(all.iter().map(|j| -j)).map(|(set, j)| Place {
        value: -j,
        layer: set / a.kv_heads,
        head: Some(set % a.kv_heads),
        position: None,
    });
    (Some(mean), least)
}
