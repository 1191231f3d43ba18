//! Task-KV: heads that say something of their own keep everything (He et al. 2025, arXiv 2501.15113).
//!
//! Per query head: C = mean attention of the last `window` queries; its vector = Σ C_t · v_t over the 256 entries with
//! the highest C. The heads farthest from the mean of the layer's vectors, f = n·beta − (n·beta − m)·r/(R − 1) of the n in
//! layer r of R, and the single nearest are heterogeneous: their kv heads keep all. The other kv heads share what is
//! left of the layer's budget evenly: `sinks` first, `recent` newest, then the highest votes, C pooled with a kernel of
//! 7, mean over the query heads.
//!
//! window = 32, sinks = 16, recent = 256 (fewer where a head has little), beta = 0.3, m = 1: the paper's for Mistral
//! (Llama 2: 0.25 and 4). No code is public. With grouped heads a kv head is heterogeneous if any of its query heads is.
//! Heads become heterogeneous in the order of their distance, the nearest last, only while every other head still gets
//! a quarter of an even budget: the paper's budgets are large enough not to meet that.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, Count, Key, Real};
use super::part::{LayerView, Moment, Part, Scorer, Scores};
use super::registry::REGISTERED;
use super::select::select;
use super::snapkv::Pool;

static WINDOW: Key<Count> = Key::new("window", "last prompt queries that vote", Count(1, 1_000_000), 32);
static BETA: Key<Real> = Key::new("beta", "share of heterogeneous heads in the first layer", Real(0.0, 1.0), 0.3);
static M: Key<Count> = Key::new("m", "heterogeneous heads in the last layer", Count(0, 1000), 1);
static SINKS: Key<Auto<Count>> = Key::new(
    "sinks",
    "first positions that the other heads keep",
    Auto(Count(0, 1_000_000), "16, at most an eighth of the budget"),
    None,
);
static RECENT: Key<Auto<Count>> = Key::new(
    "recent",
    "newest entries that the other heads keep",
    Auto(Count(0, 1_000_000), "256, at most an eighth of the budget"),
    None,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "taskkv",
    family: Family::Scorer,
    idea: "heads far from the others' mean keep everything, the rest shares what is left",
    paper: Some(Paper {
        title: "Task-KV: Task-aware KV Cache Optimization via Semantic Differentiation of Attention Heads",
        arxiv: "2501.15113",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&WINDOW, &BETA, &M, &SINKS, &RECENT],
    build: |spec| {
        Part::scorer(TaskKv {
            window: spec.get(&WINDOW) as usize,
            beta: spec.get(&BETA),
            m: spec.get(&M) as f64,
            sinks: spec.get(&SINKS).map(|sinks| sinks as usize),
            recent: spec.get(&RECENT).map(|recent| recent as usize),
        })
    },
};

struct TaskKv {
    window: usize,
    beta: f64,
    m: f64,
    sinks: Option<usize>,
    recent: Option<usize>,
}

/// Entries that a head's vector is made of.
const IMPORTANT: usize = 256;

impl Scorer for TaskKv {
    fn decodes(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        self.window.min(prompt)
    }

    fn score(&self, at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let heads: Vec<Vec<f32>> = (0..view.kv_heads() * view.group()).map(|h| self.attention(at, view, h)).collect();
        let vectors: Vec<Vec<f32>> = heads.iter().enumerate().map(|(head, c)| vector(view, head, c)).collect();
        let held: Vec<usize> = (0..view.kv_heads()).map(|head| view.positions(head).len()).collect();
        let order = by_distance(&vectors);
        let count = self.heterogeneous(at, order.len());
        let candidates = order.iter().take(count).chain(order.last()).map(|head| head / view.group());
        let own = sizes(candidates, &held, budget);
        let pooled = heads.iter().map(|c| Pool::Average.along(c, 7)).collect::<Vec<_>>();
        let votes = pooled.chunks(view.group()).map(|group| {
            (0..group[0].len()).map(|t| group.iter().map(|c| c[t]).sum::<f32>() / group.len() as f32).collect()
        });
        let sinks = self.sinks.unwrap_or(16.min(budget / 8).max(1));
        let recent = self.recent.unwrap_or(256.min(budget / 8));
        let scores = Scores::free(votes.collect()).keep_first(sinks, view).keep_newest(recent);
        Some(Scores { own: Some(own), ..scores })
    }
}

impl TaskKv {
    /// Mean attention of the last queries [n].
    fn attention(&self, at: Moment, view: &dyn LayerView, head: usize) -> Vec<f32> {
        let (w, end) = (self.window(at.prompt) as u32, view.newest() + 1);
        let n = view.positions(head / view.group()).len();
        let mut mean = vec![0.0; n];
        for row in view.rows(head, end.saturating_sub(w)..end).chunks_exact(n.max(1)) {
            mean.iter_mut().zip(row).for_each(|(m, a)| *m += a / w as f32);
        }
        mean
    }

    /// f(r): how many of `heads` are heterogeneous, the nearest not counted.
    fn heterogeneous(&self, at: Moment, heads: usize) -> usize {
        let first = heads as f64 * self.beta;
        let depth = at.layer as f64 / (at.layers.max(2) - 1) as f64;
        (first - (first - self.m) * depth).round_ties_even() as usize
    }
}

/// Σ C_t · v_t over the entries with the highest C [D].
fn vector(view: &dyn LayerView, head: usize, attention: &[f32]) -> Vec<f32> {
    let (dim, values) = (view.head_dim(), view.values(head / view.group()));
    let mut sum = vec![0.0; dim];
    for slot in select(attention, &vec![false; attention.len()], IMPORTANT) {
        let value = &values[slot as usize * dim..][..dim];
        sum.iter_mut().zip(value).for_each(|(sum, v)| *sum += attention[slot as usize] * v);
    }
    sum
}

/// The farthest from the mean of all first; equal ones in order.
fn by_distance(vectors: &[Vec<f32>]) -> Vec<usize> {
    let dim = vectors.first().map_or(0, Vec::len);
    let mean = |i: usize| vectors.iter().map(|v| v[i]).sum::<f32>() / vectors.len() as f32;
    let centre: Vec<f32> = (0..dim).map(mean).collect();
    let far = |v: &Vec<f32>| v.iter().zip(&centre).map(|(x, c)| (x - c) * (x - c)).sum::<f32>();
    let far: Vec<f32> = vectors.iter().map(far).collect();
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    order.sort_by(|&a, &b| far[b].total_cmp(&far[a]));
    order
}

/// Entries of each kv head: all for `candidates` as long as the others get enough, the rest in equal parts.
fn sizes(candidates: impl Iterator<Item = usize>, held: &[usize], budget: usize) -> Vec<usize> {
    let total = budget * held.len();
    let part = |whole: &[bool]| {
        let used: usize = held.iter().zip(whole).filter(|(_, whole)| **whole).map(|(held, _)| held).sum();
        let others = whole.iter().filter(|whole| !**whole).count();
        total.checked_sub(used).map(|left| left / others.max(1))
    };
    let mut whole = vec![false; held.len()];
    for head in candidates {
        let mut more = whole.clone();
        more[head] = true;
        if part(&more).is_some_and(|part| part >= budget.div_ceil(4) || more.iter().all(|&whole| whole)) {
            whole = more;
        }
    }
    let part = part(&whole).unwrap_or(budget);
    held.iter().zip(whole).map(|(&held, whole)| if whole { held } else { held.min(part) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{Layer, after_prompt, moment, score};

    #[test]
    fn distances_are_from_the_mean_of_all_heads() {
        // the mean is (1, 1): distances² 2, 2, 0, 4
        let vectors = [vec![0.0, 0.0], vec![2.0, 2.0], vec![1.0, 1.0], vec![1.0, 3.0], vec![1.0, -1.0]];
        assert_eq!(by_distance(&vectors), [3, 4, 0, 1, 2]);
    }

    #[test]
    fn the_share_falls_or_rises_to_m_in_the_last_layer() {
        let policy = TaskKv { window: 32, beta: 0.25, m: 4.0, sinks: None, recent: None };
        let at = |layer| Moment { layer, layers: 5, ..moment(9, 0) };
        assert_eq!([0, 1, 2, 3, 4].map(|layer| policy.heterogeneous(at(layer), 32)), [8, 7, 6, 5, 4]);
        assert_eq!(policy.heterogeneous(moment(9, 0), 32), 8);
    }

    #[test]
    fn whole_heads_leave_the_rest_to_share() {
        // four heads of 100, half of it all: 200; one whole leaves 33 for each of the others
        assert_eq!(sizes([2].into_iter(), &[100; 4], 50), [33, 33, 100, 33]);
        // a second would leave nothing
        assert_eq!(sizes([2, 0].into_iter(), &[100; 4], 50), [33, 33, 100, 33]);
        assert_eq!(sizes([2, 0].into_iter(), &[100; 4], 60), [100, 20, 100, 20]);
        assert_eq!(sizes([0].into_iter(), &[100; 4], 10), [10; 4]);
        assert_eq!(sizes([0].into_iter(), &[100], 99), [99]);
    }

    /// Two kv heads with one query head each, alike but for their values: the second's are far out.
    #[test]
    fn the_far_head_keeps_everything() {
        let map = || {
            let row = |i: usize| (0..8).map(move |t| if t <= i { (1 + t % 3) as f32 } else { 0.0 });
            (0..8).flat_map(move |i| {
                let sum: f32 = row(i).sum();
                row(i).map(move |a| a / sum)
            })
        };
        let maps: Vec<Vec<f32>> = (0..3).map(|_| map().collect()).collect();
        let values = |x: f32| vec![x; 16];
        let layer = Layer::new(maps, vec![vec![0.0; 16]; 3], vec![values(0.0), values(9.0), values(1.0)], 2, 8);
        let spec = "taskkv@4:window=2,sinks=1,recent=1,m=0";
        assert_eq!(score(spec, &layer).own, Some(vec![2, 8, 2]));
        assert_eq!(after_prompt(spec, &layer), [vec![0, 7], (0..8).collect(), vec![0, 7]]);
    }
}
