//! One layer's cache in plain memory, slow and obvious: what every policy test looks at.

pub mod reading;

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::chain::{Decision, Policy};
use super::part::{Ahead, LaneView, LayerView, Moment, Norm, Part, Scores, Sizes, Start, Text};
use super::sharing::{Lab, PieceRead};
use super::spec::Spec;
use super::watch::{Watch, again};
use crate::cache::Wiring;
use crate::model::soft::SoftTokens;
use crate::probe::map_similarity::LayerSimilarity;

/// Attention over all P positions is known from the start; the cache walks along it.
#[derive(Debug, Clone)]
pub struct Layer {
    pub group: usize,
    pub dim: usize,
    pub scale: f32,
    /// [kv heads][P · D]
    pub keys: Vec<Vec<f32>>,
    pub values: Vec<Vec<f32>>,
    /// Nothing evicted [H][P · P].
    pub attention: Vec<Vec<f32>>,
    pub newest: u32,
    /// [kv heads][n]
    pub held: Vec<Vec<u32>>,
    /// [H][n]
    pub received: Vec<Vec<f32>>,
    /// After rope [H][P · D], radians per position [D/2], and the output projection of each head [H][hidden · D];
    /// empty where a test does without.
    pub queries: Vec<Vec<f32>>,
    pub turns: Vec<f32>,
    pub output: Vec<Vec<f32>>,
    /// [kv heads][n]; empty where nothing is added to logits.
    pub offsets: Vec<Vec<f32>>,
    /// [P · hidden]; empty where a test does without.
    pub inputs: Vec<f32>,
    /// What has been looked at: rows back from the newest query, and column sums.
    pub asked_rows: Cell<usize>,
    pub asked_received: Cell<bool>,
    /// Rows counted above average.
    pub asked_history: Cell<usize>,
}

impl Layer {
    /// After a prompt of `prompt` tokens, from whole attention maps.
    pub fn new(
        attention: Vec<Vec<f32>>,
        keys: Vec<Vec<f32>>,
        values: Vec<Vec<f32>>,
        dim: usize,
        prompt: usize,
    ) -> Self {
        let held = vec![(0..prompt as u32).collect(); keys.len()];
        let group = attention.len() / keys.len();
        let received = vec![vec![0.0; prompt]; attention.len()];
        let scale = (dim as f32).powf(-0.5);
        let mut layer = Self {
            group,
            dim,
            scale,
            keys,
            values,
            attention,
            newest: prompt as u32 - 1,
            held,
            received,
            queries: Vec::new(),
            turns: vec![0.0; dim / 2],
            output: Vec::new(),
            offsets: Vec::new(),
            inputs: Vec::new(),
            asked_rows: Cell::new(0),
            asked_received: Cell::new(false),
            asked_history: Cell::new(0),
        };
        for head in 0..layer.attention.len() {
            for row in layer.rows(head, 0..prompt as u32).chunks(prompt) {
                layer.received[head].iter_mut().zip(row).for_each(|(sum, a)| *sum += a);
            }
        }
        layer
    }

