//! KVCompose: entries of different positions share a slot (Akulov et al. 2025, arXiv 2509.05165).
//!
//! The prompt is read once more behind the cache. Score of an entry: the largest attention that a row of this second
//! reading pays it in each query head, mean over the group, plus the mean of that over the layer's kv heads. Sorted by
//! score, the k-th entries of all heads make "composite token" k of the layer, worth the mean of their scores; all
//! layers' composites compete for the budget, and every head of a layer keeps its own best n_l. `structured=no`: heads
//! compete on their own (more exact, and no rectangular cache any more). The first layer counts as if it had the best
//! composite of any layer at every rank (`first=largest`, kvpress: a serving system measures the cache there).
//!
//! Once, after the prompt; costs a second pass over it. kvpress runs it on Llama and Qwen.

use std::ops::Range;
use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Key};
use super::part::{LaneView, LayerView, Moment, Part, Scorer, Scores, Start};
use super::registry::REGISTERED;
use super::surveyed::{Known, Surveyed, compete, held};

static STRUCTURED: Key<Choice<bool>> = Key::new(
    "structured",
    "whether the heads of a layer keep equally many",
    Choice(&[("yes", true), ("no", false)]),
    true,
);
static FIRST: Key<Choice<bool>> = Key::new(
    "first",
    "whether the first layer keeps at least as many as any",
    Choice(&[("largest", true), ("own", false)]),
    true,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "kvcompose",
    family: Family::Scorer,
    idea: "the k-th best entries of all heads share a slot; layers compete (reads the prompt twice)",
    paper: Some(Paper {
        title: "KVCompose: Efficient Structured KV Cache Compression with Composite Tokens",
        arxiv: "2509.05165",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&STRUCTURED, &FIRST],
    build: |spec| Part::scorer(KvCompose { structured: spec.get(&STRUCTURED), first: spec.get(&FIRST) }),
};

struct KvCompose {
    structured: bool,
    first: bool,
}

impl Scorer for KvCompose {
    fn decodes(&self) -> bool {
        false
    }

    fn surveys(&self) -> bool {
        true
    }

    fn shares(&self) -> bool {
        true
    }

    fn survey(&self, at: Moment, mean: f64, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        let mut layers = held(lane, at.layers);
        let tokens = lane.tokens();
        let mut most: Vec<Vec<Vec<f32>>> = vec![Vec::new(); at.layers];
        for (layer, most) in most.iter_mut().enumerate() {
            lane.layer(layer, &mut |view| {
                let heads = 0..view.kv_heads() * view.group();
                *most = heads.map(|head| vec![0.0; view.positions(head / view.group()).len()]).collect();
            });
        }
        lane.ahead(Start::Behind, &mut |ahead| {
            let mut first = tokens.len() as u32;
            // a part at a time: only the newest queries need to be kept
            for part in tokens.chunks(512) {
                ahead.read(part);
                let rows = first..first + part.len() as u32;
                ahead.lane(&mut |lane| {
                    for (layer, most) in most.iter_mut().enumerate() {
                        lane.layer(layer, &mut |view| note(view, rows.clone(), most));
                    }
                });
                first = rows.end;
            }
        });
        for (known, most) in layers.iter_mut().zip(&most) {
            known.iter_mut().for_each(|known| gather(known, most));
        }
        if self.structured {
            self.compose(&mut layers, mean);
        } else {
            let cells = layers.iter().flatten().map(|known| known.positions.len()).sum::<usize>();
            compete(&mut layers, ((mean * cells as f64) as usize).max(1));
        }
        Some(Arc::new(Surveyed { layers }))
    }

    fn score(&self, _: Moment, _: usize, _: &dyn LayerView) -> Option<Scores> {
        None
    }
}

/// Largest attention of rows `rows` on each entry [H][n]; entries of the prompt come first in the view.
fn note(view: &dyn LayerView, rows: Range<u32>, most: &mut [Vec<f32>]) {
    const BLOCK: u32 = 128;
    for (head, most) in most.iter_mut().enumerate() {
        let n = view.positions(head / view.group()).len();
        for from in rows.clone().step_by(BLOCK as usize) {
            for row in view.rows(head, from..(from + BLOCK).min(rows.end)).chunks_exact(n.max(1)) {
                most.iter_mut().zip(row).for_each(|(most, a)| *most = most.max(*a));
            }
        }
    }
}

/// Of the query heads' largest attention [H][n]: mean over the group, plus the mean of that over the layer's kv heads.
fn gather(known: &mut Known, most: &[Vec<f32>]) {
    let group = most.len() / known.positions.len();
    for (values, heads) in known.scores.values.iter_mut().zip(most.chunks_exact(group)) {
        let mean = |t: usize| heads.iter().map(|most| most[t]).sum::<f32>() / group as f32;
        *values = (0..values.len()).map(mean).collect();
    }
    // evictions before this one may have left other positions in each head
    let mean = |p: u32| {
        let each = known.positions.iter().zip(&known.scores.values);
        let of_holders = each.filter_map(|(held, values)| held.binary_search(&p).ok().map(|at| values[at]));
        of_holders.sum::<f32>() / known.positions.len() as f32
    };
    let means: Vec<Vec<f32>> = known.positions.iter().map(|held| held.iter().map(|&p| mean(p)).collect()).collect();
    for (values, means) in known.scores.values.iter_mut().zip(means) {
        values.iter_mut().zip(means).for_each(|(value, mean)| *value += mean);
    }
}

impl KvCompose {
    /// Composite tokens of all layers compete; every head of a layer keeps as many as its layer won, at least one.
    fn compose(&self, layers: &mut [Option<Known>], mean: f64) {
        let curve = |known: &Known| {
            let longest = known.positions.iter().map(Vec::len).max().unwrap_or(0);
            let mut curve = vec![0.0f32; longest];
            for values in &known.scores.values {
                let mut sorted = values.clone();
                sorted.sort_unstable_by(|a, b| b.total_cmp(a));
                curve.iter_mut().zip(sorted).for_each(|(sum, value)| *sum += value);
            }
            curve.iter_mut().for_each(|sum| *sum /= known.positions.len() as f32);
            curve
        };
        let mut curves: Vec<Vec<f32>> = layers.iter().flatten().map(curve).collect();
        if self.first {
            let best = |k: usize| curves.iter().filter_map(|c| c.get(k)).copied().fold(f32::MIN, f32::max);
            let largest = (0..curves.first().map_or(0, Vec::len)).map(best).collect();
            if let Some(first) = curves.first_mut() {
                *first = largest;
            }
        }
        let mut all: Vec<(f32, usize)> =
            curves.iter().enumerate().flat_map(|(layer, curve)| curve.iter().map(move |&c| (c, layer))).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut won = vec![0usize; curves.len()];
        let total = ((mean * curves.len() as f64) as usize).max(1);
        all.iter().take(total).for_each(|&(_, layer)| won[layer] += 1);
        for (known, won) in layers.iter_mut().flatten().zip(won) {
            known.scores.own = Some(vec![won.max(1); known.positions.len()]);
        }
    }
}