    /// Causal softmax(q·k·scale) of every query [H][P · D] over keys [kv heads][P · D].
    pub fn from_queries(
        queries: &[Vec<f32>],
        keys: Vec<Vec<f32>>,
        values: Vec<Vec<f32>>,
        dim: usize,
        prompt: usize,
    ) -> Self {
        let scale = (dim as f32).powf(-0.5);
        let group = queries.len() / keys.len();
        let attention = queries.iter().enumerate().map(|(head, q)| {
            let k = &keys[head / group];
            let positions = q.len() / dim;
            let mut map = vec![0.0; positions * positions];
            for (i, (q, row)) in q.chunks(dim).zip(map.chunks_mut(positions)).enumerate() {
                for (k, a) in k.chunks(dim).zip(&mut row[..=i]) {
                    *a = (q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>() * scale).exp();
                }
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|a| *a /= sum);
            }
            map
        });
        let attention = attention.collect();
        Self { queries: queries.to_vec(), ..Self::new(attention, keys, values, dim, prompt) }
    }

    /// A lane of this layer alone.
    pub fn alone(&self) -> Lane<'_> {
        Lane(std::slice::from_ref(self))
    }

    /// One more position behind all that are known: it repeats an earlier one and attends to all alike.
    fn grow(&mut self) {
        let (positions, dim) = (self.attention[0].len().isqrt(), self.dim);
        let again = positions / 2 * dim..(positions / 2 + 1) * dim;
        for cells in self.keys.iter_mut().chain(&mut self.values).chain(&mut self.queries) {
            cells.extend_from_within(again.clone());
        }
        for map in &mut self.attention {
            let mut larger: Vec<f32> = Vec::new();
            map.chunks(positions).for_each(|row| larger.extend(row.iter().chain(&[0.0])));
            larger.extend(vec![1.0 / (positions + 1) as f32; positions + 1]);
            *map = larger;
        }
    }

    /// Feeds the next position.
    pub fn step(&mut self) {
        self.newest = self.newest.wrapping_add(1);
        if self.newest as usize >= self.attention[0].len().isqrt() {
            self.grow();
        }
        self.held.iter_mut().for_each(|held| held.push(self.newest));
        self.offsets.iter_mut().filter(|offsets| !offsets.is_empty()).for_each(|offsets| offsets.push(0.0));
        for head in 0..self.attention.len() {
            let row = self.rows(head, self.newest..self.newest + 1);
            self.received[head].push(0.0);
            self.received[head].iter_mut().zip(row).for_each(|(sum, a)| *sum += a);
        }
    }

    /// What stays, with its new contents.
    pub fn keep(&mut self, decision: &Decision) {
        self.hold(&decision.kept);
        for (kv_head, new) in decision.rewritten.iter().enumerate() {
            let put = |into: &mut [f32], new: &Option<Vec<f32>>| {
                let rows = new.iter().flat_map(|new| new.chunks_exact(self.dim)).zip(&self.held[kv_head]);
                rows.for_each(|(row, &p)| into[p as usize * self.dim..][..self.dim].copy_from_slice(row));
            };
            put(&mut self.keys[kv_head], &new.keys);
            put(&mut self.values[kv_head], &new.values);
            if let Some(offsets) = &new.offsets {
                self.offsets.resize(self.held.len(), Vec::new());
                self.offsets[kv_head].clone_from(offsets);
            }
        }
    }

    /// Before anything was read.
    fn begun(&self) -> Self {
        let mut layer = self.clone();
        layer.hold(&vec![Vec::new(); self.keys.len()]);
        layer.newest = u32::MAX;
        layer
    }

    /// Keeps these slots [kv heads].
    pub fn hold(&mut self, kept: &[Vec<u32>]) {
        for (kv_head, kept) in kept.iter().enumerate() {
            let held = &self.held[kv_head];
            self.held[kv_head] = kept.iter().map(|&slot| held[slot as usize]).collect();
            if let Some(offsets) = self.offsets.get_mut(kv_head).filter(|offsets| !offsets.is_empty()) {
                *offsets = kept.iter().map(|&slot| offsets[slot as usize]).collect();
            }
            for received in &mut self.received[kv_head * self.group..(kv_head + 1) * self.group] {
                *received = kept.iter().map(|&slot| received[slot as usize]).collect();
            }
        }
    }

    /// Over the held slots; a query that sees none of them has zeros.
    fn row(&self, head: usize, i: u32) -> Vec<f32> {
        let map = &self.attention[head];
        let positions = map.len().isqrt();
        let whole = &map[i as usize * positions..(i as usize + 1) * positions];
        let held: Vec<f32> = self.held[head / self.group].iter().map(|&p| whole[p as usize]).collect();
        let mass: f32 = held.iter().sum();
        let everything = held.len() == self.newest as usize + 1;
        held.into_iter().map(move |a| if everything || mass == 0.0 { a } else { a / mass }).collect()
    }

    fn gather<'a>(&self, from: &'a [f32], kv_head: usize) -> Cow<'a, [f32]> {
        let rows = self.held[kv_head].iter().map(|&p| p as usize * self.dim);
        rows.flat_map(|at| &from[at..at + self.dim]).copied().collect()
    }
}

/// Several layers; a moment's layer beyond them shows the last one.
pub struct Lane<'a>(pub &'a [Layer]);

impl LaneView for Lane<'_> {
    fn layer(&self, layer: usize, look: &mut dyn FnMut(&dyn LayerView)) -> bool {
        look(&self.0[layer.min(self.0.len() - 1)]);
        true
    }
    fn tokens(&self) -> &[u32] {
        const IDS: [u32; 2048] = {
            let mut ids = [0; 2048];
            let mut i = 0;
            while i < ids.len() {
                ids[i] = i as u32;
                i += 1;
            }
            ids
        };
        &IDS[..=self.0[0].newest as usize]
    }
    fn context(&self) -> usize {
        self.0[0].attention[0].len().isqrt()
    }
    fn text(&self) -> &dyn Text {
        &Letters
    }
    fn next(&self) -> u32 {
        self.0[0].newest + 1
    }
    fn cosines(&self) -> &[f32] {
        const COSINES: [f32; 8] = [0.5, 0.96, 0.7, 0.93, 0.52, 0.95, 0.72, 0.6];
        &COSINES[..self.0.len().min(8)]
    }
    fn ahead(&self, start: Start<'_>, work: &mut dyn FnMut(&mut dyn Ahead)) {
        let mut layers = self.0.to_vec();
        for (number, layer) in layers.iter_mut().enumerate() {
            match start {
                Start::Behind => {}
                Start::Kept(kept) => {
                    if let Some(kept) = &kept[number] {
                        layer.hold(kept);
                    }
                }
                Start::Nothing => *layer = layer.begun(),
            }
        }
        let norms = vec![Vec::new(); layers.len()];
        work(&mut Further { layers, norms });
    }
}

/// Layers that step on along the attention they know; a token's logits favour the id after it.
struct Further {
    layers: Vec<Layer>,
    norms: Vec<Vec<f32>>,
}

impl Ahead for Further {
    fn read(&mut self, tokens: &[u32]) -> Vec<f32> {
        for token in tokens {
            self.layers.iter_mut().for_each(Layer::step);
            self.norms.iter_mut().for_each(|norms| norms.push(1.0 + *token as f32));
        }
        let next = tokens.last().map_or(0, |t| (*t as usize + 1) % 64);
        (0..64).map(|id| if id == next { 1.0 } else { 0.0 }).collect()
    }
    fn read_soft(&mut self, soft: &SoftTokens) {
        self.read(&vec![0; soft.count]);
    }
    fn lane(&self, look: &mut dyn FnMut(&dyn LaneView)) {
        look(&Lane(&self.layers));
    }
    fn input_norms(&self) -> &[Vec<f32>] {
        &self.norms
    }
}

/// One token a byte; those below 4 are special.
pub struct Letters;

impl Text for Letters {
    fn encode(&self, text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }
    fn spell(&self, id: u32) -> String {
        char::from_u32(id).map(String::from).unwrap_or_default()
    }
    fn is_special(&self, id: u32) -> bool {
        id < 4
    }
}

impl LayerView for Layer {
    fn kv_heads(&self) -> usize {
        self.keys.len()
    }
    fn group(&self) -> usize {
        self.group
    }
    fn head_dim(&self) -> usize {
        self.dim
    }
    fn scale(&self) -> f32 {
        self.scale
    }
    fn positions(&self, kv_head: usize) -> &[u32] {
        &self.held[kv_head]
    }
    fn keys(&self, kv_head: usize) -> Cow<'_, [f32]> {
        self.gather(&self.keys[kv_head], kv_head)
    }
    fn values(&self, kv_head: usize) -> Cow<'_, [f32]> {
        self.gather(&self.values[kv_head], kv_head)
    }
    fn key_norms(&self, kv_head: usize) -> Vec<f32> {
        self.keys(kv_head).chunks(self.dim).map(|k| k.iter().map(|x| x * x).sum::<f32>().sqrt()).collect()
    }
    /// A softmax over fewer slots is the whole row, divided by what the held slots have of it.
    fn rows(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        self.asked_rows.set(self.asked_rows.get().max((self.newest + 1 - rows.start) as usize));
        rows.flat_map(|i| self.row(head, i)).collect()
    }
    fn newest(&self) -> u32 {
        self.newest
    }
    fn received(&self, head: usize) -> &[f32] {
        self.asked_received.set(true);
        &self.received[head]
    }
    /// Rows of the past as they would be with what is held now.
    fn above_average(&self, head: usize, rows: usize) -> Vec<u32> {
        self.asked_history.set(self.asked_history.get().max(rows));
        let first = (self.newest + 1).saturating_sub(rows as u32);
        let mut hits = vec![0; self.held[head / self.group].len()];
        for position in first..=self.newest {
            let seen = self.held[head / self.group].iter().filter(|&&p| p <= position).count();
            let row = self.row(head, position);
            hits.iter_mut().zip(&row).take(seen).for_each(|(hit, a)| *hit += (*a >= 1.0 / seen as f32) as u32);
        }
        hits
    }
    /// Of what was read so far.
    fn inputs(&self) -> &[f32] {
        &self.inputs[..self.inputs.len() / self.attention[0].len().isqrt() * (self.newest as usize + 1)]
    }
    fn input(&self, position: u32) -> Option<&[f32]> {
        let hidden = self.inputs.len() / self.attention[0].len().isqrt();
        self.inputs().get(position as usize * hidden..(position as usize + 1) * hidden)
    }
    fn offsets(&self, kv_head: usize) -> &[f32] {
        self.offsets.get(kv_head).map_or(&[], |offsets| offsets.as_slice())
    }
    fn queries(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        self.asked_rows.set(self.asked_rows.get().max((self.newest + 1 - rows.start) as usize));
        self.queries[head][rows.start as usize * self.dim..rows.end as usize * self.dim].to_vec()
    }
    fn turns(&self) -> &[f32] {
        &self.turns
    }
    fn watched(&self, layer: usize, head: usize, watch: &dyn Watch) -> Vec<f32> {
        again(self, layer, head, watch)
    }

    fn projected(&self, head: usize, norm: Norm) -> Vec<f32> {
        let project = |v: &[f32]| {
            let rows = self.output[head].chunks(self.dim).map(|w| w.iter().zip(v).map(|(w, v)| w * v).sum::<f32>());
            match norm {
                Norm::L1 => rows.map(f32::abs).sum(),
                Norm::L2 => rows.map(|x| x * x).sum::<f32>().sqrt(),
            }
        };
        self.values(head / self.group).chunks(self.dim).map(project).collect()
    }
}

/// The toy of the policy notes: one kv head, two query heads, T = 6, D = 4, scale ½.
pub fn toy() -> Layer {
    let keys = "1 0 0 0  .5 .5 0 0  0 1 0 0  0 0 2 0  0 0 0 1  .3 .1 .2 .4";
    let values = "1 2 0 0  0 1 0 0  0 0 3 0  1 1 1 1  0 0 0 -2  .5 0 0 0";
    let queries = "1 0 0 0  1 1 0 0  0 2 0 0  0 0 1 1  1 0 1 0  0 1 0 2";
    let numbers = |text: &str| text.split_whitespace().map(|x| x.parse().unwrap()).collect::<Vec<f32>>();
    let q = numbers(queries);
    let reversed = q.chunks(4).flat_map(|q| q.iter().rev()).copied().collect();
    Layer::from_queries(&[q, reversed], vec![numbers(keys)], vec![numbers(values)], 4, 6)
}

/// Random numbers in [−1, 1) for everything that a layer holds: `heads` = (kv heads, group).
pub fn random_layer(seed: u64, heads: (usize, usize), dim: usize, prompt: usize) -> Layer {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut numbers = |heads: usize, count: usize| -> Vec<Vec<f32>> {
        (0..heads).map(|_| (0..count).map(|_| random.random_range(-1.0..1.0)).collect()).collect()
    };
    let (q, k, v) =
        (numbers(heads.0 * heads.1, prompt * dim), numbers(heads.0, prompt * dim), numbers(heads.0, prompt * dim));
    let output = numbers(heads.0 * heads.1, 2 * dim * dim);
    Layer { output, ..Layer::from_queries(&q, k, v, dim, prompt) }
}

/// Of a model of which only the cache matters.
pub fn sizes(layers: usize, kv_heads: usize, head_dim: usize) -> Sizes {
    Sizes { layers, kv_heads, head_dim, heads: kv_heads, ..Sizes::default() }
}

pub fn moment(prompt: usize, step: u32) -> Moment {
    Moment { step, prompt, layers: 1, layer: 0 }
}

/// What the spec's scorer says about `layer` right after the prompt.
pub fn score(spec: &str, layer: &Layer) -> Scores {
    let spec = Spec::parse(spec).unwrap();
    let part = &spec.parts()[0];
    let Part::Scorer(scorer) = (part.policy().build)(part) else { panic!("{spec} has no scorer") };
    let prompt = layer.newest as usize + 1;
    scorer.score(moment(prompt, 0), part.budget().unwrap().of(prompt), layer).unwrap()
}

/// What the first stage decides about one layer.
pub fn decide(policy: &Policy, at: Moment, layer: &Layer) -> Option<Decision> {
    // The layers before it would decide the same; only its own number counts.
    let at = Moment { layers: at.layers.max(at.layer + 1), ..at };
    policy.decide(0, at, &layer.alone()).swap_remove(at.layer)
}

/// Positions that stay after the prompt, by kv head.
pub fn after_prompt(spec: &str, layer: &Layer) -> Vec<Vec<u32>> {
    let prompt = layer.newest as usize + 1;
    decide(&Policy::parse(spec).unwrap(), moment(prompt, 0), layer).unwrap().kept
}

pub fn mean<const N: usize>(rows: &[[f32; N]]) -> Vec<f32> {
    (0..N).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / rows.len() as f32).collect()
}

/// Equal to the six decimals that golden numbers are written with.
pub fn close(actual: &[f32], expected: &[f32]) {
    let near = |(a, e): (&f32, &f32)| (a - e).abs() < 2e-6;
    assert!(actual.len() == expected.len() && actual.iter().zip(expected).all(near), "{actual:?}\nis not {expected:?}");
}

#[test]
fn the_toy_attends_as_written() {
    close(&toy().rows(0, 5..6), &[0.108468, 0.139275, 0.178833, 0.108468, 0.294846, 0.170111]);
    close(&toy().rows(1, 5..6), &[0.256997, 0.155876, 0.094544, 0.256997, 0.094544, 0.141043]);
}

/// Two kv heads, two query heads each, D = 4, `prompt` positions; numbers in [−1, 1) from a formula, and rope.
pub fn drawn(prompt: usize) -> Layer {
    let numbers = |seed: usize| {
        let number = |i: usize| ((i * 37 + seed * 101 + i * i * 13) % 64) as f32 / 32.0 - 1.0;
        (0..prompt * 4).map(number).collect::<Vec<f32>>()
    };
    let queries: Vec<_> = (1..5).map(numbers).collect();
    let layer = Layer::from_queries(&queries, vec![numbers(5), numbers(6)], vec![numbers(7), numbers(8)], 4, prompt);
    Layer { turns: vec![1.0, 0.25], ..layer }
}

/// Row `at` of the pairs of `x` [P · 4], turned by `position` times `turns` (negative: back).
pub fn turned(x: &[f32], at: usize, turns: &[f32], position: f64) -> [f64; 4] {
    std::array::from_fn(|i| {
        let (sin, cos) = (position * turns[i % 2] as f64).sin_cos();
        let [a, b] = [i % 2, i % 2 + 2].map(|i| x[at * 4 + i] as f64);
        if i < 2 { a * cos - b * sin } else { b * cos + a * sin }
    })
}

/// Nothing can be tried out.
pub struct NoLab {
    pub layers: usize,
}

impl Lab for NoLab {
    fn layers(&self) -> usize {
        self.layers
    }
    fn head_dim(&self) -> usize {
        1
    }
    fn alike(&self, _: usize, _: usize) -> bool {
        true
    }
    fn pieces(&mut self, _: usize, _: usize) -> Vec<Vec<u32>> {
        Vec::new()
    }
    fn read(&mut self, _: &[Vec<u32>], _: &Wiring, _: &mut dyn FnMut(PieceRead<'_>)) -> bool {
        false
    }
    fn similarity(&mut self, _: usize) -> Option<LayerSimilarity> {
        None
    }
}
